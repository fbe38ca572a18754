"""Tiny models of transformers, made from configurations and saved to folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

SENTENCE = "the cat sat on a mat while two very old dogs slept beside an open door"
WORDS = SENTENCE.split()


def texts(count: int = 9) -> Any:
    random = np.random.default_rng(0)
    return np.array([" ".join(random.choice(WORDS, 1 + 2 * row)) for row in range(count)])


def save_tokenizer(folder: Path, **special: Any) -> None:
    from tokenizers import models, pre_tokenizers, processors

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[END]"]
    vocabulary = {word: number for number, word in enumerate([*names, *WORDS])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if "cls_token" in special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", **special
    ).save_pretrained(folder)


SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def save_bert(folder: Path, seed: int = 0) -> None:
    """An encoder of texts with its tokenizer."""
    torch.manual_seed(seed)
    bert = transformers.BertConfig(
        **SMALL, intermediate_size=32, max_position_embeddings=24, initializer_range=0.5
    )
    transformers.BertModel(bert).save_pretrained(folder)
    save_tokenizer(folder, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")

"""What transformers reads: a model in float32, and how its texts or images are prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from td_ray.errors import WorkError
from td_ray.tasks.inputs import Block
from td_ray.zoo.images import as_pillow

Options = Mapping[str, Any]
"""Keywords of every ``from_pretrained``: revision, local_files_only, trust_remote_code."""

Batch = dict[str, Tensor]


def read_config(name: str, options: Options) -> dict[str, Any]:
    """The configuration as it is written, before any code is looked for."""
    from transformers import PretrainedConfig

    reading = {key: options[key] for key in ("revision", "local_files_only")}
    config: dict[str, Any] = PretrainedConfig.get_config_dict(name, **reading)[0]
    return config


def read_model(name: str, options: Options, layers: Sequence[str], who: str) -> nn.Module:
    """Read a model; of an encoder with a decoder, the encoder.

    Raises:
        WorkError: weights that are missing, which would be random.
    """
    from transformers import AutoModel

    model, report = AutoModel.from_pretrained(
        name, dtype=torch.float32, output_loading_info=True, **options
    )
    used = [
        key
        for key in sorted(report["missing_keys"])
        # the pooler after the last hidden state; many checkpoints leave it out
        if not key.startswith("pooler.") or any(layer.startswith("pooler") for layer in layers)
    ]
    if used:
        raise WorkError(
            f"model '{who}': {len(used)} weights are missing from {name}, such as '{used[0]}', and "
            "would be random"
        )
    return _encoder(model)


def build_model(name: str, options: Options) -> nn.Module:
    """The model with weights that mean nothing."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(name, **options)
    code = {name: value for name, value in options.items() if name == "trust_remote_code"}
    return _encoder(AutoModel.from_config(config, **code))


def _encoder(model: Any) -> nn.Module:
    module: nn.Module = model.get_encoder() if model.config.is_encoder_decoder else model
    return module


def text_preparation(
    name: str, options: Options, config: Any, max_tokens: int | None, who: str
) -> Callable[[Block], Batch]:
    """Return what turns texts into tokens, padded on the right to the longest of a block.

    Raises:
        WorkError: the tokenizer has no token to pad with.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name, **options)
    # on the right, positions count from the text's start whatever else is in the batch
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise WorkError(f"model '{who}': its tokenizer has no token to pad with")
        tokenizer.pad_token = tokenizer.eos_token  # masked, so any will do
    positions = getattr(config, "max_position_embeddings", None)
    limits = [tokenizer.model_max_length, positions, max_tokens]
    longest = int(min(limit for limit in limits if limit is not None))
    is_cut = longest < 10**9  # transformers says 10**30 where it does not know
    lock = Lock()  # a tokenizer is changed by its options, and refuses other threads meanwhile

    def prepare(block: Block) -> Batch:
        texts = [str(text) for text in block]
        with lock:
            found = tokenizer(
                texts,
                padding=True,
                truncation=is_cut,
                max_length=longest if is_cut else None,
                return_tensors="pt",
                return_attention_mask=True,
            )
        empty = (found["attention_mask"].sum(1) == 0).nonzero()
        if len(empty) or not found["attention_mask"].numel():
            position = int(empty[0]) if len(empty) else 0
            raise WorkError(
                f"model '{who}': the text at position {position} of its batch, "
                f"'{texts[position][:40]}', has no tokens"
            )
        return dict(found)

    return prepare


def image_preparation(name: str, options: Options, who: str) -> Callable[[Block], Batch]:
    """Return what turns images into what the model's image processor gives."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(name, **options)

    def prepare(block: Block) -> Batch:
        return dict(processor(images=as_pillow(block, who), return_tensors="pt"))

    return prepare


def hidden_state(value: Any) -> Any:
    """The tensor that counts in what a transformer or one of its blocks gives."""
    if isinstance(value, Mapping):
        return value.get("last_hidden_state", value)
    return value[0] if isinstance(value, tuple) and value else value

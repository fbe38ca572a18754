"""Hugging Face models: tiny ones, made from configurations and saved to folders."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_data import dataset, extracted
from small_transformers import WORDS, save_bert, save_tokenizer, texts

from td_ray.errors import InputError, WorkError
from td_ray.files import sha256
from td_ray.zoo.huggingface_models import HuggingFace

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_bert(folder / "bert")
    gpt = transformers.GPT2Config(
        vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=24, initializer_range=0.5
    )
    transformers.GPT2Model(gpt).save_pretrained(folder / "gpt2")
    save_tokenizer(folder / "gpt2", eos_token="[END]")
    vit = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        initializer_range=0.5,
    )
    transformers.ViTModel(vit).save_pretrained(folder / "vit")
    size = {"height": 16, "width": 16}
    transformers.ViTImageProcessor(size=size).save_pretrained(folder / "vit")
    return folder


def model(folder: Path, name: str, **entry: Any) -> HuggingFace:
    source = HuggingFace(source="huggingface", model=f"./{name}", **entry)
    (found,) = source.expand(folder, ["d"], folder)
    return found


def extract(
    folder: Path, name: str, inputs: Any, layers: Any = ("output",), batch: int = 4, **entry: Any
) -> Any:
    data = dataset([str(row) for row in range(len(inputs))], inputs)
    found = model(folder, name, **entry)
    return extracted(found, data, folder, *layers, batch=batch)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
@pytest.mark.parametrize(("name", "layer"), [("bert", "encoder.layer.0"), ("gpt2", "h.0")])
def test_batch_size_does_not_change_features(
    folder: Path, name: str, layer: str, pooling: Any
) -> None:
    layers = ("output", layer)
    one, seven = (
        extract(folder, name, texts(), layers, batch, pooling=pooling) for batch in (1, 7)
    )
    for key in layers:
        assert one[key].shape == (9, 16)
        scale = np.abs(one[key]).max()
        assert np.abs(one[key] - seven[key]).max() <= 1e-5 * scale
        assert one[key].std() > 0.01


def test_the_mean_is_over_a_texts_own_tokens(folder: Path) -> None:
    found = extract(folder, "bert", texts())["output"]
    bert = transformers.BertModel.from_pretrained(folder / "bert").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "bert")
    for row, text in enumerate(texts().tolist()):
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=24)
        with torch.inference_mode():
            expected = bert(**tokens).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)


def test_long_texts_are_cut(folder: Path) -> None:
    long = [" ".join(WORDS * 5), " ".join(WORDS * 9)]
    found = extract(folder, "bert", long)["output"]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    short = extract(folder, "bert", long, max_tokens=6)["output"]
    np.testing.assert_allclose(
        short, extract(folder, "bert", [" ".join(WORDS[:4])] * 2)["output"], rtol=1e-4, atol=1e-5
    )


def test_a_text_without_tokens(folder: Path) -> None:
    with pytest.raises(WorkError, match=r"model 'gpt2': the text at position 1 .* has no tokens"):
        extract(folder, "gpt2", ["cat", "", "mat"])
    with pytest.raises(WorkError, match=r"the text at position 0 .* has no tokens"):
        extract(folder, "gpt2", ["", ""])


def test_images(folder: Path) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (20 + n, 18, 3), dtype=np.uint8) for n in range(8)]
    layers = ("output", "embeddings")
    one, seven = (extract(folder, "vit", images, layers, batch) for batch in (1, 7))
    for layer in layers:
        np.testing.assert_allclose(one[layer], seven[layer], rtol=1e-4, atol=1e-5)
    vit = transformers.ViTModel.from_pretrained(folder / "vit").eval()
    pixels = transformers.AutoImageProcessor.from_pretrained(folder / "vit")(
        images=images[0], return_tensors="pt"
    )
    with torch.inference_mode():
        expected = vit(**pixels).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(one["output"][0], expected, rtol=1e-4, atol=1e-5)
    grey = random.random((3, 9, 9))
    assert extract(folder, "vit", grey)["output"].shape == (3, 16)


def test_threads_may_prepare_at_the_same_time(folder: Path) -> None:
    data = dataset([str(row) for row in range(9)], texts())
    network = model(folder, "bert").load(folder, data, ["output"], "cpu")
    blocks = [texts()[start : start + 3] for start in range(7)] * 20
    expected = [network.prepare(block)["input_ids"] for block in blocks]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(network.prepare, blocks))
    assert all(torch.equal(a["input_ids"], b) for a, b in zip(found, expected, strict=True))


def test_unknown_layers(folder: Path) -> None:
    with pytest.raises(WorkError, match=r"has no layer 'h.O': did you mean 'h\.[01]'"):
        extract(folder, "gpt2", texts(), ["h.O"])


def test_a_commit_is_needed(folder: Path) -> None:
    def expand(**entry: Any) -> list[HuggingFace]:
        return HuggingFace(source="huggingface", **entry).expand(folder, ["d"], folder)

    with pytest.raises(InputError, match=r"'a/b' has no revision; a branch can move"):
        expand(model="a/b")
    with pytest.raises(InputError, match=r"'a/b' is at 'main'; a branch can move"):
        expand(model="a/b", revision="main")
    with pytest.raises(InputError, match=r"nowhere is no folder with a model"):
        expand(model="./nowhere")
    one, two = expand(model=["a/b", "a/c"], revision=COMMIT)
    assert (one.name, two.name) == ("b", "c")
    assert one.identity(folder, "d", "output", sha256) == ["a/b", COMMIT, None, False]
    (named,) = expand(model="a/b", revision=COMMIT, name="{model}@{revision}")
    assert named.name == "b@01234567"


def test_a_model_that_was_not_fetched(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    source = HuggingFace(source="huggingface", model="a/b", revision=COMMIT)
    (found,) = source.expand(folder, ["d"], folder)
    data = dataset(["a", "b", "c"], texts(3))
    with pytest.raises(WorkError) as caught:
        found.load(folder, data, ["output"], "cpu")
    message = str(caught.value)
    place = tmp_path / "hub/models--a--b/snapshots" / COMMIT
    assert message == (
        f"files of 'b': a/b is not whole in {place} (no such folder); 'td-ray prefetch' fetches it "
        f"from https://huggingface.co/a/b/tree/{COMMIT}, or place it there by hand"
    )
    with pytest.raises(InputError) as planned:
        found.check(folder, data, ["t"])
    assert str(planned.value) == message


def test_code_that_comes_with_a_model(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "bert/config.json").read_text())
    (tmp_path / "x").mkdir()
    data = dataset(["a", "b", "c"], texts(3))

    def check(code: str, allowed: bool) -> None:
        changed = {**config, "auto_map": {"AutoModel": code}}
        (tmp_path / "x/config.json").write_text(json.dumps(changed))
        found = model(tmp_path, "x", allow_remote_code=allowed)
        found.check(tmp_path, data, ["t"])

    with pytest.raises(InputError, match=r"code of its own .* say allow_remote_code: true"):
        check("code.Model", False)
    check("code.Model", True)
    with pytest.raises(InputError, match="code from another repository"):
        check("a/b--code.Model", True)
    (tmp_path / "x/config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        model(tmp_path, "x").check(tmp_path, data, ["t"])
    check_at_load = {**config, "auto_map": {"AutoModel": "code.Model"}}
    (tmp_path / "x/config.json").write_text(json.dumps(check_at_load))
    with pytest.raises(InputError, match="code of its own"):
        model(tmp_path, "x").load(tmp_path, data, ["output"], "cpu")


def test_missing_weights_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    bert = transformers.BertModel.from_pretrained(folder / "bert")
    save_tokenizer(tmp_path / "bert", pad_token="[PAD]")

    def save(without: str) -> None:
        state = {k: v for k, v in bert.state_dict().items() if not k.startswith(without)}
        bert.save_pretrained(tmp_path / "bert", state_dict=state)

    save("pooler.")
    assert extract(tmp_path, "bert", texts())["output"].shape == (9, 16)
    with pytest.raises(WorkError, match=r"2 weights are missing .* 'pooler\.dense\.bias'"):
        extract(tmp_path, "bert", texts(), ["pooler.dense"])
    save("encoder.layer.1.output.dense.")
    with pytest.raises(WorkError, match=r"2 weights are missing .* would be random"):
        extract(tmp_path, "bert", texts())


def test_identity_is_of_a_folders_bytes(folder: Path, tmp_path: Path) -> None:
    def identity(**entry: Any) -> Any:
        return model(tmp_path, "m", **entry).identity(tmp_path, "d", "output", sha256)

    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text("{}")
    first = identity()
    (tmp_path / "m/README.md").write_text("changes nothing")
    assert identity() == first
    (tmp_path / "m/model.safetensors").write_bytes(b"weights")
    assert identity() != first
    assert identity(max_tokens=5) != identity()
    unknown = model(tmp_path, "m").identity(tmp_path, "d", "output", lambda path: None)
    assert unknown is None

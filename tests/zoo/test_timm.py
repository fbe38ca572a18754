"""timm's models, here with random weights in files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_data import dataset, extracted

from td_ray.errors import InputError, WorkError
from td_ray.files import sha256
from td_ray.zoo.timm_models import Timm

timm = pytest.importorskip("timm")

IMAGES = np.random.default_rng(0).integers(0, 255, (5, 40, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def expand(cache: Path, **entry: Any) -> list[Timm]:
    return Timm(source="timm", **entry).expand(cache, ["d"], cache)


def extract(model: Timm, folder: Path, layers: list[str], inputs: Any = IMAGES) -> Any:
    data = dataset([str(row) for row in range(len(inputs))], inputs)
    return extracted(model, data, folder, *layers, batch=2)


def test_names_globs_and_defaults(cache: Path) -> None:
    found = expand(cache, model=["resnet18.*", "resnet18", "test_vit"])
    names = [str(model.name) for model in found]
    assert "resnet18.a1_in1k" in names
    assert all(name.startswith("resnet18.") for name in names[:-1])
    assert names[-1] == "test_vit.r160_in1k"
    assert len(set(names)) == len(names)
    assert found[0].metadata == {"architecture": "resnet18"}
    with pytest.raises(InputError, match=r"no pretrained model is called 'resnet81': did you mean"):
        expand(cache, model="resnet81")


def test_the_second_expansion_does_not_import_the_library(cache: Path) -> None:
    expand(cache, model="resnet18")
    code = (
        "import sys; from pathlib import Path\n"
        "from td_ray.zoo.timm_models import Timm\n"
        f"cache = Path({str(cache)!r})\n"
        "assert Timm(source='timm', model='resnet18*').expand(cache, ['d'], cache)\n"
        "assert 'timm' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["test_vit.r160_in1k", "test_resnet.r160_in1k"])
def test_features_are_those_of_a_plain_loop(cache: Path, tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=7).eval()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "a.pt")
    (model,) = expand(cache, model=name, weights="a.pt")
    model.check(tmp_path, dataset(list("abcde"), IMAGES), ["t"])
    found = extract(model, tmp_path, ["penultimate", "output"])
    from PIL import Image

    config = timm.data.resolve_model_data_config(network)
    transform = timm.data.create_transform(**config, is_training=False)
    with torch.inference_mode():
        batch = torch.stack([transform(Image.fromarray(image)) for image in IMAGES])
        maps = network.forward_features(batch)
        hidden = network.forward_head(maps, pre_logits=True)
        output = network(batch)
    np.testing.assert_allclose(found["penultimate"], hidden, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["output"], output, rtol=1e-4, atol=1e-5)


def test_weights_of_another_model(cache: Path, tmp_path: Path) -> None:
    network = timm.create_model("test_resnet.r160_in1k")
    torch.save(network.state_dict(), tmp_path / "a.pt")
    (model,) = expand(cache, model="test_vit", weights="a.pt")
    with pytest.raises(WorkError, match=r"a\.pt do not fit timm's test_vit\.r160_in1k: [^\n]*$"):
        extract(model, tmp_path, ["output"])
    (model,) = expand(cache, model="test_vit", weights="b.pt")
    with pytest.raises(InputError, match="weights: no file at"):
        model.check(tmp_path, dataset(list("abcde"), IMAGES), ["t"])


def test_weights_that_are_not_there(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (model,) = expand(cache, model="test_vit")
    (weights,) = model.needed()
    assert weights.path == tmp_path / "hub/checkpoints/test_vit.r160_in1k.safetensors"
    address = "https://huggingface.co/timm/test_vit.r160_in1k/resolve/main/model.safetensors"
    with pytest.raises(InputError) as caught:
        model.check(tmp_path, dataset(list("abcde"), IMAGES), ["t"])
    message = str(caught.value)
    assert "'test_vit.r160_in1k'" in message
    assert f"fetches it from {address}" in message


def test_identity(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    placed = tmp_path / "hub/checkpoints/test_vit.r160_in1k.safetensors"
    placed.parent.mkdir(parents=True)
    placed.write_bytes(b"three")
    (tmp_path / "a.pt").write_bytes(b"one")
    (tmp_path / "b.pt").write_bytes(b"two")

    def identity(**entry: Any) -> str:
        (model,) = expand(cache, **entry)
        return repr(model.identity(tmp_path, "d", "output", sha256))

    kinds: list[dict[str, Any]] = [
        {"model": "test_vit"},
        {"model": "test_vit", "weights": "a.pt"},
        {"model": "test_vit", "weights": "b.pt"},
        {"model": "test_resnet", "weights": "b.pt"},
    ]
    assert len({identity(**kind) for kind in kinds}) == 4

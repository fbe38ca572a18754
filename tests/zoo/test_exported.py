"""Programs of torch.export: layers, fixed batches, shapes, modes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_data import dataset, extracted
from small_programs import (
    FREE,
    IMAGES,
    RANDOM,
    ROWS,
    expanded,
    expected,
    extract,
    save,
    save_small,
    small_network,
)
from torch import Tensor, nn
from torch.export import Dim, export

from td_ray.errors import WorkError
from td_ray.extraction import extract_features
from td_ray.features import Pass
from td_ray.files import sha256
from td_ray.spec import Resources
from td_ray.zoo.checkpoints import Checkpoints


@pytest.fixture
def network() -> nn.Module:
    return small_network()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save_small(tmp_path)


@pytest.mark.parametrize("batch", [1, 3, 9])
@pytest.mark.parametrize("free", [FREE, None, 2 * FREE, Dim("n", min=2, max=4)], ids=str)
def test_layers_and_batches(tmp_path: Path, network: nn.Module, batch: int, free: Any) -> None:
    save(tmp_path / "a.pt2", network, torch.randn(4, 3, 9, 8), free)
    wanted = expected(network, IMAGES, 0.5, 0.25)
    found = extract(tmp_path, list(wanted), IMAGES, batch, mean=0.5, deviation=0.25)
    for layer, values in wanted.items():
        np.testing.assert_allclose(found[layer], values, atol=1e-5, rtol=1e-5)


def test_a_program_for_one_sample(tmp_path: Path, network: nn.Module) -> None:
    save(tmp_path / "a.pt2", network, torch.randn(1, 3, 9, 8), None)
    wanted = expected(network, IMAGES)
    found = extract(tmp_path, list(wanted), IMAGES)
    for layer, values in wanted.items():
        np.testing.assert_allclose(found[layer], values, atol=1e-5, rtol=1e-5)


def test_a_program_of_few_operators(tmp_path: Path, network: nn.Module) -> None:
    save(tmp_path / "a.pt2", network, torch.randn(2, 3, 9, 8), decomposed=True)
    wanted = expected(network, IMAGES)
    found = extract(tmp_path, ["penultimate", "output"], IMAGES)
    for layer, values in found.items():
        np.testing.assert_allclose(values, wanted[layer], atol=1e-5, rtol=1e-5)


def test_features_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    lines = "from torch import nn\ndef build(): return nn.Sequential("
    lines += "nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))\n"
    (tmp_path / "nets.py").write_text(lines)
    network = nn.Sequential(
        nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2)
    ).eval()
    torch.save(network.state_dict(), tmp_path / "a.pt")
    save(tmp_path / "a.pt2", network, torch.randn(2, 4))
    (checkpoint,) = Checkpoints(source="checkpoints", path="a.pt", factory="nets:build").expand(
        tmp_path, ["d"], tmp_path
    )
    data = dataset([str(row) for row in range(7)], ROWS)
    wanted = extracted(checkpoint, data, tmp_path, "1", "penultimate", "output")
    found = extract(tmp_path, ["tanh", "penultimate", "output"], ROWS)
    for mine, other in zip(found.values(), wanted.values(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6, rtol=1e-5)


def test_resnet_and_vision_transformer(tmp_path: Path) -> None:
    from torchvision.models import VisionTransformer, resnet18

    torch.manual_seed(0)
    transformer = VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
        num_classes=3,
    )
    nn.init.normal_(transformer.heads.head.weight)
    images = RANDOM.random((5, 32, 32, 3)).astype(np.float32)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    for network in (resnet18(), transformer):
        network.eval()
        save(tmp_path / "a.pt2", network, tensor[:2])
        found = extract(tmp_path, ["output", "penultimate"], images)
        with torch.no_grad():
            output = network(tensor).numpy()
        np.testing.assert_allclose(found["output"], output, rtol=1e-4, atol=1e-5)
        head = network.fc if hasattr(network, "fc") else network.heads.head
        from_hidden = head(torch.from_numpy(found["penultimate"])).detach()
        np.testing.assert_allclose(from_hidden, output, rtol=1e-4, atol=1e-5)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens).tanh())


def test_tokens_are_pooled(tmp_path: Path) -> None:
    network = Tokens().eval()
    save(tmp_path / "a.pt2", network, torch.zeros(2, 6, dtype=torch.int64))
    rows = RANDOM.integers(0, 9, (5, 6))
    with torch.no_grad():
        wanted = network(torch.from_numpy(rows)).numpy()
    mean = extract(tmp_path, ["output"], rows)["output"]
    last = extract(tmp_path, ["output"], rows, pooling="last")["output"]
    np.testing.assert_allclose(mean, wanted.mean(1), atol=1e-6)
    np.testing.assert_allclose(last, wanted[:, -1], atol=1e-6)


class Positions(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows + torch.arange(4, device=rows.device) + torch.ones(4)


def test_it_runs_on_another_device_than_it_was_exported_on(tmp_path: Path) -> None:
    """The device ``meta`` does not compute, but takes no tensor of the CPU."""
    save(tmp_path / "a.pt2", nn.Sequential(nn.Linear(4, 4), Positions()).eval(), torch.randn(2, 4))
    model = expanded(tmp_path)
    network = model.load(tmp_path, dataset(list("abcd"), ROWS[:4]), ["output"], "meta")
    features = network.forward(network.prepare(ROWS[:4]))["output"]
    assert (features.device.type, features.shape) == ("meta", (4, 4))


def test_bfloat16(tmp_path: Path) -> None:
    network = nn.Linear(4, 3).to(torch.bfloat16).eval()
    save(tmp_path / "a.pt2", network, torch.randn(2, 4, dtype=torch.bfloat16))
    with torch.no_grad():
        wanted = network(torch.from_numpy(ROWS).to(torch.bfloat16)).float()
    found = extract(tmp_path, ["output"], ROWS)["output"]
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.02)


def test_a_pass_that_starts_later(tmp_path: Path, file: Path) -> None:
    model, data = expanded(tmp_path), dataset([str(row) for row in range(5)], IMAGES)
    wanted, resources = Pass(model, data, {"output": ""}), Resources(batch_size=2, device="cpu")
    whole, rest = (
        np.concatenate(
            [x["output"] for x in extract_features(wanted, ["output"], start, tmp_path, resources)]
        )
        for start in (0, 3)
    )
    assert len(rest) == 2
    np.testing.assert_allclose(rest, whole[3:], rtol=1e-5, atol=1e-6)


def test_identity_is_of_bytes_and_options(tmp_path: Path, file: Path) -> None:
    def identity(**entry: Any) -> str:
        return repr(expanded(tmp_path, **entry).identity(tmp_path, "d", "output", sha256))

    kinds: list[dict[str, Any]] = [{}, {"size": 4}, {"mean": 0.5}, {"deviation": 0.5}]
    found = {identity(**kind) for kind in kinds}
    file.write_bytes(file.read_bytes() + b"x")
    assert len(found | {identity()}) == len(kinds) + 1


def test_layers_that_are_not_there(tmp_path: Path, file: Path) -> None:
    with pytest.raises(WorkError, match=r"^model 'a' has no layer 'conv': did you mean 'conv2d'"):
        extract(tmp_path, ["conv"], IMAGES)
    with pytest.raises(WorkError, match=r"no layer 'q7': there are \d+, the last of them .*'add'"):
        extract(tmp_path, ["q7"], IMAGES)
    with pytest.raises(WorkError, match="no layer 'sym_size"):  # it gives a number
        extract(tmp_path, ["sym_size_int_1"], IMAGES)
    save(tmp_path / "a.pt2", nn.Tanh().eval(), torch.randn(2, 4))
    with pytest.raises(WorkError, match=r"no linear layer, .*name a node; .*'tanh'"):
        extract(tmp_path, ["penultimate"], ROWS)


def test_inputs_of_another_shape(tmp_path: Path, file: Path) -> None:
    images = RANDOM.random((4, 10, 12, 3))
    with pytest.raises(WorkError, match=r"takes inputs of shape \(n, 3, 9, 8\); prepared, .*10"):
        extract(tmp_path, ["output"], images, size=[10, 12])
    assert extract(tmp_path, ["output"], images)["output"].shape == (4, 2)  # brought to its size
    save(tmp_path / "a.pt2", nn.Linear(4, 2).eval(), torch.randn(2, 4))
    with pytest.raises(WorkError, match=r"of shape \(n, 4\); prepared, these have \(4, 5\)"):
        extract(tmp_path, ["output"], RANDOM.normal(size=(4, 5)))


def test_axes_that_are_open(tmp_path: Path, network: nn.Module) -> None:
    side = Dim("side", min=4, max=16)
    shapes = ({0: FREE, 2: side, 3: side},)
    program = export(network, (torch.randn(2, 3, 9, 9),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "a.pt2")
    square = RANDOM.integers(0, 255, (4, 7, 7, 3), dtype=np.uint8)
    found = extract(tmp_path, ["output"], square)["output"]
    np.testing.assert_allclose(found, expected(network, square)["output"], atol=1e-5, rtol=1e-5)
    words = r"of shape \(n, 3, 4 to 16, 4 to 16\); prepared, these have \(4, 3, "
    for wrong in ((4, 7, 8, 3), (4, 20, 20, 3)):
        with pytest.raises(WorkError, match=words):
            extract(tmp_path, ["output"], RANDOM.random(wrong))


class Batched(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows.mean(0)


def test_what_has_no_row_per_sample(tmp_path: Path) -> None:
    save(tmp_path / "a.pt2", Batched().eval(), torch.randn(2, 3))
    with pytest.raises(WorkError, match=r"gives \(3,\) at layer 'output' for a batch of 4; name"):
        extract(tmp_path, ["output"], ROWS[:, :3])


@pytest.mark.parametrize(
    "part", [nn.Dropout(0.5), nn.BatchNorm1d(4), nn.TransformerEncoderLayer(4, 2, 8)]
)
@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.filterwarnings("ignore:.*batch_first:UserWarning")
def test_training_mode_is_refused(tmp_path: Path, part: nn.Module, decomposed: bool) -> None:
    save(tmp_path / "a.pt2", nn.Sequential(part).train(), torch.randn(2, 4), decomposed=decomposed)
    with pytest.raises(WorkError, match=r"export it after model\.eval\(\)$"):
        extract(tmp_path, ["output"], ROWS)


def test_instance_normalization_is_no_training_mode(tmp_path: Path) -> None:
    network = nn.InstanceNorm1d(3).eval()
    rows = RANDOM.normal(size=(5, 3, 4)).astype(np.float32)
    for decomposed in (False, True):
        save(tmp_path / "a.pt2", network, torch.randn(2, 3, 4), decomposed=decomposed)
        found = extract(tmp_path, ["output"], rows, pooling="flatten")["output"]
        wanted = network(torch.from_numpy(rows)).flatten(1)
        np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-4)


class Two(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


def test_a_program_of_two_inputs(tmp_path: Path) -> None:
    program = export(Two().eval(), (torch.randn(2, 4), torch.randn(2, 4)))
    torch.export.save(program, tmp_path / "a.pt2")
    with pytest.raises(WorkError, match=r"has 2 inputs \(left, right\); it must have one tensor"):
        extract(tmp_path, ["output"], ROWS)

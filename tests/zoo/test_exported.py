"""Programs of torch.export: layers, fixed batches, modes; and files that would run code."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_data import dataset, extracted
from torch import Tensor, nn
from torch.export import Dim, export

from td_ray.errors import InputError, WorkError
from td_ray.extraction import extract_features
from td_ray.features import Pass
from td_ray.files import sha256
from td_ray.spec import Resources
from td_ray.zoo.checkpoints import Checkpoints
from td_ray.zoo.exported_programs import ExportedPrograms

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 255, (5, 9, 8, 3), dtype=np.uint8)
ROWS = RANDOM.normal(size=(7, 4)).astype(np.float32)
FREE = Dim("n", min=1)


class Small(nn.Module):
    """Convolution, normalization, dropout; a change in place, a constant, a block, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.norm.running_mean = torch.randn(4)
        self.head, self.shift = nn.Linear(4, 2), torch.ones(2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = torch.relu_(self.norm(self.conv(images)))
        left, right = maps.chunk(2, 1)
        with torch.no_grad():
            left = left * 2
        hidden = torch.cat([left, right], 1).mean((2, 3)).view(images.shape[0], -1)
        hidden = nn.functional.dropout(hidden, 0.5, self.training)
        return self.head(hidden) + self.shift, maps


def save(
    path: Path, network: nn.Module, example: Any, free: Any = FREE, decomposed: bool = False
) -> None:
    shapes = None if free is None else ({0: free},)
    program = export(network, (example,), dynamic_shapes=shapes)
    torch.export.save(program.run_decompositions() if decomposed else program, path)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture
def file(tmp_path: Path, network: nn.Module) -> Path:
    save(tmp_path / "a.pt2", network, torch.randn(2, 3, 9, 8))
    return tmp_path / "a.pt2"


def expanded(folder: Path, **entry: Any) -> ExportedPrograms:
    (model,) = ExportedPrograms(source="exported", path="*.pt2", **entry).expand(
        folder, ["d"], folder
    )
    return model


def extract(folder: Path, layers: list[str], inputs: Any, batch: int = 4, **entry: Any) -> Any:
    data = dataset([str(row) for row in range(len(inputs))], inputs)
    return extracted(expanded(folder, **entry), data, folder, *layers, batch=batch)


def expected(
    network: Any, images: NDArray[Any], mean: float = 0, deviation: float = 1
) -> dict[str, Tensor]:
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        conv = network.conv((scaled - mean) / deviation)
        norm = network.norm(conv)
        maps = norm.relu().mean((2, 3))
        hidden = maps * torch.tensor([2, 2, 1, 1])
        return {
            "conv2d": conv.mean((2, 3)),
            "batch_norm": norm.mean((2, 3)),  # before it is changed in place
            "relu_": maps,
            "penultimate": hidden,
            "output": network.head(hidden) + 1,
        }


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


def test_damaged_and_missing_files(tmp_path: Path, file: Path) -> None:
    whole = file.read_bytes()
    rewrite(file, "models/model.json", lambda content: content[:-100])
    shortened = file.read_bytes()
    for content in (b"no program", whole[: len(whole) // 2], b"", shortened):
        file.write_bytes(content)
        with pytest.raises(WorkError, match=r"a\.pt2 cannot be read as a program of [^\n]*$"):
            extract(tmp_path, ["output"], IMAGES)
    model = expanded(tmp_path)
    file.unlink()
    data = dataset(list("abcde"), IMAGES)
    with pytest.raises(InputError, match=r"exported program: no file at .*a\.pt2"):
        model.check(tmp_path, data, ["t"])


def rewrite(file: Path, record: str, change: Callable[[bytes], bytes]) -> None:
    """Change one record of an archive, or add it."""
    with ZipFile(file) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    name = f"{next(iter(records)).partition('/')[0]}/{record}"
    records[name] = change(records.get(name, b""))
    with ZipFile(file, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def rewrite_json(file: Path, record: str, change: Callable[[Any], None]) -> None:
    def changed(content: bytes) -> bytes:
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    rewrite(file, record, changed)


class Touch:
    """Leaves a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def pickled(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Touch(marker), buffer)
    return buffer.getvalue()


def in_samples(file: Path, marker: Path) -> None:
    rewrite(file, "data/sample_inputs/model.pt", lambda _: pickled(marker))


def in_a_weight(file: Path, marker: Path) -> None:
    def change(config: Any) -> None:
        config["config"]["conv.weight"]["use_pickle"] = True

    rewrite_json(file, "data/weights/model_weights_config.json", change)
    rewrite(file, "data/weights/weight_0", lambda _: pickled(marker))


def in_a_constant(file: Path, marker: Path) -> None:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
    rewrite_json(
        file,
        "data/constants/model_constants_config.json",
        lambda config: config["config"].update(evil={**entry, "tensor_meta": None}),
    )
    rewrite(file, "data/constants/opaque_obj_0", lambda _: pickle.dumps(Touch(marker)))


def in_a_size(file: Path, marker: Path) -> None:
    def change(content: Any) -> None:
        sizes = content["graph_module"]["graph"]["tensor_values"]["images"]["sizes"]
        text = f"__import__('pathlib').Path('{marker}').touch() or Symbol('s0', integer=True)"
        sizes[0]["as_expr"]["expr_str"] = text

    rewrite_json(file, "models/model.json", change)


RUN_CODE = [in_samples, in_a_weight, in_a_constant, in_a_size]


@pytest.mark.parametrize("hide", RUN_CODE)
@pytest.mark.filterwarnings("ignore")
def test_torch_itself_runs_what_a_file_says(tmp_path: Path, file: Path, hide: Any) -> None:
    """What the next test holds against: where this fails, torch has become safe."""
    hide(file, tmp_path / "marker")
    with suppress(Exception):  # after the code has run
        torch.export.load(file)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("hide", RUN_CODE)
def test_no_code_runs(tmp_path: Path, network: nn.Module, file: Path, hide: Any) -> None:
    hide(file, tmp_path / "marker")
    if hide is in_samples:  # they are not needed
        found = extract(tmp_path, ["output"], IMAGES)["output"]
        np.testing.assert_allclose(found, expected(network, IMAGES)["output"], atol=1e-5)
    else:
        with pytest.raises(WorkError, match=r"a\.pt2 (holds '.*' pickled|takes inputs with an ax)"):
            extract(tmp_path, ["output"], IMAGES)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("torch.hub.load", {"repo_or_dir": "x", "model": "y"}),
        ("torch.ops.aten.from_file.default", {"filename": "MARKER", "shared": True, "size": 8}),
        ("torch.ops.aten.save.default", {"item": 1, "filename": "MARKER"}),
        ("torch.ops.load_library", {"path": "MARKER"}),
        ("torch.ops.aten.__class__.mro", {}),
        ("_operator.methodcaller", {}),
        ("#something", {}),
    ],
)
def test_only_operators_of_torch_run(
    tmp_path: Path, file: Path, target: str, arguments: dict[str, Any]
) -> None:
    def change(content: Any) -> None:
        kinds = {str: "as_string", bool: "as_bool", int: "as_int"}
        inputs = [
            {
                "name": name,
                "arg": {
                    kinds[type(value)]: value if value != "MARKER" else str(tmp_path / "marker")
                },
                "kind": 1,
            }
            for name, value in arguments.items()
        ]
        node = {"target": target, "inputs": inputs, "outputs": [{"as_none": True}]}
        content["graph_module"]["graph"]["nodes"].insert(0, node)

    rewrite_json(file, "models/model.json", change)
    with pytest.raises(WorkError, match=r"^model 'a' calls '.*', which is not run: only torch's"):
        extract(tmp_path, ["output"], IMAGES)
    assert not (tmp_path / "marker").exists()


def test_compiled_and_old_files_are_refused(tmp_path: Path, file: Path) -> None:
    whole = file.read_bytes()
    rewrite(file, "data/aotinductor/model/x.so", lambda _: b"code")
    with pytest.raises(WorkError, match="holds compiled code, which is not run"):
        extract(tmp_path, ["output"], IMAGES)
    file.write_bytes(whole)
    rewrite(file, "data/weights/model.pt", lambda _: b"pickle")
    with pytest.raises(WorkError, match="holds pickled weights, as an older torch wrote them"):
        extract(tmp_path, ["output"], IMAGES)
    file.write_bytes(whole)
    rewrite_json(
        file, "models/model.json", lambda content: content["schema_version"].update(major=9)
    )
    with pytest.raises(WorkError, match=r"version 9 of torch\.export's schema, and 8 can be read"):
        extract(tmp_path, ["output"], IMAGES)

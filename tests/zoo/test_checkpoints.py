"""Checkpoints and their factories: what is loaded, what is never run, what is one thing."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import save_file
from small_data import dataset, extracted
from torch import nn

from td_ray.errors import InputError, WorkError
from td_ray.files import sha256
from td_ray.zoo.checkpoints import Checkpoints
from td_ray.zoo.factories import find_factory

IDS = list("abcdef")
INPUTS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
DATA = dataset(IDS, INPUTS)
FACTORY = """
from torch import nn

def build(width=3, scale=1):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))
"""


def network(width: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(FACTORY)
    torch.save(network().state_dict(), tmp_path / "a.pt")
    return tmp_path


def model(folder: Path, **entry: Any) -> Checkpoints:
    entry = {"source": "checkpoints", "path": "a.*", "factory": "nets:build", **entry}
    (found,) = Checkpoints(**entry).expand(folder, ["d"], folder)
    return found


def features(folder: Path, layer: str = "output", **entry: Any) -> NDArray[np.float32]:
    return extracted(model(folder, **entry), DATA, folder, layer)[layer]


def expected(module: nn.Module) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.asarray(module(torch.from_numpy(INPUTS)))


def test_state_dicts_of_torch_and_safetensors(folder: Path) -> None:
    np.testing.assert_allclose(features(folder), expected(network()), rtol=1e-6)
    hidden = expected(network()[:2])
    np.testing.assert_allclose(features(folder, "penultimate"), hidden, rtol=1e-6)
    (folder / "a.pt").unlink()
    save_file(network().state_dict(), folder / "a.safetensors")
    np.testing.assert_allclose(features(folder), expected(network()), rtol=1e-6)


def test_a_state_dict_inside_a_training_checkpoint(folder: Path) -> None:
    torch.save({"state_dict": network().state_dict(), "epoch": 3}, folder / "a.pt")
    np.testing.assert_allclose(features(folder), expected(network()), rtol=1e-6)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_training_loops_save(folder: Path, key: str, prefix: str) -> None:
    state = {prefix + name: value for name, value in network().state_dict().items()}
    torch.save({key: state, "epoch": 3}, folder / "a.pt")
    np.testing.assert_allclose(features(folder), expected(network()), rtol=1e-6)


def test_a_prefix_by_name(folder: Path) -> None:
    state = {f"encoder.{name}": value for name, value in network().state_dict().items()}
    torch.save({**state, "decoder.weight": torch.zeros(3)}, folder / "a.pt")
    found = features(folder, prefix="encoder.")
    np.testing.assert_allclose(found, expected(network()), rtol=1e-6)
    with pytest.raises(WorkError, match="does not fit its factory"):
        features(folder)
    with pytest.raises(WorkError, match=r"no key that starts with the prefix 'encoder/'.*'encoder"):
        features(folder, prefix="encoder/")

    def identity(**entry: Any) -> Any:
        return model(folder, **entry).identity(folder, "d", "output", sha256)

    assert identity() == identity(prefix="") != identity(prefix="encoder.")


def test_a_module_whose_own_keys_start_with_module(folder: Path) -> None:
    (folder / "nets.py").write_text(
        "from torch import nn\n"
        "class Own(nn.Module):\n"
        "    def __init__(self): super().__init__(); self.module = nn.Linear(4, 2)\n"
        "    def forward(self, x): return self.module(x)\n"
    )
    linear = nn.Linear(4, 2)
    torch.save(nn.ModuleDict({"module": linear}).state_dict(), folder / "a.pt")
    np.testing.assert_allclose(features(folder, factory="nets:Own"), expected(linear), rtol=1e-6)


PREPARING = """
import torch
from torch import nn

class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Linear(4, 2)

    def prepare(self, block):
        return {"inputs": torch.stack([torch.tensor(row[:4]) for row in block]).float()}

    def load_state_dict(self, weights):
        return self.network.load_state_dict(weights)

    def forward(self, inputs):
        return self.network(inputs)
"""


def test_a_module_that_prepares_its_inputs(folder: Path) -> None:
    (folder / "nets.py").write_text(PREPARING)
    linear = nn.Linear(4, 2)
    torch.save(linear.state_dict(), folder / "a.pt")
    longer: Any = [np.append(row, np.zeros(number)) for number, row in enumerate(INPUTS)]
    encoder = model(folder, factory="nets:Encoder")
    found = extracted(encoder, dataset(IDS, longer), folder, "output")["output"]
    np.testing.assert_allclose(found, expected(linear), rtol=1e-6)


def test_arguments_reach_the_factory(folder: Path) -> None:
    torch.save(network(5).state_dict(), folder / "a.pt")
    assert features(folder, "penultimate", arguments={"width": 5}).shape == (6, 5)
    with pytest.raises(ValidationError, match="nan"):
        model(folder, arguments={"width": float("nan")})
    with pytest.raises(ValidationError, match="arguments"):
        model(folder, arguments={"width": object()})


def test_an_installed_factory(folder: Path) -> None:
    torch.save(nn.Linear(4, 2).state_dict(), folder / "a.pt")
    arguments = {"in_features": 4, "out_features": 2}
    entry = {"factory": "torch.nn:Linear", "arguments": arguments}
    model(folder, **entry).check(folder, DATA, "output")
    assert features(folder, **entry).shape == (6, 2)
    assert model(folder, **entry).identity(folder, "d", "output", sha256)


def test_a_state_dict_of_another_network(folder: Path) -> None:
    torch.save(network(7).state_dict(), folder / "a.pt")
    with pytest.raises(WorkError, match=r"a\.pt does not fit its factory 'nets:build': [^\n]*size"):
        features(folder)
    torch.save({f"layer{n}.{'x' * 50}": torch.zeros(1) for n in range(500)}, folder / "a.pt")
    with pytest.raises(WorkError, match="does not fit") as caught:
        features(folder)
    assert len(str(caught.value)) < 700


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("by_torch", [True, False])
def test_code_in_a_checkpoint_is_not_run(folder: Path, by_torch: bool) -> None:
    target = folder / "owned"
    state = {**network().state_dict(), "extra": Malicious(target)}
    if by_torch:
        torch.save(state, folder / "a.pt")
    else:
        (folder / "a.pt").write_bytes(pickle.dumps(state))
    with pytest.raises(WorkError, match=r"a\.pt is not a plain state dict: [^\n]*$"):
        features(folder)
    assert not target.exists()
    pickle.loads(pickle.dumps(Malicious(target)))  # it would have done so
    assert target.exists()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_checkpoints_that_are_cut_short(folder: Path, name: str, share: float) -> None:
    content = (folder / "a.pt").read_bytes()
    if name == "a.safetensors":
        (folder / "a.pt").unlink()
        save_file(network().state_dict(), folder / name)
        content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(WorkError, match=rf"^checkpoint [^\n]*{name} [^\n]*$"):
        features(folder)


@pytest.mark.parametrize("content", [[torch.zeros(1)], torch.zeros(1), {1: torch.zeros(1)}, 3])
def test_checkpoints_of_something_else(folder: Path, content: Any) -> None:
    torch.save(content, folder / "a.pt")
    with pytest.raises(WorkError, match=r"a\.pt (holds a|is no state dict)"):
        features(folder)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("nets", "not of the form"),
        ("nets:", "not of the form"),
        (":build", "not of the form"),
        ("nets:build:x", "not of the form"),
        ("../nets:build", "not of the form"),
        (".nets:build", "not of the form"),
        ("nets:a.b", "not of the form"),
        ("/etc/passwd:x", "not of the form"),
        ("nowhere:build", "no module 'nowhere', neither installed nor as"),
        ("__main__:build", "no module '__main__'"),
        ("nets.deep:build", "no module 'nets.deep'"),
        ("nets:buidl", r"nets\.py has no 'buidl': did you mean 'build'"),
        ("broken:build", r"broken\.py cannot be read: .*line 1"),
    ],
)
def test_planning_finds_factories_that_are_not_there(
    folder: Path, factory: str, words: str
) -> None:
    (folder / "broken.py").write_text("def build(:\n")
    with pytest.raises(InputError, match=words):
        model(folder, factory=factory).check(folder, DATA, "output")


def test_planning_runs_no_code(folder: Path) -> None:
    (folder / "nets.py").write_text(f"raise SystemExit\n{FACTORY}")
    found = model(folder)
    found.check(folder, DATA, "output")
    assert found.identity(folder, "d", "output", sha256)


def test_planning_finds_missing_files_and_inputs(folder: Path) -> None:
    found = model(folder)
    with pytest.raises(InputError, match="labels but no inputs"):
        found.check(folder, dataset(IDS), "output")
    (folder / "a.pt").unlink()
    with pytest.raises(InputError, match="checkpoint: no file at"):
        found.check(folder, DATA, "output")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def build(): raise KeyError('x')", "KeyError: 'x'"),
        ("def build(): raise SystemExit(3)", "SystemExit: 3"),
        ("import nowhere_at_all\ndef build(): pass", "ModuleNotFoundError"),
        ("def build(): return {}", "returned a dict, not an nn.Module"),
        ("def build(): return build", "returned a function"),
        ("def build(width): pass", "TypeError"),
        ("build = 3", "TypeError"),
        ("from os import *", "AttributeError"),
    ],
)
def test_factories_that_fail_cost_their_own_unit(folder: Path, code: str, words: str) -> None:
    (folder / "nets.py").write_text(code)
    model(folder).check(folder, DATA, "output")
    with pytest.raises(WorkError, match=f"^factory 'nets:build' [^\n]*{words}[^\n]*$"):
        features(folder)


def test_identity(folder: Path) -> None:
    def identity(**entry: Any) -> Any:
        return model(folder, **entry).identity(folder, "d", "output", sha256)

    first = identity()
    (folder / "b.pt").write_bytes((folder / "a.pt").read_bytes())
    assert identity(path="b.pt", name="other", metadata={"x": 1}) == first
    assert identity(arguments={"width": 3}) != first
    (folder / "nets.py").write_text(FACTORY + "\ndef other(): pass\n")
    changed = identity()
    assert changed != first
    assert identity(factory="nets:other") != changed
    torch.save(network().state_dict() | {"x": torch.zeros(1)}, folder / "a.pt")
    assert identity() != changed
    assert model(folder).identity(folder, "d", "output", lambda path: None) is None


def write_package(folder: Path, constant: int) -> None:
    """A factory whose network multiplies by ``constant``, which a neighbour of a neighbour has."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package").mkdir()
    (folder / "package/__init__.py").write_text("")
    (folder / "package/nets.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from torch import nn\n"
        "from .blocks import Times\n"
        "if TYPE_CHECKING:\n    from unrelated import Type\n"
        "def build():\n"
        "    from helpers import checked\n"
        "    return checked(nn.Sequential(Times(), nn.Identity()))\n"
    )
    (folder / "package/blocks.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from torch import nn\nimport constants\n"
        "@dataclass\nclass Options:\n    x: int = 1\n"
        "class Times(nn.Module):\n"
        "    def forward(self, x): return x * constants.CONSTANT\n"
    )
    (folder / "constants.py").write_text(f"CONSTANT = {constant}\n")
    (folder / "helpers.py").write_text("def checked(net): return net\n")
    torch.save({}, folder / "a.pt")


def test_two_experiments_do_not_mix_their_modules(tmp_path: Path) -> None:
    before, path = set(sys.modules), list(sys.path)
    for constant in (2, 3):
        write_package(tmp_path / str(constant), constant)
    for constant in (2, 3, 2):
        found = features(tmp_path / str(constant), factory="package.nets:build")
        np.testing.assert_allclose(found, INPUTS * constant, rtol=1e-6)
    left = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not left & {"package", "constants", "helpers"}
    assert sys.path == path


def test_a_relative_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert features(Path()).shape == (6, 2)
    assert "nets" not in sys.modules


def test_a_folders_module_wins_over_others_of_its_name_only_for_its_factory(folder: Path) -> None:
    import yaml

    (folder / "yaml.py").write_text("WIDTH = 3\n")
    (folder / "nets.py").write_text(f"import yaml\n{FACTORY.replace('3', 'yaml.WIDTH')}")
    assert features(folder).shape == (6, 2)
    assert sys.modules["yaml"] is yaml
    assert sys.modules["yaml.nodes"] is yaml.nodes


def test_modules_that_the_process_has_from_there_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "kept_module.py").write_text("from nets import build\n")
    monkeypatch.syspath_prepend(str(folder))
    import kept_module  # type: ignore[import-not-found]

    try:
        features(folder, factory="kept_module:build")
        assert sys.modules["kept_module"] is kept_module
    finally:
        del sys.modules["kept_module"], sys.modules["nets"]


def test_identity_follows_the_neighbours_that_a_factory_imports(tmp_path: Path) -> None:
    write_package(tmp_path, 2)
    (tmp_path / "unrelated.py").write_text("")

    def identity() -> str:
        return find_factory("package.nets:build", tmp_path).code_identity()

    seen = {identity()}
    for name in ("constants.py", "helpers.py", "package/blocks.py", "package/nets.py"):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "\nX = 1\n")
        assert identity() not in seen, name
        seen.add(identity())
    (tmp_path / "unrelated.py").write_text("X = 1")
    assert identity() in seen


def test_identity_of_code_is_not_of_its_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_package(tmp_path / name, 2)
    one, two = (find_factory("package.nets:build", tmp_path / name) for name in ("one", "two"))
    assert one.code_identity() == two.code_identity()


def test_a_changed_factory_is_loaded_again(folder: Path) -> None:
    first = features(folder)
    (folder / "nets.py").write_text(FACTORY.replace("Tanh", "ReLU"))
    assert not np.allclose(features(folder), first)


def test_batch_normalisation_and_dropout_are_in_evaluation_mode(folder: Path) -> None:
    (folder / "nets.py").write_text(
        "from torch import nn\n"
        "def build(): return nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))\n"
    )
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    torch.save(net.state_dict(), folder / "a.pt")
    np.testing.assert_array_equal(features(folder), features(folder))


def test_planning_does_not_import_torch(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from td_ray.files import sha256\n"
        "from td_ray.zoo.checkpoints import Checkpoints\n"
        f"folder = Path({str(folder)!r})\n"
        "entry = Checkpoints(source='checkpoints', path='a.pt', factory='nets:build')\n"
        "(m,) = entry.expand(folder, ['d'], folder)\n"
        "m.identity(folder, 'd', 'output', sha256)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

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
from safetensors.torch import save_file
from small_checkpoints import DATA, FACTORY, IDS, INPUTS, expected, features, model, network
from small_data import dataset, extracted
from torch import nn

from td_ray.errors import InputError, WorkError
from td_ray.files import sha256


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

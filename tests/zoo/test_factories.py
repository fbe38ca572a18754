"""Factories: found without running them, imported from their own folder, known by their code."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_checkpoints import DATA, FACTORY, INPUTS, features, model, network
from torch import nn

from td_ray.errors import InputError, WorkError
from td_ray.files import sha256
from td_ray.zoo.factories import find_factory


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

"""The demo writes into a folder of its own, and trusts no network that other code trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from td_ray.demo import load, missing_networks, write_inputs
from td_ray.errors import InputError


def test_an_experiment_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "experiment.yaml"
    mine.write_text("name: mine\n")
    with pytest.raises(InputError, match="is not the demo's; name another folder"):
        write_inputs(tmp_path)
    assert mine.read_text() == "name: mine\n"
    assert list(tmp_path.iterdir()) == [mine]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "digits.csv").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        write_inputs(tmp_path)
    assert (tmp_path / "digits.csv").read_text() == "mine"


def test_networks_of_another_recipe_are_trained_again(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    everything = missing_networks(tmp_path)
    assert len(everything) == 15
    for _, _, path in everything:
        path.write_bytes(b"weights")
    write_inputs(tmp_path)
    assert missing_networks(tmp_path) == []
    (tmp_path / "zoo/recipe.txt").write_text("another")
    write_inputs(tmp_path)
    assert missing_networks(tmp_path) == everything


def test_the_experiment_is_valid(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    assert [task.name for task in load(tmp_path).tasks] == ["digit", "loops", "slant"]

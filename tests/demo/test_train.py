"""The demo's zoo: its data, and training that gives the same bytes again."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from td_ray.demo.digits import (
    PRETRAINING_EXAMPLES,
    DigitsTable,
    digits_table,
    pretraining_set,
    slant,
)
from td_ray.demo.networks import small_convnet
from td_ray.demo.strategies import STRATEGIES
from td_ray.demo.train import _moved, train


@pytest.fixture(scope="module")
def table() -> DigitsTable:
    return digits_table()


def state_hash(strategy: str, seed: int) -> str:
    """SHA-256 of the weights' bytes, trained on 120 images to be quick."""
    images, labels = pretraining_set(digits_table())
    state = train(strategy, seed, images[:120], labels[:120])
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def test_training_is_bitwise_equal_in_two_processes() -> None:
    # The other process starts with other threads and another global random state.
    script = f"""
import runpy, torch
torch.manual_seed(7)
torch.set_num_threads(2)
state_hash = runpy.run_path({__file__!r})["state_hash"]
for strategy in ("augmentation", "label_noise"):
    print(state_hash(strategy, 1))
"""
    there = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    here = [state_hash(strategy, 1) for strategy in ("augmentation", "label_noise")]
    assert here == there
    assert state_hash("augmentation", 2) != here[0]


def test_training_leaves_torch_as_it_was(table: DigitsTable) -> None:
    images, labels = pretraining_set(table)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train("plain", 0, images[:50], labels[:50])
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("width", [1, 64])
def test_the_last_layer_reads_width_features(width: int) -> None:
    network = small_convnet(width)
    assert isinstance(network, torch.nn.Sequential)
    images = torch.rand(5, 8, 8)
    assert network[:-1](images).shape == (5, width)
    assert network(images).shape == (5, 10)


def test_the_factory_accepts_a_trained_state_and_it_has_learned(table: DigitsTable) -> None:
    network = small_convnet()
    network.load_state_dict(train("mixup", 0, *pretraining_set(table)), strict=True)
    test = table.split == "test"
    with torch.no_grad():
        predicted = network(torch.from_numpy(table.images[test])).argmax(1).numpy()
    assert (predicted == table.label[test]).mean() > 0.9


def test_strategies_are_named_by_their_key_and_one_hurts() -> None:
    assert len(STRATEGIES) >= 4
    assert all(key == strategy.name for key, strategy in STRATEGIES.items())
    hurting = [s.name for s in STRATEGIES.values() if s.description.startswith("Hurts")]
    helping = [s.name for s in STRATEGIES.values() if s.description.startswith("Helps")]
    assert hurting == ["label_noise"]
    assert len(helping) >= 2


def test_the_table_is_complete_and_its_split_stratified(table: DigitsTable) -> None:
    assert table.ids == [str(i) for i in range(1797)]
    assert table.images.shape == (1797, 8, 8)
    assert table.images.dtype == np.float32
    assert table.images.min() == 0
    assert table.images.max() == 1
    assert np.isfinite(table.slant).all()
    assert set(table.split) == {"train", "test"}  # one word per image: the parts are disjoint
    parts = [np.bincount(table.label[table.split == part]) for part in ("train", "test")]
    assert np.abs(parts[0] - parts[1]).max() <= 1
    again = digits_table()
    assert (again.split == table.split).all()


def test_pretraining_reads_only_the_training_split(table: DigitsTable) -> None:
    images, labels = pretraining_set(table)
    assert len(images) == len(labels) == PRETRAINING_EXAMPLES
    assert np.ptp(np.bincount(labels)) <= 2
    test = {image.tobytes() for image in table.images[table.split == "test"]}
    assert not any(image.tobytes() in test for image in images)


def test_slant_matches_the_moment_formula_on_a_line() -> None:
    image = np.zeros((8, 8))
    line = [(6, 1), (5, 2), (4, 2), (3, 4), (2, 5)]  # (row, column), leaning to the right
    for row, column in line:
        image[row, column] = 0.5
    height = np.array([-row for row, _ in line], dtype=float)
    across = np.array([column for _, column in line], dtype=float)
    mu11 = ((height - height.mean()) * (across - across.mean())).sum()
    mu02 = ((height - height.mean()) ** 2).sum()
    assert slant(image[None])[0] == pytest.approx(mu11 / mu02)
    assert slant(np.eye(8)[None])[0] == pytest.approx(-1)  # the main diagonal leans to the left


def test_slant_ignores_the_scale_of_the_intensity(table: DigitsTable) -> None:
    np.testing.assert_allclose(slant(table.images * 16), slant(table.images), atol=1e-12)


def test_a_moved_image_stays_an_image(table: DigitsTable) -> None:
    images = torch.from_numpy(table.images[:20])
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(_moved(images, 0.0, 0.0, generator), images, atol=1e-5, rtol=0)
    moved = _moved(images, 10.0, 1.0, generator)
    assert moved.shape == images.shape
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-5

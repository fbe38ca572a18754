"""Outputs of each room on fixed inputs. When one moves, raise its number in td_ray/versions.py.

Values agree to four digits, so that other processors and library versions pass; a change that
shows here changes results that people have on disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from td_ray import versions


def points() -> tuple[Any, Any]:
    """90 samples in 5 dimensions with 3 classes, without random numbers."""
    grid = np.arange(90 * 5).reshape(90, 5)
    features = np.sin(grid * 0.37) + np.cos(grid**2 * 0.11)
    label = (features[:, 0] + 0.5 * np.sin(np.arange(90)) > 0).astype(int) + np.arange(90) % 2
    return features, label


def splits() -> list[Any]:
    from td_ray.tasks import halves, validation_part
    from td_ray.tasks.splits import queue

    ids = np.array([f"s{number}" for number in range(90)])
    strata = np.arange(90) % 3
    both = halves(ids, strata, "digest", 3)
    return [*both, validation_part(ids, strata, "digest"), np.argsort(queue(ids))]


def targets() -> list[Any]:
    from small_data import dataset

    from td_ray.tasks.drawn import GaussianTarget, SignTarget
    from td_ray.tasks.teachers import Teachers

    data = dataset([f"s{number}" for number in range(90)], points()[0])
    kinds = (GaussianTarget, SignTarget)
    drawn = [kind(7, number).values(data) for kind in kinds for number in (0, 9, 700)]
    taught = [Teachers("t", data, {"d": data}, 7, 2, classes).values["d"] for classes in (0, 2, 3)]
    return [*drawn, *taught]


def heads() -> list[Any]:
    import torch

    from td_ray.head_kinds.seeds import head_seed
    from td_ray.heads import ClassTarget, Training, ValueTarget, fit_heads
    from td_ray.heads.scaling import fit_scaling
    from td_ray.registry import HEAD_KINDS

    features, label = points()
    raw = torch.from_numpy(features)
    weights = torch.ones(2, 90, dtype=torch.float64)
    weights[1, ::3] = 0
    found = []
    for kind in ("column", "global", "none", "whiten"):
        scaled = fit_scaling(raw, kind).apply(raw)
        logistic = fit_heads(
            "logistic", scaled, ClassTarget(torch.from_numpy(label), 3), weights, 1e-2
        )
        ridge = fit_heads("ridge", scaled, ValueTarget(raw[:, 1] ** 2), weights, 1e-2)
        found += [head.scores(scaled).numpy() for head in (logistic, ridge)]
    codes = ClassTarget(torch.from_numpy(label), 3)
    seeds = (head_seed(None, None), head_seed(0, "a"))
    validation = torch.arange(90) % 5 == 0
    training = Training(scaled.float(), codes, weights, seeds, validation, 2**28)
    for kind in ("linear", "mlp"):
        head = HEAD_KINDS.get(kind).model_validate({"kind": kind, "epochs": 3, "batch_size": 16})
        found.append(head.fit(training).scores(scaled.float()).numpy())
    return found


def measures() -> list[Any]:
    from td_ray.measures import disagreement, value_distance

    features, label = points()
    codes = np.stack([label, np.roll(label, 1), np.roll(label, 2)]).astype(np.uint8)
    found = [disagreement(codes, codes)]
    for distance in ("cosine", "mean", "none"):
        found.append(value_distance(features.T, features.T, distance))
    return found + companions(codes, label) + of_features(features)


def of_features(features: Any) -> list[Any]:
    from td_ray import pairwise_measure

    matrices = {
        "whole": features,
        "some": features[:, :3].astype(np.float32),
        "bent": np.tanh(features),
    }
    names = ("cca", "cka", "cka_debiased", "gulp", "knn", "procrustes", "rsa")
    return [pairwise_measure(matrices, name).to_numpy() for name in names]


def companions(codes: Any, label: Any) -> list[Any]:
    """Values and standard errors of the companions, in their names' order."""
    from td_ray.measures import Examples, Outputs, find_measure
    from td_ray.measures.example_blocks import example_blocks
    from td_ray.tasks.splits import keys

    ids = np.array([f"s{number}" for number in range(90)])
    examples = Examples(example_blocks(keys(ids, "blocks"), label, 9), label, 3)
    grid = np.arange(3 * 90 * 3).reshape(3, 90, 3)
    probabilities = np.square(np.sin(grid * 0.7)) + 0.1
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    outputs = Outputs(codes, examples, probabilities.astype(np.float32))
    names = [
        *("backward_compatibility", "both_wrong_different", "cohen_kappa", "ensemble_gain"),
        *("error_consistency", "js_divergence", "negative_flip_rate", "oracle_accuracy"),
        *("positive_flip_rate", "td", "td_lower_bound", "td_macro", "td_upper_bound"),
    ]
    forms = [find_measure(name).form("classification") for name in names]
    return [each for form in forms for each in form.with_errors(outputs[:2], outputs[1:])]


def features() -> list[Any]:
    import torch

    from td_ray.extraction.networks import run_network
    from td_ray.zoo.torch_network import TorchNetwork

    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 4)
    )
    with torch.no_grad():
        for number, weight in enumerate(network.parameters()):
            weight.copy_(torch.sin(torch.arange(weight.numel()) + number).reshape(weight.shape))
    images = points()[0][:80].reshape(25, 1, 4, 4).astype(np.float32)
    found = []
    for layer in ("output", "penultimate", "0"):
        hooked = TorchNetwork(
            network, [layer], prepare=torch.from_numpy, device="cpu", who="golden"
        )
        blocks = run_network(hooked, images, 7, "golden")
        found.append(np.concatenate([block[layer] for block in blocks]))
    return found


ROOMS: dict[str, Callable[[], list[Any]]] = {
    "FEATURES": features,
    "SPLITS": splits,
    "TARGETS": targets,
    "HEADS": heads,
    "MEASURES": measures,
}
GOLDEN = Path(__file__).with_name("golden.json")


@pytest.mark.parametrize("room", list(ROOMS))
def test_outputs_move_only_with_their_number(room: str) -> None:
    golden = json.loads(GOLDEN.read_text())[room]
    assert getattr(versions, room) == golden["version"]
    for found, expected in zip(summaries(ROOMS[room]), golden["values"], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def summaries(compute: Callable[[], list[Any]]) -> list[list[float]]:
    """The first values of each array, and its mean and spread."""
    flat = [np.asarray(array, dtype=np.float64).ravel() for array in compute()]
    return [
        [round(float(x), 6) for x in (*array[:30], array.mean(), array.std())] for array in flat
    ]


def write() -> None:
    """Take the present outputs as golden: ``python tests/test_golden.py``."""
    golden = {
        room: {"version": getattr(versions, room), "values": summaries(compute)}
        for room, compute in ROOMS.items()
    }
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    write()

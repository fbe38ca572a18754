"""Features of a trial: in memory where they fit, read from their map where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_zoo import SAMPLES, content, experiment, planned

from td_ray.heads import ScaledRows
from td_ray.plan import HeadUnit
from td_ray.spec import Experiment
from td_ray.sweep import run
from td_ray.work.scaled_features import ScaledFeatures

WIDTH = 6
TRAINING_BYTES = SAMPLES * 3 // 5 * WIDTH * 4
SCALINGS = ["column", "global", "none", "whiten"]


def with_memory(zoo: Path, memory: int, **changes: Any) -> Experiment:
    return experiment(zoo, resources={"memory": memory, "device": "cpu"}, **changes)


def opened(zoo: Path, memory: int) -> tuple[ScaledFeatures, list[HeadUnit]]:
    """Loaded features of the first model, and its units: one for each scaling."""
    heads = [{"name": kind, "kind": "ridge", "scaling": kind} for kind in SCALINGS]
    wanted = with_memory(zoo, memory, heads=heads, tasks=content()["tasks"][1:])
    array = np.load(zoo / "features/net-0.npz")["features"]
    features = ScaledFeatures(lambda key, data: array, wanted)
    units = list(planned(wanted).units[: len(SCALINGS)])
    for unit in units:
        features.load(unit)
    return features, units


def whole(rows: torch.Tensor | ScaledRows) -> torch.Tensor:
    return rows if isinstance(rows, torch.Tensor) else rows.materialise()


def test_training_features_are_kept_only_within_half_of_the_memory(zoo: Path) -> None:
    large, units = opened(zoo, 2 * TRAINING_BYTES)
    small, _ = opened(zoo, 2 * TRAINING_BYTES - 2)
    for unit in units:
        kept, streamed = large.training(unit), small.training(unit)
        assert isinstance(kept, torch.Tensor)
        assert isinstance(streamed, ScaledRows)
        assert kept.dtype == streamed.dtype == torch.float32
        assert torch.equal(kept, whole(streamed))
        assert large.training(unit) is kept
        assert large.memory_left() == TRAINING_BYTES  # the last scaling gave way to this one
        assert small.memory_left() == 2 * TRAINING_BYTES - 2
        assert torch.equal(
            whole(large.evaluation(unit, "points")), whole(small.evaluation(unit, "points"))
        )
    assert large.training(units[0]) is not large.training(units[1])


def test_several_scalings_are_kept_where_there_is_room(zoo: Path) -> None:
    features, units = opened(zoo, 2 * len(SCALINGS) * TRAINING_BYTES)
    kept = [features.training(unit) for unit in units]
    assert all(features.training(unit) is one for unit, one in zip(units, kept, strict=True))
    assert features.memory_left() == len(SCALINGS) * TRAINING_BYTES


@pytest.mark.parametrize("kind", ["logistic", "ridge", "linear", "mlp"])
def test_memory_changes_no_result(zoo: Path, kind: str) -> None:
    stochastic = kind in ("linear", "mlp")
    head = {"kind": kind, "targets": ["classification"]}
    head |= {"epochs": 3, "learning_rate": [1e-2, 1e-1]} if stochastic else {"l2": [1e-3, 1e-1]}
    tasks = content()["tasks"][:1]
    plenty = run(experiment(zoo, heads=[head], tasks=tasks), backend="inline")
    little = with_memory(zoo, 1000, heads=[head], tasks=tasks, output="little")
    found = run(little, backend="inline")
    way = ["iterations", "gradient_norm"]  # where an exact head stops below the bound
    few, many = (results.heads().drop(columns=way) for results in (found, plenty))
    pd.testing.assert_frame_equal(few, many, rtol=1e-4, atol=1e-6)
    pd.testing.assert_frame_equal(found.predictions(), plenty.predictions())
    pd.testing.assert_frame_equal(found.pairs(), plenty.pairs())

"""The same head, whatever else changes: stacks, chunks, memory, streaming, precision."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from logistic_problems import assert_optimal, penalties, problem
from wide_features import bytes_of_fit, write_features

from td_ray.heads.curvature import principal_axes
from td_ray.heads.logistic import LogisticHeads, fit_logistic
from td_ray.heads.rows import ScaledRows
from td_ray.heads.scaling import fit_scaling


def test_chunks_of_little_memory_give_the_same_heads() -> None:
    features, codes, weights = problem(60, 5, 3, 5)
    whole = fit_logistic(features, codes, weights, penalties(5, 1e-3), 3)
    chunked = fit_logistic(features, codes, weights, penalties(5, 1e-3), 3, memory_bytes=1)
    torch.testing.assert_close(whole.weight, chunked.weight, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(whole.loss, chunked.loss, atol=1e-7, rtol=0)


def near_tie(scores: torch.Tensor) -> torch.Tensor:
    """(K, n): how far the best class is ahead of the second, in log odds."""
    best = scores.topk(2, dim=2).values
    return best[:, :, 0] - best[:, :, 1]


@pytest.mark.parametrize("l2", [1e-3, 1e-5])
def test_whatever_else_changes_only_near_ties_may_change(l2: float) -> None:
    """Stacks, chunks, threads and precision of the features move no log odds by more than 0.02."""
    features, codes, weights = problem(600, 30, 5, 6)
    held_out = problem(2000, 30, 5, seed=1)[0]

    def scores(heads: LogisticHeads) -> torch.Tensor:
        return (heads.weight @ held_out.T + heads.intercept[:, :, None]).mT

    whole = scores(fit_logistic(features, codes, weights, penalties(6, l2), 5))
    alone = [
        fit_logistic(features, codes, weights[k : k + 1], penalties(1, l2), 5) for k in range(6)
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(threads, 2))
    threaded = fit_logistic(features, codes, weights, penalties(6, l2), 5)
    torch.set_num_threads(threads)
    others = {
        "alone": torch.cat([scores(head) for head in alone]),
        "chunks": scores(
            fit_logistic(features, codes, weights, penalties(6, l2), 5, memory_bytes=1)
        ),
        "threads": scores(threaded),
        "float32": scores(
            fit_logistic(features.to(torch.float32), codes, weights, penalties(6, l2), 5)
        ),
    }
    for name, other in others.items():
        assert (other - whole).abs().max() < 0.02, name
        same = other.argmax(2) == whole.argmax(2)
        assert same[near_tie(whole) > 0.04].all(), name
        assert same.double().mean() > 0.999, name


@pytest.mark.parametrize(("n", "d"), [(90, 7), (40, 60)])
@pytest.mark.parametrize("kind", ["column", "whiten"])
def test_streamed_features_give_the_same_bytes(tmp_path: Path, n: int, d: int, kind: str) -> None:
    matrix, codes, weights = problem(2 * n, d, 3, 2)
    np.save(tmp_path / "features.npy", matrix.numpy().astype(np.float32))
    mapped = torch.from_numpy(np.load(tmp_path / "features.npy", mmap_mode="c"))
    used = torch.arange(1, 2 * n, 2)
    scaling = fit_scaling(mapped[used], kind)
    rest = codes[used], weights[:, used], penalties(2, 1e-4), 3
    streamed = fit_logistic(ScaledRows(mapped, used, scaling), *rest)
    whole = fit_logistic(scaling.apply(mapped[used]), *rest)
    assert torch.equal(streamed.weight, whole.weight)
    assert torch.equal(streamed.intercept, whole.intercept)
    assert torch.equal(streamed.loss, whole.loss)


@pytest.mark.parametrize("few", [False, True])
def test_without_room_for_the_axes_the_optimum_is_the_same(few: bool) -> None:
    features, codes, weights = problem(*((30, 50) if few else (200, 20)), 3, 2)
    assert principal_axes(features, torch.float64, 2**30).axes is not None
    assert principal_axes(features, torch.float64, 0).axes is None
    heads = fit_logistic(features, codes, weights, penalties(2, 1e-2), 3, memory_bytes=0)
    assert_optimal(heads, features, codes, weights, 1e-2)
    expected = fit_logistic(features, codes, weights, penalties(2, 1e-2), 3)
    torch.testing.assert_close(heads.loss, expected.loss, atol=1e-8, rtol=0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("n", "d", "heads"), [(60_000, 400, 8), (4000, 6000, 4)])
def test_memory_stays_within_the_bound(tmp_path: Path, n: int, d: int, heads: int) -> None:
    """Peak of a process of its own, that fits heads of 5 classes in 64 MiB."""
    write_features(tmp_path / "features.npy", n, d)
    taken = bytes_of_fit(
        tmp_path / "features.npy",
        warm=f"""
from td_ray.heads.logistic import fit_logistic
codes, weights = torch.arange({n}) % 5, torch.ones({heads}, {n}, dtype=torch.float64)
for shape in (400, 30), (30, 60):
    warm = torch.randn(shape), codes[:shape[0]], weights[:, :shape[0]]
    fit_logistic(*warm, torch.ones({heads}), 5)""",
        given=f"l2 = torch.full(({heads},), 0.1)",
        fit="""
heads = fit_logistic(features, codes, weights, l2, 5, memory_bytes=2**26)
assert heads.converged.all()""",
        result="8 * heads.weight.numel() + 2 * weights.nbytes",
        with_holes=False,
    )
    assert taken < 1.5 * 2**26  # a float32 copy of the features alone is beyond it


def test_the_same_call_gives_the_same_bits() -> None:
    features, codes, weights = problem(200, 12, 5, 4)
    first, second = (
        fit_logistic(features, codes, weights, penalties(4, 1e-4), 5) for _ in range(2)
    )
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.intercept, second.intercept)

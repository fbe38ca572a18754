"""Ridge heads against least squares on the augmented system, and their limits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from wide_features import bytes_of_fit, write_features

from td_ray.errors import InputError
from td_ray.heads.ridge import RidgeHeads, fit_ridge
from td_ray.heads.rows import ScaledRows
from td_ray.heads.scaling import fit_scaling

Array = np.ndarray[Any, Any]


def reference(features: Array, targets: Array, weights: Array, l2: float) -> tuple[Array, Array]:
    """Weight (m, d) and intercept (m,) by one augmented least-squares problem per target."""
    n, d = features.shape
    root = np.sqrt(weights / weights.sum())[:, None]
    data = np.vstack([root * np.column_stack([features, np.ones(n)]), np.eye(d, d + 1) * l2**0.5])
    right = np.vstack([root * targets, np.zeros((d, targets.shape[1]))])
    solution = np.linalg.lstsq(data, right, rcond=None)[0]
    return solution[:d].T, solution[d]


def problem(n: int, d: int, m: int, heads: int, seed: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 2
    return features, rng.standard_normal((n, m)) + 3, rng.random((heads, n))


@settings(derandomize=True, deadline=None, max_examples=30, database=None)
@given(
    n=st.integers(2, 30),
    d=st.integers(1, 30),
    l2=st.sampled_from([1.0, 1e-2, 1e-5]),
    zeros=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_random_problems_agree_with_least_squares(
    n: int, d: int, l2: float, zeros: bool, seed: int
) -> None:
    features, targets, weights = problem(n, d, 2, 2, seed)
    if zeros:
        weights[:, : n // 2] = 0
    penalties = torch.tensor([l2, 10 * l2], dtype=torch.float64)
    heads = fit_ridge(*map(torch.from_numpy, (features, targets, weights)), penalties)
    assert heads.weight.shape == (2, 2, 2, d)
    assert heads.gradient_norm.max() < 1e-9
    for k in range(2):
        for p, penalty in enumerate(penalties.tolist()):
            weight, intercept = reference(features, targets, weights[k], penalty)
            np.testing.assert_allclose(heads.weight[k, p], weight, rtol=1e-5, atol=1e-6)
            predicted = features @ weight.T + intercept
            found = features @ heads.weight[k, p].numpy().T + heads.intercept[k, p].numpy()
            np.testing.assert_allclose(found, predicted, rtol=1e-5, atol=1e-5)
            error = np.square(found - targets).T @ (weights[k] / weights[k].sum())
            loss = error + penalty * np.square(heads.weight[k, p].numpy()).sum(1)
            np.testing.assert_allclose(heads.loss[k, p], loss, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(30, 5), (5, 30)])
def test_no_penalty_gives_the_least_squares_solution_of_smallest_norm(n: int, d: int) -> None:
    features, targets, _ = problem(n, d, 2, 1, 0)
    features = np.column_stack([features, features[:, :2]])  # never of full column rank
    weights = torch.ones(1, n)
    heads = fit_ridge(
        torch.from_numpy(features), torch.from_numpy(targets), weights, torch.zeros(1)
    )
    expected = np.linalg.pinv(features - features.mean(0), rcond=1e-10) @ (
        targets - targets.mean(0)
    )
    np.testing.assert_allclose(heads.weight[0, 0].numpy().T, expected, atol=1e-8)


def fit(
    features: Array,
    targets: Array,
    weights: Array,
    *l2: float,
    memory_bytes: int | None = None,
) -> RidgeHeads:
    arrays = map(torch.from_numpy, (features, targets, weights))
    return fit_ridge(*arrays, torch.tensor(l2, dtype=torch.float64), memory_bytes=memory_bytes)


def same_bytes(one: RidgeHeads, other: RidgeHeads) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in vars(one))


SHAPES = [(60, 7), (7, 60)]  # X'X is the smaller Gram matrix, and XX'
TINY = 1  # bytes of memory: blocks of one row, one head at a time


@settings(derandomize=True, deadline=None, max_examples=30, database=None)
@given(
    n=st.integers(2, 25),
    d=st.integers(1, 25),
    rank=st.integers(1, 25),
    seed=st.integers(0, 10**6),
)
def test_no_penalty_agrees_with_numpys_least_squares_of_any_rank(
    n: int, d: int, rank: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d)) + 1
    targets, weights = rng.standard_normal((n, 3)), rng.random((1, n)) + 0.1
    root = np.sqrt(weights[0] / weights.sum())[:, None]
    means = [np.average(values, 0, weights[0]) for values in (features, targets)]
    rows, columns = root * (features - means[0]), root * (targets - means[1])
    singular = np.linalg.svd(rows, compute_uv=False)
    # Where variances run down to rounding without a gap, rank is a matter of taste.
    assume(not ((singular < 1e-4 * singular[0]) & (singular > 1e-12 * singular[0])).any())
    assume(singular[0] > 1e-4)
    expected = np.linalg.lstsq(rows, columns, rcond=1e-10)[0].T
    heads = fit(features, targets, weights, 0.0)
    np.testing.assert_allclose(heads.weight[0, 0], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        heads.intercept[0, 0], means[1] - expected @ means[0], rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("l2", [0.0, 1e-6, 0.1])
def test_loss_and_gradient_are_those_of_the_rows(n: int, d: int, l2: float) -> None:
    features, targets, weights = problem(n, d, 3, 2, 0)
    heads = fit(features, targets, weights, l2, 1.0)
    for k, share in enumerate(weights / weights.sum(1, keepdims=True)):
        for p, penalty in enumerate((l2, 1.0)):
            weight, intercept = heads.weight[k, p].numpy(), heads.intercept[k, p].numpy()
            residual = features @ weight.T + intercept - targets
            loss = share @ np.square(residual) + penalty * np.square(weight).sum(1)
            np.testing.assert_allclose(heads.loss[k, p], loss, rtol=1e-9, atol=1e-13)
            slope = 2 * ((share[:, None] * residual).T @ features + penalty * weight)
            offset = 2 * share @ residual
            gradient = np.maximum(np.abs(slope).max(1), np.abs(offset))
            assert gradient.max() < 1e-12 * d
            assert heads.gradient_norm[k, p].max() < 1e-12 * d
            assert gradient.max() < 100 * heads.gradient_norm[k, p].max() + 1e-14


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_a_wrong_solution_would_show_in_the_recorded_gradient(
    n: int, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    eigh = torch.linalg.eigh

    def spoiled(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        variance, axes = eigh(gram)
        return variance * (1 + 1e-6), axes

    features, targets, weights = problem(n, d, 3, 1, 0)
    monkeypatch.setattr(torch.linalg, "eigh", spoiled)
    assert (fit(features, targets, weights, 1e-2).gradient_norm > 1e-9).all()


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_narrow_features_lose_nothing_more(n: int, d: int, stored: torch.dtype) -> None:
    features, targets, weights = map(torch.from_numpy, problem(n, d, 2, 2, 0))
    features, penalties = features.to(stored), torch.tensor([0.0, 1e-3])
    narrow = fit_ridge(features, targets, weights, penalties)
    assert narrow.weight.dtype == torch.float64
    assert same_bytes(narrow, fit_ridge(features.double(), targets, weights, penalties))
    features += 0  # neither were they written to
    assert same_bytes(narrow, fit_ridge(features, targets, weights, penalties))


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("memory", [TINY, 100 * 2**10, None])
@pytest.mark.parametrize("kind", ["column", "whiten"])
def test_streamed_features_give_the_same_bytes(
    tmp_path: Path, n: int, d: int, memory: int | None, kind: str
) -> None:
    matrix, targets, weights = problem(2 * n, d, 3, 2, 0)
    np.save(tmp_path / "features.npy", matrix.astype(np.float32))
    mapped = torch.from_numpy(np.load(tmp_path / "features.npy", mmap_mode="c"))
    used = torch.arange(1, 2 * n, 2)
    scaling = fit_scaling(mapped[used], kind)
    rest = torch.from_numpy(targets)[used], torch.from_numpy(weights)[:, used], torch.ones(1)
    streamed = fit_ridge(ScaledRows(mapped, used, scaling), *rest, memory_bytes=memory)
    whole = fit_ridge(scaling.apply(mapped[used]), *rest, memory_bytes=memory)
    assert same_bytes(streamed, whole)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_memory_moves_nothing_but_rounding(n: int, d: int) -> None:
    features, targets, weights = problem(n, d, 3, 2, 0)
    before = features.copy(), targets.copy()
    weights[0, ::3] = 0
    little = fit(features, targets, weights, 1e-3, 1.0, memory_bytes=TINY)
    enough = fit(features, targets, weights, 1e-3, 1.0)
    for name in ("weight", "intercept", "loss"):
        torch.testing.assert_close(
            getattr(little, name), getattr(enough, name), rtol=1e-9, atol=1e-9
        )
    assert max(little.gradient_norm.max(), enough.gradient_norm.max()) < 1e-11
    assert same_bytes(enough, fit(features, targets, weights, 1e-3, 1.0))
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(targets, before[1])


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_rows_without_weight_do_not_matter(n: int, d: int) -> None:
    features, targets, weights = problem(n, d, 2, 2, 0)
    absent = np.arange(n) % 3 == 0
    weights[0, absent] = 0
    heads = fit(features, targets, weights[:1], 0.0, 1e-3)
    moved = fit(
        np.where(absent[:, None], 1e9, features), targets - absent[:, None], weights[:1], 0, 1e-3
    )
    assert same_bytes(heads, moved)
    fewer = fit(features[~absent], targets[~absent], weights[:1, ~absent], 0.0, 1e-3)
    torch.testing.assert_close(heads.weight, fewer.weight, rtol=1e-9, atol=1e-9)
    both = fit(features, targets, weights, 0.0, 1e-3)
    assert torch.equal(both.weight[:1], heads.weight)


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize(("factor", "shift"), [(-3.0, 0.0), (1e-20, 5.0), (1e20, 1e21), (1, 1e6)])
def test_targets_may_be_scaled_and_shifted(n: int, d: int, factor: float, shift: float) -> None:
    features, targets, weights = problem(n, d, 2, 2, 0)
    # The shift costs the digits that the targets themselves lose to it.
    moved = factor * targets + shift
    lost = 1e-14 * max(1.0, abs(shift / factor))
    heads, other = (fit(features, y, weights, 1e-3, 1.0) for y in (targets, moved))
    if lost > 1e-3:
        assert shift == 5.0  # nothing is left of these targets but a constant
        assert (other.weight == 0).all()
        assert (other.intercept == 5).all()
        return
    torch.testing.assert_close(other.weight / factor, heads.weight, rtol=1e-9, atol=1e3 * lost)
    torch.testing.assert_close(
        (other.intercept - shift) / factor, heads.intercept, rtol=1e-9, atol=1e4 * lost
    )


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("factor", [1e-60, 1e-12, 1e12, 1e60])
@pytest.mark.parametrize("l2", [0.0, 1e-4])
def test_features_may_be_huge_or_tiny(n: int, d: int, factor: float, l2: float) -> None:
    features, targets, weights = problem(n, d, 2, 2, 0)
    heads = fit(features, targets, weights, l2)
    other = fit(features * factor, targets, weights, l2 * factor**2)
    torch.testing.assert_close(other.weight * factor, heads.weight, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(other.intercept, heads.intercept, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(other.loss, heads.loss, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_a_penalty_below_rounding_is_none(n: int, d: int) -> None:
    """Null axes must not be divided by it: what is in them is rounding."""
    features, targets, weights = problem(n, d, 2, 1, 0)
    features = 1e8 * np.column_stack([features, features])
    least, tiny = (fit(features, targets, weights, l2).weight for l2 in (0.0, 1e-6))
    torch.testing.assert_close(tiny, least, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_an_offset_of_the_features_moves_the_intercept_alone(n: int, d: int) -> None:
    features, targets, weights = problem(n, d, 2, 2, 0)
    features = np.round(features, 3)
    heads, other = (fit(x, targets, weights, 1e-3) for x in (features, features + 2.0**20))
    torch.testing.assert_close(other.weight, heads.weight, rtol=1e-5, atol=1e-7)
    expected = heads.intercept - 2.0**20 * other.weight.sum(3)
    torch.testing.assert_close(other.intercept, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_duplicated_columns_share_the_weight_and_constant_ones_have_none(n: int, d: int) -> None:
    features, targets, weights = problem(n, d, 2, 2, 0)
    constants = np.full((n, 2), [0.1, 1e5 / 3])
    alone = fit(features, targets, weights, 0.0, 1e-3)
    # With two copies a weight v costs 2 (v / 2)^2, half as much: at twice the penalty all is alike.
    padded = np.column_stack([features, constants, features])
    heads = fit(padded, targets, weights, 0.0, 2e-3)
    first, constant, second = heads.weight.split([d, 2, d], 3)
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(first + second, alone.weight, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(heads.loss, alone.loss, rtol=1e-6, atol=1e-12)
    assert (constant.abs() < 1e-9).all()


def test_constant_features_of_any_value_get_no_weight() -> None:
    rng = np.random.default_rng(0)
    for rows in range(2, 30):  # of these, some have a weighted mean that is off by rounding
        constants = np.full((rows, 3), [0.1, 0.7, 1e5 / 3])
        targets, weights = rng.standard_normal((rows, 2)), rng.random((2, rows))
        heads = fit(constants, targets, weights, 0.0, 1e-9)
        assert (heads.weight == 0).all()
        means = weights @ targets / weights.sum(1, keepdims=True)
        np.testing.assert_allclose(heads.intercept[:, 0], means, atol=1e-12)


def test_a_perfect_fit_has_no_negative_loss() -> None:
    features, targets, weights = problem(50, 6, 40, 3, 0)
    targets = features @ np.random.default_rng(1).standard_normal((6, 40)) * 100
    heads = fit(features, targets, weights, 0.0)
    assert (heads.loss >= 0).all()
    assert heads.loss.max() < 1e-13 * np.var(targets, 0).min()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("n", "d"), [(60_000, 400), (600, 40_000)])
def test_memory_stays_within_the_bound(tmp_path: Path, n: int, d: int) -> None:
    """Peak of a process of its own, that fits 2 weights, 3 penalties and 40 targets in 64 MiB."""
    write_features(tmp_path / "features.npy", n, d)
    taken = bytes_of_fit(
        tmp_path / "features.npy",
        warm="""
from td_ray.heads.ridge import fit_ridge
warm = torch.randn(400, 300), torch.randn(400, 3), torch.ones(1, 400), torch.ones(2)
fit_ridge(*warm)
fit_ridge(warm[0].T.contiguous(), warm[1][:300], warm[2][:, :300], warm[3])""",
        given=f"""
targets, weights = torch.randn({n}, 40), torch.ones(2, {n})
l2 = torch.tensor([0.1, 1.0, 10.0])""",
        fit="heads = fit_ridge(features, targets, weights, l2, memory_bytes=2**26)",
        result="8 * heads.weight.numel()",
        with_holes=True,
    )
    assert taken < 1.5 * 2**26  # a float32 copy of the features alone is beyond it


@pytest.mark.parametrize("l2", [0.0, 1e-3])
def test_a_constant_target_is_predicted_exactly(l2: float) -> None:
    features, _, weights = problem(40, 6, 1, 3, 0)
    constants = torch.tensor([0.1, 0.7, 1e5 / 3, -123.456], dtype=torch.float64)
    targets = constants.repeat(40, 1)
    heads = fit_ridge(
        torch.from_numpy(features), targets, torch.from_numpy(weights), torch.tensor([l2])
    )
    assert (heads.weight == 0).all()
    assert (heads.intercept == constants).all()


def test_constant_features_predict_the_weighted_mean() -> None:
    heads = fit_ridge(
        torch.ones(3, 2),
        torch.tensor([[1.0], [2], [6]]),
        torch.tensor([[1.0, 1, 2]]),
        torch.zeros(1),
    )
    assert (heads.weight == 0).all()
    assert float(heads.intercept) == pytest.approx(3.75)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": torch.ones(4)}, "features must be"),
        ({"features": torch.full((4, 2), torch.nan)}, "features contain"),
        ({"targets": torch.ones(4)}, "targets must be"),
        ({"targets": torch.ones(4, 1, dtype=torch.int64)}, "targets must be"),
        ({"targets": torch.full((4, 1), torch.inf)}, "targets contain"),
        ({"targets": torch.ones(3, 1)}, "3 rows"),
        ({"weights": torch.ones(1, 3)}, "weights must be"),
        ({"weights": torch.zeros(1, 4)}, "positive"),
        ({"l2": torch.tensor([-1.0])}, ">= 0"),
        ({"l2": torch.tensor(1.0)}, "non-empty vector"),
    ],
)
def test_bad_input(change: dict[str, torch.Tensor], words: str) -> None:
    arguments = {
        "features": torch.rand(4, 2),
        "targets": torch.rand(4, 1),
        "weights": torch.ones(1, 4),
        "l2": torch.ones(1),
    }
    with pytest.raises(InputError, match=words):
        fit_ridge(**(arguments | change))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("n", "d"), [(300, 20), (20, 300)])
def test_cuda_agrees_with_cpu(n: int, d: int) -> None:
    arrays = [torch.from_numpy(array) for array in problem(n, d, 3, 4, 0)]
    l2 = torch.tensor([1e-3, 1.0], dtype=torch.float64)
    here = fit_ridge(*arrays, l2)
    there = fit_ridge(*(array.cuda() for array in arrays), l2.cuda())
    assert there.weight.is_cuda
    torch.testing.assert_close(there.weight.cpu(), here.weight, atol=1e-7, rtol=1e-7)

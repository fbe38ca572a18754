"""Standard errors: the jackknife by its definition, the binomial one, and coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made_up_heads import DEFINITIONS, by_definition, examples_of, made_up

from td_ray.measures import Examples, Outputs, find_measure, one_block
from td_ray.measures.example_blocks import example_blocks
from td_ray.tasks.splits import keys

Array = np.ndarray[Any, Any]


def jackknife(value: Array, without: list[Array], sizes: Array) -> Array:
    """Busing, Meijer and van der Leeden's delete-m jackknife, as they write it."""
    n, count = sizes.sum(), len(sizes)
    estimate = count * value - sum((1 - m / n) * w for m, w in zip(sizes, without, strict=True))
    terms = [
        np.square(n / m * value - (n / m - 1) * w - estimate) / (n / m - 1)
        for m, w in zip(sizes, without, strict=True)
    ]
    return np.sqrt(sum(terms) / count)


@pytest.mark.parametrize("name", [name for name in DEFINITIONS if name != "td_macro"])
@pytest.mark.parametrize(("n", "classes"), [(160, 4), (123, 2), (25, 3)])
def test_errors_are_those_of_leaving_out_one_block_after_the_other(
    name: str, n: int, classes: int
) -> None:
    examples = examples_of(np.arange(n) % classes, classes, 10)
    a, b = made_up(20, examples, 0), made_up(2, examples, 1, skill=1)
    value, errors = find_measure(name).form("classification").with_errors(a, b)
    blocks = examples.blocks
    without = [by_definition(name, a, b, blocks.of_example != k) for k in range(10)]
    expected = jackknife(value, without, blocks.sizes)
    np.testing.assert_allclose(errors, expected, atol=3e-7)
    if classes > 2:
        assert (errors > 0).mean() > 0.5


def test_a_mean_over_classes_loses_what_a_block_lacks_of_each_class() -> None:
    truth = np.repeat([0, 1, 2, 3], [70, 25, 25, 1])
    examples = examples_of(truth, 4, 8)
    a, b = made_up(3, examples, 0), made_up(4, examples, 1, skill=0)
    value, errors = find_measure("td_macro").form("classification").with_errors(a, b)
    differ = a.predicted[:, None] != b.predicted[None]
    mean = np.stack([differ[..., truth == c].mean(axis=2) for c in range(4)], axis=2)[..., truth]
    beyond = (differ - mean) / (4 * np.bincount(truth)[truth])
    sizes = examples.blocks.sizes
    without = [
        value - beyond[..., examples.blocks.of_example == k].sum(axis=2) * 121 / (121 - sizes[k])
        for k in range(8)
    ]
    np.testing.assert_allclose(errors, jackknife(value, without, sizes))


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [
        ([900, 90, 10], [0.02, 0.02, 0.95]),
        ([900, 90, 10], [0.05, 0.2, 0.6]),
        ([5000, 200, 50], [0.02, 0.1, 0.9]),
        ([300, 300, 300], [0.1, 0.2, 0.3]),
    ],
)
def test_rare_classes_have_the_errors_that_they_have(sizes: list[int], shares: list[float]) -> None:
    """The gap of a rare class from the mean over all is no sampling noise."""
    random, truth = np.random.default_rng(0), np.repeat([0, 1, 2], sizes)
    differ = random.random((400, len(truth))) < np.array(shares)[truth]
    examples = examples_of(truth, 3)
    right = Outputs(truth[None].astype(np.uint8), examples)
    other = Outputs(np.where(differ, (truth + 1) % 3, truth).astype(np.uint8), examples)
    values, errors = find_measure("td_macro").form("classification").with_errors(right, other)
    # the true deviation of a mean of shares
    deviation = np.sqrt(np.sum(np.array(shares) * (1 - np.array(shares)) / sizes)) / 3
    assert values.std() == pytest.approx(deviation, rel=0.12)
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(deviation, rel=0.12)


@pytest.mark.parametrize("distance", ["cosine", "mean", "none"])
def test_errors_of_values(distance: str) -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(3, 203)), random.normal(size=(4, 203))
    b[0] = a[0] + 1e-7 * b[0]  # near twins, for which a matrix product cancels
    b[1] = 3 * a[0] + 0.1 * b[1]
    examples = Examples(example_blocks(keys(np.arange(203).astype(str), "blocks"), blocks=7))
    form = find_measure("td").form("regression", distance)
    value, errors = form.with_errors(Outputs(a, examples), Outputs(b, examples))
    without = []
    for block in range(7):
        kept = examples.blocks.of_example != block
        some = Examples(one_block(int(kept.sum())))
        without.append(form.between(Outputs(a[:, kept], some), Outputs(b[:, kept], some)))
    expected = jackknife(value, without, examples.blocks.sizes)
    np.testing.assert_allclose(errors, expected, rtol=1e-6)
    assert 0 < value[0, 0] < 1e-12
    assert 0 < errors[0, 0] < value[0, 0]


def test_a_head_without_direction_has_no_error() -> None:
    examples = Examples(example_blocks(keys(np.arange(90).astype(str), "blocks")))
    values = np.random.default_rng(0).normal(size=(2, 90))
    values[1] = 3.0
    form = find_measure("td").form("regression")
    value, errors = form.with_errors(Outputs(values, examples), Outputs(values, examples))
    for found in (value, errors):
        assert np.isnan(found).tolist() == [[False, True], [True, True]]


def test_one_block_and_one_example_have_no_error() -> None:
    for n, blocks in ((50, 1), (1, 40)):
        examples = examples_of(np.zeros(n, dtype=int), 2, blocks)
        heads = made_up(2, examples, 0)
        value, errors = find_measure("td").form("classification").with_errors(heads, heads)
        assert np.isfinite(value).all()
        assert np.isnan(errors).all()


def test_errors_are_the_binomial_ones_where_examples_are_alike() -> None:
    """Over many pairs; one of them from 40 blocks is off by a ninth, 1 / sqrt(2 * 39)."""
    random, n = np.random.default_rng(0), 8000
    examples = examples_of(random.integers(10, size=n), 10)
    shares = np.linspace(0.02, 0.6, 200)[:, None]
    a = Outputs(np.zeros((1, n), dtype=np.uint8), examples)
    b = Outputs((random.random((200, n)) < shares).astype(np.uint8), examples)
    value, errors = find_measure("td").form("classification").with_errors(a, b)
    ratio = errors / np.sqrt(value * (1 - value) / n)
    assert np.sqrt(np.square(ratio).mean()) == pytest.approx(1, abs=0.03)
    assert ratio.std() == pytest.approx(1 / np.sqrt(2 * 39), rel=0.25)


@pytest.mark.parametrize("name", ["td", "cohen_kappa", "error_consistency", "td_over_errors"])
def test_intervals_cover(name: str) -> None:
    """Evaluation sets are drawn again and again, of labels and of two heads' predictions."""
    random, n, sets, classes = np.random.default_rng(3), 1000, 300, 4
    form = find_measure(name).form("classification")
    found = []
    for _ in range(sets):
        truth = random.integers(classes, size=n)
        common = random.random(n) < 0.15
        codes = [
            np.where(common | (random.random(n) < 0.1), random.integers(classes, size=n), truth)
            for _ in range(2)
        ]
        examples = examples_of(truth, classes)
        a, b = (Outputs(each[None].astype(np.uint8), examples) for each in codes)
        found.append([each[0, 0] for each in form.with_errors(a, b)])
    values, errors = np.array(found).T
    inside = np.abs(values - values.mean()) < 2.02 * errors  # t with 39 degrees of freedom
    assert inside.mean() == pytest.approx(0.95, abs=0.03)
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(values.std(), rel=0.12)


def test_groups_that_stay_together_widen_errors() -> None:
    """Ten examples that always go together say as much as one."""
    n, random = 4000, np.random.default_rng(0)
    names = np.array([f"patient {number // 10}" for number in range(n)])
    own = keys(np.arange(n).astype(str), "blocks")
    together = example_blocks(own, groups=keys(names, "blocks"))
    for name in np.unique(names)[:50]:
        assert len(np.unique(together.of_example[names == name])) == 1
    assert np.ptp(together.sizes) <= 10
    codes = np.repeat(random.random((60, n // 10)) < 0.3, 10, axis=1).astype(np.uint8)
    root = []
    for blocks in (together, example_blocks(own)):
        heads = Outputs(codes, Examples(blocks))
        errors = find_measure("td").form("classification").with_errors(heads[:30], heads[30:])[1]
        root.append(np.sqrt(np.square(errors).mean()))
    assert root[0] / root[1] == pytest.approx(np.sqrt(10), rel=0.1)

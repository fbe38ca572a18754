"""Groups: whatever their sizes are, no split, half or validation part cuts one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_zoo import content, experiment, planned

from td_ray.errors import InputError
from td_ray.plan.resolve import resolve
from td_ray.spec import Split
from td_ray.sweep import run
from td_ray.tasks import halves, validation_part
from td_ray.tasks.splits import cut

Drawn = tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.str_] | None]


@st.composite
def grouped(draw: st.DrawFn) -> Drawn:
    """Ids, groups of any sizes, and strata or none."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=2, max_size=20))
    groups = np.repeat([f"g{number}" for number in range(len(sizes))], sizes)
    groups = groups[np.array(draw(st.permutations(range(len(groups)))))]
    n = len(groups)
    strata = draw(st.none() | st.lists(st.sampled_from("abc"), min_size=n, max_size=n))
    return np.arange(n).astype(str), groups, None if strata is None else np.array(strata)


def sizes_of(groups: NDArray[np.str_]) -> NDArray[np.intp]:
    return np.asarray(np.unique(groups, return_counts=True)[1])


def is_cut(groups: NDArray[np.str_], chosen: NDArray[np.bool_]) -> bool:
    return bool(set(groups[chosen]) & set(groups[~chosen]))


@given(grouped(), st.integers(0, 5), st.floats(0.05, 0.95))
def test_no_group_is_ever_cut(drawn: Drawn, seed: int, share: float) -> None:
    ids, groups, strata = drawn
    a, b = halves(ids, strata, "digest", seed, groups)
    assert (a ^ b).all()
    assert not is_cut(groups, a)
    assert not is_cut(groups, validation_part(ids, strata, "digest", groups))
    try:
        training, evaluation = cut(ids, {}, strata, Split(test=share, seed=seed), "d", groups)
    except InputError:
        return  # every stratum is a single group
    assert (training ^ evaluation).all()
    assert not is_cut(groups, evaluation)


@given(grouped(), st.integers(0, 20))
def test_halves_differ_by_at_most_two_of_the_largest_groups(drawn: Drawn, seed: int) -> None:
    ids, groups, strata = drawn
    a, b = halves(ids, strata, "digest", seed, groups)
    limit = sizes_of(groups).max() * (1 if strata is None else 2)
    assert abs(int(a.sum()) - int(b.sum())) <= limit
    if strata is None:
        assert a.any()
        assert b.any()


@given(grouped(), st.randoms(use_true_random=False))
def test_membership_does_not_depend_on_the_order_of_rows(drawn: Drawn, random: Any) -> None:
    ids, groups, strata = drawn
    order = np.array(random.sample(range(len(ids)), len(ids)))
    shuffled = None if strata is None else strata[order]
    for first, second in (
        (
            halves(ids, strata, "x", 1, groups)[0],
            halves(ids[order], shuffled, "x", 1, groups[order])[0],
        ),
        (
            validation_part(ids, strata, "x", groups),
            validation_part(ids[order], shuffled, "x", groups[order]),
        ),
    ):
        assert set(ids[first]) == set(ids[order][second])


def test_keys_come_from_the_group_and_not_from_the_sample() -> None:
    groups = np.repeat([f"g{number}" for number in range(40)], 3)
    one = halves(np.arange(120).astype(str), None, "x", 0, groups)[0]
    other = halves(np.array([f"s{number}" for number in range(120)]), None, "x", 0, groups)[0]
    assert (one == other).all()


def test_seeds_give_different_cuts_of_nearly_equal_size() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat([f"g{number}" for number in range(60)], random.integers(5, 30, 60))
    ids = np.arange(len(groups)).astype(str)
    drawn = [halves(ids, None, "x", seed, groups)[0] for seed in range(20)]
    assert len({each.tobytes() for each in drawn}) == 20
    assert max(abs(each.mean() - 0.5) for each in drawn) < 0.01
    overlaps = [(drawn[i] & drawn[j]).mean() for i in range(20) for j in range(i)]
    assert abs(np.mean(overlaps) - 0.25) < 0.02  # as of independent draws


def test_a_group_counts_in_its_most_common_stratum() -> None:
    """40 groups lean to 'a' and 40 to 'b': each side gets half of either kind."""
    groups = np.repeat([f"g{number}" for number in range(80)], 5)
    strata = np.tile(list("aaaab") * 40 + list("bbbba") * 40, 1)
    for seed in range(10):
        a, _ = halves(np.arange(400).astype(str), strata, "x", seed, groups)
        assert abs((strata[a] == "a").sum() - 100) <= 5
        _, evaluation = cut(
            np.arange(400).astype(str), {}, strata, Split(seed=seed, test=0.25), "d", groups
        )
        assert abs(evaluation.sum() - 100) <= 5
        assert abs((strata[evaluation] == "a").sum() - 50) <= 5


def test_shares_are_near_what_was_asked_for() -> None:
    groups = np.repeat([f"g{number}" for number in range(100)], 4)
    ids = np.arange(400).astype(str)
    for share in (0.1, 0.3, 0.5, 0.9):
        _, evaluation = cut(ids, {}, None, Split(test=share), "d", groups)
        assert abs(evaluation.mean() - share) <= 0.01
    assert abs(validation_part(ids, None, "x", groups).mean() - 0.2) <= 0.01
    two = np.repeat(["one", "other"], 200)
    assert validation_part(ids, None, "x", two).sum() == 200  # one of two, and not none


def with_groups(zoo: Path, column: Any, **entry: Any) -> dict[str, Any]:
    """The entry of the small zoo's data, with groups and no split column."""
    table = pd.read_csv(zoo / "points.csv")
    table.assign(animal=column(table)).to_csv(zoo / "points.csv", index=False)
    plain = {"name": "points", "source": "table", "path": "points.csv", "stratify": "species"}
    return {**plain, "groups": "animal", **entry}


def by_fours(table: pd.DataFrame) -> Any:
    """Groups of four samples of one species."""
    return table["species"] + "-" + (table.groupby("species").cumcount() // 4).astype(str)


def test_a_run_keeps_groups_together(zoo: Path) -> None:
    entry = with_groups(zoo, by_fours)
    wanted = experiment(zoo, data=[entry])
    data = resolve(wanted).data["points"]
    assert data.groups is not None
    assert not set(data.groups[data.training]) & set(data.groups[data.evaluation])
    inside = data.groups[data.training]
    assert not is_cut(inside, data.validation)
    results = run(wanted, backend="inline")
    heads = results.heads()
    for seed, rows in heads[heads["task"] == "species"].groupby("seed"):
        half = data.halves(int(seed))
        assert not is_cut(inside, half[0])
        sizes = {name: int(each.sum()) for name, each in zip("ab", half, strict=True)}
        assert (rows["n_train"] == rows["half"].map(sizes)).all()
    assert results.pairs()["tdx"].notna().all()


def test_groups_are_part_of_the_identity_where_they_are_there(zoo: Path) -> None:
    entry = with_groups(zoo, by_fours, split={"column": "split"})
    table = pd.read_csv(zoo / "points.csv")
    table["animal"] = table["id"]
    table["other"] = table["id"].where(table["id"] != "s000", "s001")  # both are in training
    table.to_csv(zoo / "points.csv", index=False)

    def keys(**changes: Any) -> set[str | None]:
        plan = planned(experiment(zoo, data=[{**entry, **changes}]))
        return {unit.key for unit in plan.units}

    without, alone, joined = keys(groups=None), keys(), keys(groups="other")
    assert not without & alone
    assert not alone & joined
    assert without == {unit.key for unit in planned(experiment(zoo, data=content()["data"])).units}


@pytest.mark.parametrize(
    ("column", "entry", "words"),
    [
        (by_fours, {"groups": "animl"}, "no column 'animl' to group by: did you mean 'animal'"),
        (lambda table: table["size"], {}, "group by a column of labels; 'animal' has fractions"),
        (
            lambda table: by_fours(table).where(table["id"] != "s007", None),
            {},
            "sample 's007' has no group in column 'animal'",
        ),
        (
            by_fours,
            {"split": {"column": "split"}},
            "split column 'split' has samples of group 'ant-0' and 29 more in both splits",
        ),
        (lambda table: "same", {}, "the evaluation split has no samples"),
        (
            lambda table: table["split"],
            {"split": {"column": "split"}},
            "the training split is a single group, 'train', and has no halves.*seeds: 0",
        ),
    ],
)
def test_groups_that_cannot_be(zoo: Path, column: Any, entry: dict[str, Any], words: str) -> None:
    data = with_groups(zoo, column, **entry)
    with pytest.raises(InputError, match=f"^data set 'points': [^\n]*{words}[^\n]*$"):
        resolve(experiment(zoo, data=[data]))

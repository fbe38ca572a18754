"""Which pairs: by name, glob, group and list; blocks are what a predicate says pair by pair."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_zoo import experiment, planned, write_zoo

from td_ray.errors import InputError
from td_ray.plan.estimate import count_pairs
from td_ray.plan.selection import WantedPairs, select_pairs
from td_ray.plan.tiles import plan_tiles
from td_ray.registry import MODEL_SOURCES
from td_ray.results.parts import Parts
from td_ray.spec import PairRule
from td_ray.sweep import run
from td_ray.zoo import Representation


def zoo_of(models: dict[str, dict[str, Any]], layers: tuple[str, ...] = ("output",)) -> Any:
    """Representations by name and metadata, which no file stands behind."""
    source = MODEL_SOURCES.get("features")
    made = [source(source="features", path="x", name=n, metadata=m) for n, m in models.items()]
    return [Representation(model, layer) for model in made for layer in layers]


SMALL = {
    "a-0": {"arch": "a", "seed": 0},
    "a-1": {"arch": "a", "seed": 1},
    "b-0": {"arch": "b", "seed": 0},
    "b-1": {"arch": "b", "seed": "1"},
    "c": {"arch": None},
}


def selected(rules: list[Any], items: Any = None, folder: Path = Path()) -> set[str]:
    """Wanted pairs as texts, and a check that all ways of asking agree."""
    items = zoo_of(SMALL) if items is None else items
    parsed = [
        PairRule(names=rule) if isinstance(rule, list) else PairRule(**rule) for rule in rules
    ]
    wanted = select_pairs(parsed, items, folder)
    block = everything(wanted, items)
    assert wanted.count(wanted.positions(items)) == np.triu(block).sum()
    assert wanted.needed() == np.flatnonzero(block.any(axis=0)).tolist()
    names = [item.name.removesuffix("@output") for item in items]
    return {f"{names[a]} {names[b]}" for a, b in np.argwhere(np.triu(block)).tolist()}


def everything(wanted: WantedPairs, items: Any) -> Any:
    places = wanted.positions(items)
    block = wanted.block(places, places)
    assert (block == block.T).all()
    return block


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([["a-0", "b-0"]], {"a-0 b-0"}),
        ([["b-0", "a-0"]], {"a-0 b-0"}),
        ([["a-0", "*"]], {"a-0 a-1", "a-0 b-0", "a-0 b-1", "a-0 c"}),
        ([["a-*", "c"], ["c", "b-0"]], {"a-0 c", "a-1 c", "b-0 c"}),
        ([["a-*", "a-*"]], {"a-0 a-1"}),
        ([["a-0@output", "b-?"]], {"a-0 b-0", "a-0 b-1"}),
        ([{"within": ["arch"]}], {"a-0 a-1", "b-0 b-1"}),
        ([{"between": ["arch"]}], {"a-0 b-0", "a-0 b-1", "a-1 b-0", "a-1 b-1"}),
        ([{"within": ["seed"], "between": ["arch"]}], {"a-0 b-0", "a-1 b-1"}),
        ([{"between": ["seed", "arch"]}], {"a-0 b-1", "a-1 b-0"}),
        ([{"names": ["a-0", "*"], "within": ["seed"]}], {"a-0 b-0"}),
        ([{"names": ["a-0", "b-0"], "within": ["seed"]}, ["a-1", "c"]], {"a-0 b-0", "a-1 c"}),
    ],
)
def test_lines(rules: list[Any], expected: set[str]) -> None:
    assert selected(rules) == expected


def test_a_name_is_no_glob() -> None:
    models: dict[str, Any] = {"net[01]": {}, "net0": {}, "net1": {}, "*": {}}
    assert selected([["net[01]", "net0"]], zoo_of(models)) == {"net[01] net0"}
    assert selected([["*", "net1"]], zoo_of(models)) == {"net1 *"}
    assert selected([["net[0-1]", "*"]], zoo_of(models)) == {"net0 *", "net1 *"}


def test_a_model_stands_for_its_layers() -> None:
    items = zoo_of({"a": {}, "b": {}}, layers=("x", "y"))
    assert selected([["a", "a"]], items) == {"a@x a@y"}
    assert selected([["a@x", "b"]], items) == {"a@x b@x", "a@x b@y"}
    assert selected([["*@x", "*@x"]], items) == {"a@x b@x"}


def write_pairs(folder: Path, name: str = "pairs.csv", **columns: list[str]) -> None:
    frame = pd.DataFrame(columns)
    frame.to_parquet(folder / name) if name.endswith("parquet") else frame.to_csv(
        folder / name, index=False, sep="\t" if name.endswith("tsv") else ","
    )


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.tsv", "pairs.parquet"])
def test_tables_of_pairs(tmp_path: Path, name: str) -> None:
    write_pairs(tmp_path, name, model_a=["a-0", "c", "a-0"], model_b=["b-0", "b-1", "b-0"])
    assert selected([{"file": name}], folder=tmp_path) == {"a-0 b-0", "b-1 c"}
    narrowed = {"file": name, "within": ["seed"]}
    assert selected([narrowed], folder=tmp_path) == {"a-0 b-0"}


def test_tables_of_pairs_may_name_layers_and_numbers(tmp_path: Path) -> None:
    items = zoo_of({"007": {}, "8": {}, "*": {}}, layers=("x", "y"))
    sides = {"model_a": ["007", "*"], "model_b": ["8", "8"]}
    write_pairs(tmp_path, **sides, layer_a=["x", "y"], layer_b=["y", "y"])
    assert selected([{"file": "pairs.csv"}], items, tmp_path) == {"007@x 8@y", "8@y *@y"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": ["a-0"], "b": ["c"]}, "has no column 'model_a'"),
        ({"model_a": [], "model_b": []}, "holds no pairs"),
        (
            {"model_a": ["a-0", "b-0"], "model_b": ["c", "b-00"]},
            r"row 1 \(counted from 0\): no model is called 'b-00': did you mean 'b-0'",
        ),
        ({"model_a": ["c"], "model_b": ["c"]}, "row 0 .*: 'c' is paired with itself"),
        ({"model_a": ["a-?"], "model_b": ["c"]}, "no model is called 'a-\\?'"),
    ],
)
def test_wrong_tables(tmp_path: Path, columns: dict[str, list[str]], message: str) -> None:
    write_pairs(tmp_path, **columns)
    with pytest.raises(InputError, match=f"^pairs: .*{message}"):
        selected([{"file": "pairs.csv"}], folder=tmp_path)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (["a-7", "*"], "pairs: 'a-7' selects no model: did you mean 'a-"),
        (["a-0", "a-0"], "pairs: 'a-0' is paired with itself"),
        (["a-0", "a-[0]"], "pairs: no two models fit {'names': ['a-0', 'a-[0]']}"),
        ({"within": ["sead"]}, "pairs: no model has metadata 'sead': did you mean 'seed'?"),
        ({"names": ["a-0", "b-1"], "within": ["seed"]}, "pairs: no two models fit"),
        ({"file": "nowhere.csv"}, "pairs: no file at nowhere.csv"),
    ],
)
def test_lines_that_select_nothing(rule: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        selected([["a-0", "c"], rule])
    assert str(caught.value).startswith(message)


WORDS = st.sampled_from(["a", "b", "ab", "ba", "[ab]", "a*"])
VALUES = st.sampled_from([None, 1, "1", "x", True])
GLOBS = st.sampled_from(["*", "a*", "?", "[ab]", "*b", "a", "ab", "a*"])
KEYS = st.lists(st.sampled_from(["k", "l"]), max_size=2, unique=True)
RULES = st.fixed_dictionaries(
    {"names": st.none() | st.tuples(GLOBS, GLOBS), "within": KEYS, "between": KEYS}
).filter(lambda rule: any(rule.values()) and not set(rule["within"]) & set(rule["between"]))


@given(
    models=st.dictionaries(WORDS, st.fixed_dictionaries({"k": VALUES, "l": VALUES}), min_size=2),
    rules=st.lists(RULES, min_size=1, max_size=3),
    order=st.permutations(range(6)),
)
def test_blocks_are_what_a_predicate_says(models: Any, rules: Any, order: list[int]) -> None:
    items = zoo_of(models)
    parsed = [PairRule(**rule) for rule in rules]
    if not all(any(fits(rule, a, b, models) for a in models for b in models) for rule in rules):
        with pytest.raises(InputError, match=r"^pairs: "):
            select_pairs(parsed, items, Path())
        return
    wanted = select_pairs(parsed, items, Path())
    names = [list(models)[place] for place in order if place < len(models)]
    places = wanted.positions(items)[[place for place in order if place < len(models)]]
    expected = [[any(fits(rule, a, b, models) for rule in rules) for b in names] for a in names]
    assert wanted.block(places, places).tolist() == expected
    assert wanted.block(places[1:], places[:2]).tolist() == [row[:2] for row in expected[1:]]
    assert wanted.count(places) == np.sum(expected) // 2


def fits(rule: dict[str, Any], a: str, b: str, models: dict[str, dict[str, Any]]) -> bool:
    """What a line of ``pairs`` means, said for one pair."""

    def chosen(name: str, glob: str) -> bool:
        return name == glob if glob in models else fnmatchcase(name, glob)

    one, other = rule["names"] or ("*", "*")
    if rule["names"] is not None:
        both = chosen(a, one) and chosen(b, other), chosen(b, one) and chosen(a, other)
        if not any(both):
            return False
    for key in (*rule["within"], *rule["between"]):
        values = [models[name][key] for name in (a, b)]
        same = str(values[0]) == str(values[1])
        if None in values or same != (key in rule["within"]):
            return False
    return a != b


def tile_keys(wanted: Any) -> list[str]:
    return [tile.key for tile in plan_tiles(planned(wanted), Parts(wanted.output_folder))]


def test_a_new_model_computes_its_row_of_a_group_only(tmp_path: Path) -> None:
    write_zoo(tmp_path, models=5)
    for number in range(5):
        name = f"{'even' if number % 2 == 0 else 'odd'}-{number}.npz"
        (tmp_path / f"features/net-{number}.npz").rename(tmp_path / "features" / name)
    changes: dict[str, Any] = {"pairs": [{"within": "kind"}], "resources": {"tile": 1}}
    results = run(experiment(tmp_path, **changes), backend="inline")
    assert len(results.pairs()) == 2 * (3 + 1)
    before = set(tile_keys(experiment(tmp_path, **changes)))
    (tmp_path / "features/odd-5.npz").write_bytes((tmp_path / "features/odd-1.npz").read_bytes())
    plan = planned(experiment(tmp_path, **changes))
    assert count_pairs(plan) == 2 * (3 + 3)
    run(experiment(tmp_path, **changes), backend="inline")
    after = set(tile_keys(experiment(tmp_path, **changes)))
    assert before < after
    assert len(after - before) == 2 * 2


def test_blocks_of_which_all_is_wanted_are_tiles_of_all_pairs(zoo: Path) -> None:
    small = {"resources": {"tile": 2}}
    run(experiment(zoo, **small), backend="inline")
    everything = set(tile_keys(experiment(zoo, **small)))
    some = tile_keys(experiment(zoo, **small, pairs=[["net-[01]", "net-[23]"]]))
    assert len(some) == 2
    assert set(some) < everything


def test_tiles_hold_members_of_wanted_pairs_alone(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    wanted = experiment(zoo, pairs=[["net-0", "net-2"], ["net-0", "net-3"]])
    for tile in plan_tiles(planned(wanted), Parts(wanted.output_folder)):
        assert [member.number for member in tile.rows] == [0]
        assert [member.number for member in tile.columns] == [2, 3]
    results = run(wanted, backend="inline")
    assert len(results.pairs()) == 2 * 2


def test_ten_thousand_models_are_selected_in_no_time(tmp_path: Path) -> None:
    """Seconds on two busy cores; pair by pair it would be an hour."""
    models = {f"net-{n}": {"group": n % 7, "seed": n % 11} for n in range(10_000)}
    items = zoo_of(models)
    random = np.random.default_rng(0)
    a, b = random.integers(10_000, size=(2, 5_000))
    keep = a != b
    sides = {"model_a": [f"net-{n}" for n in a[keep]], "model_b": [f"net-{n}" for n in b[keep]]}
    write_pairs(tmp_path, **sides)
    started = time.perf_counter()
    wanted = select_pairs([PairRule(file="pairs.csv")], items, tmp_path)
    distinct = len(np.unique(np.sort(np.stack([a, b])[:, keep], axis=0), axis=1).T)
    assert wanted.count(wanted.positions(items)) == distinct
    assert wanted.needed() == np.unique([a[keep], b[keep]]).tolist()
    rules = [PairRule(within=("group",), between=("seed",)), PairRule(names=("net-1*", "net-2"))]
    groups = select_pairs(rules, items, tmp_path)
    assert groups.count(groups.positions(items)) > 6_000_000
    assert time.perf_counter() - started < 20

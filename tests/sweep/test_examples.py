"""Pairs on some examples: the same for all, unbiased, and nothing is fitted anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_zoo import SAMPLES, TASKS, described, experiment, parts_of, planned

from td_ray.errors import InputError
from td_ray.measures import disagreement
from td_ray.plan.resolve import resolve
from td_ray.plan.tiles import plan_tiles
from td_ray.results.parts import Parts
from td_ray.results.tables import Results
from td_ray.sweep import run
from td_ray.tasks.splits import queue

HELD_OUT = SAMPLES * 2 // 5


def tile_keys(wanted: Any) -> set[str]:
    return {tile.key for tile in plan_tiles(planned(wanted), Parts(wanted.output_folder))}


def chosen(zoo: Path, task: str, size: int) -> Any:
    """The rows of an evaluation split that are compared, drawn as the formula says."""
    (found,) = (each for each in resolve(experiment(zoo)).tasks if each.name == task)
    ids = found.evaluation_ids("points")
    return np.isin(ids, ids[np.argsort(queue(ids))[:size]])


def codes(results: Results, seed: int | None, half: str | None) -> Any:
    """(4, n) predicted classes of task species in the order of the models."""
    table = results.predictions().query("task == 'species'").sort_values("model")
    rows = table[table["seed"].eq(seed) if seed is not None else table["seed"].isna()]
    rows = rows[rows["half"].eq(half) if half is not None else rows["half"].isna()]
    return np.stack([np.frombuffer(row, np.uint8) for row in rows["predictions"]])


def test_every_number_of_a_pair_is_that_of_the_examples(zoo: Path) -> None:
    results = run(experiment(zoo, examples=17), backend="inline")
    assert (results.pairs()["n_examples"] == 17).all()
    assert (results.heads()["n_evaluation"] == HELD_OUT).all()
    rows = chosen(zoo, "species", 17)
    assert rows.sum() == 17
    full = codes(results, None, None)[:, rows]
    halves = {half: [codes(results, r, half)[:, rows] for r in (0, 1)] for half in "ab"}
    floors = np.mean([(a != b).mean(axis=1) for a, b in zip(*halves.values(), strict=True)], axis=0)
    for row in results.pairs().query("task == 'species'").to_dict("records"):
        a, b = (int(row[side][-1]) for side in ("model_a", "model_b"))
        assert row["value"] == (full[a] != full[b]).mean()
        assert row["floor_a"] == pytest.approx(floors[a])
        across = [
            [(x[a] != y[b]).mean(), (y[a] != x[b]).mean()]
            for x, y in zip(*halves.values(), strict=True)
        ]
        assert row["tdx"] == pytest.approx(np.mean(across))


def test_another_number_fits_nothing_anew(zoo: Path) -> None:
    whole = run(experiment(zoo), backend="inline")
    before = {path: stamp for path, stamp in parts_of(zoo).items() if "heads" in path.parts}
    keys = tile_keys(experiment(zoo))
    few = run(experiment(zoo, examples=20), backend="inline")
    after = parts_of(zoo)
    assert {path: stamp for path, stamp in after.items() if "heads" in path.parts} == before
    pd.testing.assert_frame_equal(few.heads(), whole.heads())
    assert len(few.pairs()) == len(whole.pairs())
    assert not keys & tile_keys(experiment(zoo, examples=20))
    assert not tile_keys(experiment(zoo, examples=21)) & tile_keys(experiment(zoo, examples=20))


def test_all_of_a_split_are_its_tiles(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    keys = tile_keys(experiment(zoo))
    assert tile_keys(experiment(zoo, examples=HELD_OUT)) == keys
    assert tile_keys(experiment(zoo, examples=HELD_OUT - 1)).isdisjoint(keys)


def test_more_than_any_split_has_is_refused(zoo: Path) -> None:
    with pytest.raises(InputError, match=r"^examples: .* 49 samples, .* more than 48; ask for"):
        resolve(experiment(zoo, examples=HELD_OUT + 1))


def test_tasks_on_some_classes_draw_from_the_same_queue(zoo: Path) -> None:
    two = {**TASKS[0], "name": "two", "subset": ["ant", "bee"]}
    species, part = resolve(experiment(zoo, tasks=[TASKS[0], two], examples=20)).tasks
    whole_ids, part_ids = species.evaluation_ids("points"), part.evaluation_ids("points")
    places = part.examples("points", 20)
    assert places is not None
    assert len(places) == 20
    all_places = species.examples("points", HELD_OUT - 1)
    assert all_places is not None
    drawn = set(part_ids[places])
    # a sample that only the larger task has takes no one's place
    few = species.examples("points", 12)
    assert few is not None
    assert set(whole_ids[few]) & set(part_ids) <= drawn
    assert part.examples("points", len(part_ids)) is None
    results = run(experiment(zoo, tasks=[TASKS[0], two], examples=20), backend="inline")
    assert (results.pairs()["n_examples"] == 20).all()


@given(st.integers(2, HELD_OUT), st.integers(2, HELD_OUT))
def test_a_larger_number_holds_a_smaller_one(
    tmp_path_factory: pytest.TempPathFactory, one: int, other: int
) -> None:
    task = small_task(tmp_path_factory)
    sets = []
    for size in sorted((one, other)):
        found = task.examples("points", size)
        places = range(HELD_OUT) if found is None else found.tolist()
        assert list(places) == sorted(places)
        assert len(places) == size
        sets.append(set(places))
    assert sets[0] <= sets[1]


TASK: list[Any] = []


def small_task(factory: pytest.TempPathFactory) -> Any:
    """One task for all examples of a property."""
    if not TASK:
        from small_zoo import write_zoo

        folder = factory.mktemp("examples")
        write_zoo(folder, models=1)
        TASK.append(resolve(experiment(folder)).tasks[0])
    return TASK[0]


def test_the_mean_over_subsets_is_unbiased() -> None:
    """Other sample ids draw other subsets; rare and sorted disagreement is met as often."""
    differs = np.arange(500) < 35
    draws = [
        differs[np.argsort(queue(np.array([f"{draw}-{n}" for n in range(500)])))[:50]].mean()
        for draw in range(600)
    ]
    share = differs.mean()
    deviation = np.sqrt(share * (1 - share) / 50 * (1 - 50 / 500))
    assert abs(np.mean(draws) - share) < 4 * deviation / np.sqrt(len(draws))
    assert np.std(draws) == pytest.approx(deviation, rel=0.1)


def test_estimates_are_within_their_standard_errors() -> None:
    """Of 4,950 pairs of heads that err on their own and together, on 400 of 5,000 samples."""
    random = np.random.default_rng(0)
    truth, hard = random.integers(10, size=5000), random.random(5000)
    wrong = random.random((100, 5000)) < hard**2 * np.linspace(0.1, 0.9, 100)[:, None]
    predicted = np.where(wrong, random.integers(10, size=(100, 5000)), truth)
    rows = np.sort(np.argsort(queue(np.arange(5000).astype(str)))[:400])
    above = np.triu_indices(100, 1)
    whole = disagreement(predicted, predicted)[above]
    few = disagreement(predicted[:, rows], predicted[:, rows])[above]
    off = np.abs(few - whole) / np.sqrt(few * (1 - few) / (400 - 1))
    assert (off < 3).mean() > 0.99
    assert (off > 1).mean() > 0.1  # they are errors of drawing, not of rounding


def test_a_plan_counts_the_examples(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    more, fewer = (described(experiment(zoo, examples=n))["core_seconds"] for n in (24, 12))
    assert more > fewer > 0


@pytest.mark.ray
def test_examples_reach_the_workers_of_ray(zoo: Path, ray_session: None) -> None:
    by_ray = run(experiment(zoo, examples=17)).pairs()
    inline = run(experiment(zoo, examples=17, output="inline"), backend="inline").pairs()
    pd.testing.assert_frame_equal(by_ray, inline)

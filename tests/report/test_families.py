"""A family of tasks is one section of the page: means over its tasks, and how they differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up_results import STRATEGIES, Page, Zoo, models
from small_zoo import content, experiment

from td_ray.report import write_report
from td_ray.report.tasks import MOST_TASKS
from td_ray.report.units import ACCURACY, DISAGREEMENT, NOTHING
from td_ray.results.tables import Results, open_results
from td_ray.sweep import run


def written(results: Results, folder: Path) -> Page:
    path = folder / "report.html"
    write_report(results, path)
    return Page(path)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    zoo = Zoo(models(6), STRATEGIES, tasks=["digit", "random"], families={"random": 30})
    return zoo.write(tmp_path / "output")


def test_a_family_is_one_section_with_its_mean_matrix(results: Results, tmp_path: Path) -> None:
    page = written(results, tmp_path)
    assert list(page.figures) == ["matrix-1", "groups-1-1", "matrix-2", "groups-2-1", "tasks-2"]
    assert [row[0] for row in page.tables[0][1:]] == ["digit", "random (30 tasks)"]
    means = np.mean([results.matrix(f"random-{k:03d}").to_pandas() for k in range(30)], axis=0)
    np.testing.assert_allclose(results.matrix("random").to_pandas(), means)
    order = results.matrix("random").clustering_order()
    figure = page.figures["matrix-2"]
    assert figure["names"] == list(results.matrix("random").to_pandas().index[order])
    assert figure["floors"] == results.floors("random").iloc[order].tolist()
    row = page.tables[0][2]
    assert row[3] == DISAGREEMENT.text(means[np.triu_indices(6, 1)].mean())
    assert "means over 30 tasks" in page.text


def test_the_spread_is_that_of_the_single_tasks(results: Results, tmp_path: Path) -> None:
    page = written(results, tmp_path)
    figure = page.figures["tasks-2"]
    heads = results.heads()
    scores = heads[heads["seed"].isna()].groupby("task")["score"].mean()
    assert sorted(figure["names"]) == [f"random-{number:03d}" for number in range(30)]
    assert figure["td"] == sorted(figure["td"])
    for name, td, floor, score in zip(
        figure["names"], figure["td"], figure["floors"], figure["scores"], strict=True
    ):
        assert td == pytest.approx(results.matrix(name).to_condensed().mean())
        assert floor == pytest.approx(results.floors(name).mean())
        assert score == pytest.approx(scores[name])
    rows = [table for table in page.tables if table[0][0] == "Task"][1][1:]
    assert [row[0] for row in rows] == figure["names"]
    assert rows[0][1] == DISAGREEMENT.text(figure["td"][0])
    assert rows[-1][3] == ACCURACY.text(figure["scores"][-1])
    least = " ".join(rows[0][1].split())
    assert f"Mean TD goes from {least} ({figure['names'][0]})" in page.text


def test_each_floor_counts_once_whatever_the_pairs(tmp_path: Path) -> None:
    absent = [(0, 1), (0, 2)]
    zoo = Zoo(models(4), tasks=["random"], families={"random": 3}, absent=absent)
    results = zoo.write(tmp_path / "output")
    figure = written(results, tmp_path).figures["tasks-1"]
    for name, floor in zip(figure["names"], figure["floors"], strict=True):
        assert floor == pytest.approx(results.floors(name).mean())


def test_heads_of_a_family_are_one_row(results: Results, tmp_path: Path) -> None:
    rows = written(results, tmp_path).tables[-1][1:]
    assert [row[0] for row in rows] == ["digit", "random (30 tasks)"]
    assert [row[4] for row in rows] == ["30", "900"]
    heads = results.heads()
    of_family = heads["seed"].isna() & heads["task"].str.startswith("random")
    assert rows[1][6] == f"{ACCURACY.text(heads[of_family]['score'].mean())} accuracy"


def test_a_pair_that_lacks_one_task_is_blank_and_explained(tmp_path: Path) -> None:
    zoo = Zoo(models(4), tasks=["random"], families={"random": 12}, null={(0, 1): "constant"})
    page = written(zoo.write(tmp_path / "output"), tmp_path)
    assert "1 of 6 pairs have no value" in page.text
    assert "12 of the 12 tasks have no value" in page.text
    assert len(page.figures["tasks-1"]["names"]) == 12


def test_a_model_that_lacks_one_task_has_no_mean(results: Results, tmp_path: Path) -> None:
    for name, columns in {"heads": ["model"], "pairs": ["model_a", "model_b"]}.items():
        path = results.output.path(f"results/{name}/{name}.parquet")
        table = results.table(name)
        lacks = (table["task"] == "random-003") & table[columns].eq("model-5").any(axis=1)
        table[~lacks].to_parquet(path)
    page = written(open_results(results.output), tmp_path)
    assert "5: 1 of the 30 tasks have no value" in page.text
    heads = results.heads()
    whole = heads["seed"].isna() & heads["model"].isin(["model-3", "model-4"])
    expected = heads[whole & heads["task"].str.startswith("random")]["score"].mean()
    assert page.figures["groups-2-1"]["scores"][1] == pytest.approx(expected)  # of mixup
    assert page.figures["matrix-2"]["floors"].count(None) == 1


def test_what_failed_alike_is_said_once(tmp_path: Path) -> None:
    zoo = Zoo(models(4), tasks=["digit", "random"], families={"random": 12}, failed={3: "NaN"})
    page = written(zoo.write(tmp_path / "output"), tmp_path)
    table = page.table("Model")
    assert table["Task"].tolist() == ["digit", "random (12 tasks)"]
    assert "13 units failed, those that failed alike" in page.text
    assert page.figures["tasks-2"]["scores"] != [None] * 12


def test_a_family_without_any_pair_says_so(tmp_path: Path) -> None:
    errors = dict.fromkeys(range(3), "no weights")
    zoo = Zoo(models(3), tasks=["random"], families={"random": 4}, failed=errors)
    page = written(zoo.write(tmp_path / "output"), tmp_path)
    assert page.figures == {}
    assert "No pair has a value on all tasks of this family" in page.text


def test_a_family_of_one_task_without_seeds(tmp_path: Path) -> None:
    zoo = Zoo(models(3), tasks=["one"], families={"one": 1}, seeds=0, kind="regression")
    page = written(zoo.write(tmp_path / "output"), tmp_path)
    assert list(page.figures) == ["matrix-1"]
    assert page.tables[0][1][0] == "one (1 task)"
    assert page.tables[0][1][4] == NOTHING


def test_the_table_of_a_large_family_has_its_two_ends(tmp_path: Path) -> None:
    size = MOST_TASKS + 7
    zoo = Zoo(models(2), tasks=["random"], families={"random": size}, seeds=1)
    page = written(zoo.write(tmp_path / "output"), tmp_path)
    figure = page.figures["tasks-1"]
    rows = [table for table in page.tables if table[0][0] == "Task"][1][1:]
    assert len(figure["names"]) == size
    half = MOST_TASKS // 2
    assert [row[0] for row in rows] == figure["names"][:half] + figure["names"][-half:]


def test_a_page_of_two_hundred_tasks_is_little_larger_than_that_of_one(tmp_path: Path) -> None:
    sizes = []
    for number in (1, 200):
        zoo = Zoo(models(20), tasks=["random"], families={"random": number})
        results = zoo.write(tmp_path / f"{number}")
        page = tmp_path / f"{number}.html"
        write_report(results, page)
        sizes.append(page.stat().st_size)
    assert sizes[1] - sizes[0] < 100_000


def test_models_that_take_part_in_some_tasks_are_counted_there(tmp_path: Path) -> None:
    metadata = [{"strategy": "ab"[n % 2]} for n in range(4)] + [
        {"corpus": "xy"[n // 2]} for n in range(3)
    ]
    zoo = Zoo(
        models(7),
        metadata,
        tasks=["signs", "topics"],
        takes={"signs": range(4), "topics": [4, 5, 6]},
    )
    page = written(zoo.write(tmp_path / "output"), tmp_path)
    assert [row[7:] for row in page.tables[0][1:]] == [["4", "0"], ["3", "0"]]
    assert sorted(page.figures["matrix-1"]["names"]) == models(7)[:4]
    assert sorted(page.figures["matrix-2"]["names"]) == models(7)[4:]
    assert page.figures["groups-1-1"]["names"] == ["a", "b"]
    assert page.figures["groups-2-1"]["names"] == ["x", "y"]
    assert [row[4] for row in page.tables[-1][1:]] == ["20", "15"]
    assert "(none)" not in page.text
    assert "have no value" not in page.text


def test_a_run_of_families(zoo: Path) -> None:
    family = {"kind": "subsets", "count": 3, "classes": 2}
    tasks = [
        *content()["tasks"],
        {"name": "two", "data": "points", "target": "species", "family": family},
        {"name": "coin", "data": "points", "family": {"kind": "signs", "count": 4}},
    ]
    results = run(experiment(zoo, tasks=tasks), backend="inline")
    page = written(results, zoo)
    shown = [row[0] for row in page.tables[0][1:]]
    assert shown == ["species", "size", "two (3 tasks)", "coin (4 tasks)"]
    assert "classification of species (2 classes)" in page.text
    assert "classification of a drawn target (2 classes)" in page.text
    assert len(page.figures["tasks-3"]["names"]) == 3
    heads = results.heads()
    own = heads["seed"].isna() & heads["task"].str.startswith("coin-")
    assert np.mean(page.figures["tasks-4"]["scores"]) == pytest.approx(heads[own]["score"].mean())

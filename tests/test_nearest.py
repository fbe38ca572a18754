"""The nearest models: what a row of the matrix says, also before there is a matrix."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_zoo import SAMPLES, TASKS, content, experiment, write_features, write_zoo

from td_ray import yaml_files
from td_ray.errors import InputError
from td_ray.measures import find_measure
from td_ray.nearest import nearest
from td_ray.registry import MEASURES
from td_ray.sweep import run

COLUMNS = ["model", "layer", "value", "floor", "tdx", "excess", "se", "n_examples"]


@pytest.mark.parametrize("tile", [1, 2, 128])
@pytest.mark.parametrize("task", ["species", "size"])
def test_a_row_of_the_matrix(zoo: Path, task: str, tile: int) -> None:
    wanted = experiment(zoo, resources={"tile": tile})
    results = run(wanted, backend="inline")
    floors = results.floors(task)
    for model in floors.index:
        found = nearest(wanted, model, task)
        assert list(found) == COLUMNS
        assert found["value"].is_monotonic_increasing
        assert found.attrs["floor"] == pytest.approx(floors[model])
        assert (found.attrs["without_head"], found.attrs["without_value"]) == (0, 0)
        by_name = found.set_index("model")
        assert set(by_name.index) == set(floors.index) - {model}
        for value in ("value", "tdx", "excess"):
            row = results.matrix(task, value=value).to_pandas().loc[model, by_name.index]
            np.testing.assert_allclose(by_name[value], row, atol=1e-12)
        np.testing.assert_allclose(by_name["floor"], floors[by_name.index], atol=1e-12)
        assert (by_name["n_examples"] == SAMPLES * 2 // 5).all()
        pd.testing.assert_frame_equal(nearest(wanted, model, task, k=2), found.head(2))


def test_a_run_that_has_not_ended(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    write_zoo(zoo, models=6)
    for path in (zoo / "output/parts/pairs").rglob("*.parquet"):
        path.unlink()
    found = nearest(experiment(zoo), "net-1", "species")
    assert sorted(found["model"]) == ["net-0", "net-2", "net-3"]
    assert found.attrs["without_head"] == 2
    with pytest.raises(
        InputError, match="'net-5' has no head for task 'species' yet; 'td-ray run'"
    ):
        nearest(experiment(zoo), "net-5", "species")
    alone = experiment(zoo, output="other")
    with pytest.raises(InputError, match="'net-1' has no head for task 'species' yet"):
        nearest(alone, "net-1", "species")
    assert not alone.output_folder.names()


def test_the_only_model_with_a_head(zoo: Path) -> None:
    run(
        experiment(zoo, models=[{"source": "features", "path": "features/net-0.npz"}]),
        backend="inline",
    )
    with pytest.raises(InputError, match="no other model has a head for task 'species' yet"):
        nearest(experiment(zoo), "net-0", "species")


def test_a_model_that_failed_is_named_with_its_error(zoo: Path) -> None:
    ids = [f"s{number:03d}" for number in range(SAMPLES)]
    write_features(zoo / "features/bad-0.npz", ids, np.full((SAMPLES, 2), np.nan))
    run(experiment(zoo), backend="inline")
    assert nearest(experiment(zoo), "net-0", "species").attrs["without_head"] == 1
    with pytest.raises(InputError, match=r"'bad-0' has no head .*; it failed: model 'bad-0'.*NaN"):
        nearest(experiment(zoo), "bad-0", "species")


def test_values_that_are_null_are_counted(zoo: Path) -> None:
    ids = [f"s{number:03d}" for number in range(SAMPLES)]
    write_features(zoo / "features/flat-0.npz", ids, np.zeros((SAMPLES, 2)))
    run(experiment(zoo), backend="inline")
    found = nearest(experiment(zoo), "net-0", "size")
    assert "flat-0" not in set(found["model"])
    assert found.attrs["without_value"] == 1
    assert nearest(experiment(zoo), "flat-0", "size").empty


def test_a_family_is_the_mean_over_its_tasks(zoo: Path) -> None:
    one = {**TASKS[0], "name": "one", "family": "one_vs_rest"}
    wanted = experiment(zoo, tasks=[one, TASKS[1]])
    results = run(wanted, backend="inline")
    found = nearest(wanted, "net-2", "one").set_index("model")
    for value in ("value", "tdx", "excess"):
        row = results.matrix("one", value=value).to_pandas().loc["net-2", found.index]
        np.testing.assert_allclose(found[value], row, atol=1e-12)
    assert found.attrs["floor"] == pytest.approx(results.floors("one")["net-2"])
    single = nearest(wanted, "net-2", "one-bee").set_index("model")
    row = results.matrix("one-bee").to_pandas().loc["net-2", single.index]
    np.testing.assert_array_equal(single["value"], row)


def test_examples_are_those_of_the_run(zoo: Path) -> None:
    wanted = experiment(zoo, examples=17)
    row = run(wanted, backend="inline").matrix("species").to_pandas().loc["net-0"]
    found = nearest(wanted, "net-0", "species").set_index("model")
    np.testing.assert_array_equal(found["value"], row[found.index])
    assert (found["n_examples"] == 17).all()


def test_the_most_similar_are_the_nearest(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forms = {
        name: replace(form, value=lambda *sums, form=form: 1 - form.value(*sums))
        for name, form in find_measure("td").forms.items()
    }
    alike = replace(find_measure("td"), name="alike", forms=forms)
    monkeypatch.setitem(
        MEASURES._found, "alike", replace(alike, direction="higher is more similar")
    )
    run(experiment(zoo), backend="inline")
    by_td = nearest(experiment(zoo), "net-3", "species")
    by_alike = nearest(experiment(zoo), "net-3", "species", "alike")
    assert by_alike["model"].tolist() == by_td["model"].tolist()
    np.testing.assert_allclose(by_alike["value"], 1 - by_td["value"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("net-9", "species"), "no model that is compared is called 'net-9': did you mean 'net-"),
        (("net-0", "spices"), "no task is called 'spices': did you mean 'species'?"),
        (("net-0", "species", "dt"), "unknown measure 'dt': did you mean 'td'?"),
        (
            ("net-0", "species", "td", "ridge"),
            "task 'species' has no head 'ridge': known: logistic",
        ),
        (("net-0", "size"), "task 'size' has several heads: name one of ridge, soft"),
        (("net-0", "size", "td", "soft", "pints"), "no data set 'pints': did you mean 'points'?"),
        (("pair", "size", "td", "soft"), "model 'pair' has 2 layers: name one of pair@a, pair@b"),
        (("pair@a", "species"), "model 'pair' takes no part in task 'species'"),
    ],
)
def test_wrong_names(zoo: Path, arguments: tuple[str, ...], message: str) -> None:
    for layer in "ab":
        path = zoo / f"layers/{layer}.npz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((zoo / "features/net-0.npz").read_bytes())
    pair = {"source": "features", "path": "layers/{layer}.npz", "name": "pair", "tasks": "size"}
    heads = ["logistic", "ridge", {"kind": "ridge", "name": "soft", "l2": 1}]
    wanted = experiment(zoo, models=[*content()["models"], pair], heads=heads)
    model, task, *rest = arguments
    options = dict(zip(("measure", "head", "data"), rest, strict=False))
    with pytest.raises(InputError) as caught:
        nearest(wanted, model, task, **options)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_the_command(zoo: Path) -> None:
    values: dict[str, Any] = content(resources={"cache": "cache"})
    (zoo / "experiment.yaml").write_text(yaml_files.write(values))
    run(experiment(zoo), backend="inline")
    write_zoo(zoo, models=5)
    command = ["nearest", "output", "net-1", "--task", "species", "-k", "2"]
    script = (
        "import sys\n"
        "sys.argv = ['td-ray', *sys.argv[1:]]\n"
        "from td_ray.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'torch', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )

    def printed(*more: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-c", script, *command, *more],
            cwd=zoo,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    found = nearest(experiment(zoo), "net-1", "species", k=2)
    title, header, *rows, floor, left = printed().splitlines()
    assert title == "nearest to net-1 by td of task 'species'"
    assert header.split() == ["model", "layer", "value", "floor", "tdx", "excess", "se"]
    assert [row.split()[0] for row in rows] == found["model"].tolist()
    assert floor == f"its own noise floor: {found.attrs['floor']:.4f}"
    assert left == "not compared: 1 with no head yet"
    said = json.loads(printed("--json"))
    assert said["without_head"] == 1
    assert said["floor"] == found.attrs["floor"]
    assert [row["model"] for row in said["nearest"]] == found["model"].tolist()
    assert [row["value"] for row in said["nearest"]] == pytest.approx(found["value"].tolist())
    assert said["nearest"][0]["se"] == pytest.approx(found["se"][0])


def test_a_measure_that_fits_heads_of_its_own_is_refused(zoo: Path) -> None:
    wanted = experiment(zoo)
    with pytest.raises(InputError, match="'mimic' fits a head for each pair"):
        nearest(wanted, "net-0", "species", "mimic")
    with pytest.raises(InputError, match="'k' is at least 1, not 0"):
        nearest(wanted, "net-0", "species", k=0)

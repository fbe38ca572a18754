"""The command line as people use it: real processes, exit codes, one line per error."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_zoo import SAMPLES, content, write_features, write_zoo

from td_ray import yaml_files


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    write_zoo(tmp_path)
    save(tmp_path)
    return tmp_path


def save(folder: Path, **changes: Any) -> None:
    values = content(**{"resources": {"cache": "cache"}, **changes})
    (folder / "experiment.yaml").write_text(yaml_files.write(values))


def td_ray(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "td_ray.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def refused(folder: Path, *arguments: str) -> str:
    """The one line of a command that ends with exit code 2, with nothing spent."""
    before = sorted((folder / "output").rglob("*"))
    ended = td_ray(folder, *arguments)
    assert ended.returncode == 2, (ended.stdout, ended.stderr)
    assert "Traceback" not in ended.stderr
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("td-ray: ")
    assert sorted((folder / "output").rglob("*")) == before
    return line


def test_init_writes_an_experiment_and_refuses_to_overwrite_it(tmp_path: Path) -> None:
    assert td_ray(tmp_path, "init").returncode == 0
    assert "models:" in (tmp_path / "experiment.yaml").read_text()
    assert "exists" in refused(tmp_path, "init")


def test_a_plan_elsewhere(zoo: Path) -> None:
    machines = ("--on", "slurm", "--nodes", "2", "--cpus", "4")
    found = json.loads(td_ray(zoo, "plan", "experiment.yaml", *machines, "--json").stdout)
    forecast = found["forecast"]
    assert (forecast["nodes"], forecast["cpus"], forecast["gpus"]) == (2, 4, 0)
    assert forecast["seconds"] == pytest.approx(sum(forecast["stages"].values()))
    assert forecast["seconds"] > 0
    said = td_ray(zoo, "plan", "experiment.yaml", *machines).stdout
    assert "2 nodes of 4 CPUs" in said
    assert "'td-ray bench costs' measures yours" in " ".join(said.split())
    assert not (zoo / "output").exists()
    assert "name it with --on" in refused(zoo, "plan", "experiment.yaml", "--nodes", "2")
    assert "did you mean 'slurm'" in refused(zoo, "plan", "experiment.yaml", "--on", "slrum")
    assert "--cpus" in refused(zoo, "plan", "experiment.yaml", "--on", "slurm")
    (zoo / "mine.json").write_text("[]")
    line = refused(zoo, "plan", "experiment.yaml", "--on", "local", "--calibration", "mine.json")
    assert "'td-ray bench costs' writes a new one" in line


def test_plan_run_status_matrix_report(zoo: Path) -> None:
    plan = td_ray(zoo, "plan", "experiment.yaml", "--json")
    assert json.loads(plan.stdout)["missing"] == 8
    assert not (zoo / "output").exists()
    ran = td_ray(zoo, "run", "experiment.yaml", "--backend", "inline")
    assert ran.returncode == 0, ran.stderr
    assert "heads: 8 of 8" in ran.stderr
    assert td_ray(zoo, "status", "experiment.yaml").stdout.strip() == "8 finished"
    status = td_ray(zoo, "status", "output", "--json")
    assert json.loads(status.stdout) == {
        "finished": 8,
        "failed": 0,
        "missing": 0,
        "unknown": 0,
        "failures": [],
        "left": [],
    }
    shown = td_ray(zoo, "matrix", "output", "--task", "species")
    assert shown.returncode == 0
    assert "floor" in shown.stdout
    assert "net-3" in shown.stdout
    page = td_ray(zoo, "report", "experiment.yaml")
    assert page.returncode == 0, page.stderr
    assert (zoo / "output/report.html").is_file()


def test_matrices_in_all_formats(zoo: Path) -> None:
    td_ray(zoo, "run", "experiment.yaml", "--backend", "inline")
    written = td_ray(zoo, "matrix", "output", "--task", "species", "--format", "csv")
    (zoo / "matrix.csv").write_text(written.stdout)
    from_csv = pd.read_csv(zoo / "matrix.csv", index_col=0)
    arguments = ["--task", "species", "--format", "parquet", "--output", "matrix.parquet"]
    assert td_ray(zoo, "matrix", "output", *arguments).returncode == 0
    from_parquet = pd.read_parquet(zoo / "matrix.parquet")
    pd.testing.assert_frame_equal(from_csv, from_parquet, check_names=False)
    assert list(from_csv) == ["net-0", "net-1", "net-2", "net-3", "floor"]
    assert from_csv["floor"].notna().all()
    grouped = td_ray(zoo, "matrix", "output", "--task", "species", "--by", "kind")
    assert grouped.stdout.splitlines()[1].split() == ["floor", "net"]


def test_lists_of_models_tasks_and_cache(zoo: Path) -> None:
    td_ray(zoo, "run", "experiment.yaml", "--backend", "inline")
    assert "checkpoints" in td_ray(zoo, "models").stdout
    assert "sklearn" in td_ray(zoo, "tasks").stdout
    assert td_ray(zoo, "models", "experiment.yaml").stdout.count("net-") == 4
    assert "regression" in td_ray(zoo, "tasks", "experiment.yaml").stdout
    assert "4 arrays" in td_ray(zoo, "cache", "experiment.yaml").stdout
    assert "4 arrays" in td_ray(zoo, "cache", "experiment.yaml", "--clear").stdout
    assert "0 arrays" in td_ray(zoo, "cache", "experiment.yaml").stdout


def test_a_family_takes_few_lines(zoo: Path) -> None:
    write_features(
        zoo / "features/bad-0.npz", [f"s{n:03d}" for n in range(SAMPLES)], [[np.nan]] * SAMPLES
    )
    family = {"name": "coin", "data": "points", "family": {"kind": "signs", "count": 200}}
    save(zoo, tasks=[*content()["tasks"], family], seeds=0)
    listed = td_ray(zoo, "tasks", "experiment.yaml").stdout.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [
        ["species", "1"],
        ["size", "1"],
        ["coin", "200"],
    ]
    assert len(td_ray(zoo, "tasks", "experiment.yaml", "--all").stdout.splitlines()) == 203
    plan = td_ray(zoo, "plan", "experiment.yaml").stdout
    assert "202: 2 alone, 200 of coin" in plan
    assert "1,010: 1,010 to do" in plan
    fewer = ["--set", "tasks.coin.family.count=20"]
    assert td_ray(zoo, "run", "experiment.yaml", "--backend", "inline", *fewer).returncode == 3
    status = td_ray(zoo, "status", "experiment.yaml", *fewer).stdout.splitlines()
    assert status[0] == "88 finished, 22 failed"
    assert [line.split(" (features)")[0] for line in status[1:4]] == [
        "failed: bad-0 species",
        "failed: bad-0 size",
        "failed: bad-0 coin (20 tasks)",
    ]
    (why,) = status[4:]
    assert why.startswith("22 failed: for the reasons above; 'td-ray run --retry-failed'")


def test_overrides(zoo: Path) -> None:
    plan = td_ray(zoo, "plan", "experiment.yaml", "--json", "--set", "seeds=7")
    assert json.loads(plan.stdout)["heads"] == 8 * 15


def test_a_run_on_some_examples(zoo: Path) -> None:
    assert td_ray(zoo, "run", "experiment.yaml", "--backend", "inline").returncode == 0
    fewer = ["run", "experiment.yaml", "--backend", "inline", "--examples", "20"]
    ran = td_ray(zoo, *fewer)
    assert ran.returncode == 0, ran.stderr
    assert "heads:" not in ran.stderr
    assert (pd.read_parquet(zoo / "output/results/pairs")["n_examples"] == 20).all()
    assert "12 there already, on 20 samples each" in td_ray(zoo, "plan", "output").stdout
    assert "no task predicts more than 48" in refused(zoo, *fewer[:-1], "1000")


def test_recorded_failures_end_with_3_and_are_named(zoo: Path) -> None:
    ids = pd.read_csv(zoo / "points.csv")["id"]
    write_features(zoo / "features/bad-0.npz", ids, np.full((SAMPLES, 2), np.nan))
    ran = td_ray(zoo, "run", "experiment.yaml", "--backend", "inline")
    assert ran.returncode == 3
    assert "failed: bad-0 species (features): model 'bad-0'" in ran.stderr
    assert "Traceback" not in ran.stderr
    min((zoo / "output/parts/heads").glob("*/*.parquet")).unlink()
    status = td_ray(zoo, "status", "experiment.yaml").stdout
    assert "7 finished, 2 failed, 2 missing" in status
    assert "NaN" in status
    assert re.search(r"^left: net-\d (species|size) \(heads\)$", status, re.MULTILINE)
    assert re.search(r"^left: pairs of (species|size) \(pairs\)$", status, re.MULTILINE)
    assert "2 missing: not done yet" in status
    printed = td_ray(zoo, "status", "experiment.yaml", "--json").stdout
    table = pd.read_parquet(zoo / "output/results/failures")
    assert json.loads(printed)["failures"] == table.to_dict("records")


def test_a_run_that_fails_ends_with_1(zoo: Path) -> None:
    ids = pd.read_csv(zoo / "points.csv")["id"]
    for number in range(4):
        write_features(zoo / f"features/net-{number}.npz", ids, np.full((SAMPLES, 2), np.nan))
    ran = td_ray(zoo, "run", "experiment.yaml", "--backend", "inline")
    assert ran.returncode == 1
    assert ran.stderr.strip().splitlines()[-1].startswith("td-ray: all 8 units failed")


Breaking = Callable[[Path], Any]


def relabel(folder: Path, label: str, split: str) -> None:
    """Give the first row of one split a class of its own."""
    table = pd.read_csv(folder / "points.csv")
    table.loc[(table["split"] == split).idxmax(), "species"] = label
    table.to_csv(folder / "points.csv", index=False)


def shorten_labels(folder: Path) -> None:
    pd.read_csv(folder / "points.csv").iloc[:-3].to_csv(folder / "points.csv", index=False)


def rename_ids(folder: Path) -> None:
    with np.load(folder / "features/net-2.npz") as arrays:
        ids, features = arrays["id"].copy(), arrays["features"]
    ids[5] = "who"
    write_features(folder / "features/net-2.npz", ids, features)


def rows_in_order(folder: Path) -> None:
    """Features without ids, one row short."""
    for number in range(4):
        np.save(folder / f"features/net-{number}.npy", np.ones((SAMPLES - (number == 3), 2)))
    models = [{"source": "features", "path": "features/*.npy", "ids": "row-order"}]
    save(folder, models=models)


@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        (lambda folder: save(folder, sedes=3), ["sedes", "did you mean 'seeds'?"]),
        (
            lambda folder: save(
                folder, tasks=[{"name": "t", "data": "points", "tagret": "species"}]
            ),
            ["tasks.0.tagret", "did you mean 'target'?"],
        ),
        (
            lambda folder: save(folder, models=[{"source": "feature", "path": "features/*.npz"}]),
            ["models.0", "unknown model source 'feature'", "did you mean 'features'?"],
        ),
        (
            lambda folder: save(folder, heads=["logistics"]),
            ["heads.0", "unknown head 'logistics'", "did you mean 'logistic'?"],
        ),
        (
            lambda folder: save(folder, models=[{"source": "features", "path": "nowhere/*.npz"}]),
            ["no file matches", "nowhere/*.npz"],
        ),
        (lambda folder: (folder / "points.csv").unlink(), ["no file at", "points.csv"]),
        (lambda folder: (folder / "experiment.yaml").unlink(), ["no file at experiment.yaml"]),
        (
            lambda folder: (folder / "experiment.yaml").write_text("models: [\n"),
            ["experiment.yaml", "not readable as YAML"],
        ),
        (lambda folder: relabel(folder, "dodo", "test"), ["'species'", "'dodo'", "missing from"]),
        (shorten_labels, ["sample ids do not match", "'points'", "3 not in the data set", "s117"]),
        (rename_ids, ["net-2", "1 missing (such as 's005')", "'who'"]),
        (rows_in_order, ["net-3", f"{SAMPLES - 1} rows", f"{SAMPLES} samples"]),
        (
            lambda folder: (folder / "output").mkdir() or (folder / "output/thesis.tex").touch(),
            ["output", "thesis.tex", "choose another folder"],
        ),
        (
            lambda folder: save(folder, heads=[{"kind": "logistic", "l2": 0}, "ridge"]),
            ["heads.0.l2", "greater than 0"],
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    zoo: Path, breaking: Breaking, words: list[str]
) -> None:
    breaking(zoo)
    line = refused(zoo, "plan", "experiment.yaml")
    for word in words:
        assert word in line, line
    assert refused(zoo, "run", "experiment.yaml", "--backend", "inline") == line


def test_another_experiment_in_the_output_is_refused(zoo: Path) -> None:
    assert td_ray(zoo, "run", "experiment.yaml", "--backend", "inline").returncode == 0
    save(zoo, name="other")
    line = refused(zoo, "run", "experiment.yaml", "--backend", "inline")
    assert "holds another experiment, 'small'" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["matrix", "output", "--task", "spices"], "did you mean 'species'?"),
        (["matrix", "output", "--task", "species", "--measure", "dt"], "'td'"),
        (["matrix", "output", "--task", "species", "--by", "knd"], "did you mean 'kind'?"),
        (["matrix", "output", "--task", "species", "--format", "parquet"], "--output"),
        (["matrix", "nowhere", "--task", "species"], "nowhere"),
        (["run", "experiment.yaml", "--set", "seeds"], "expected a.b=value"),
        (["run", "experiment.yaml", "--address", "127.0.0.1:1"], "127.0.0.1:1"),
    ],
)
def test_bad_arguments(zoo: Path, arguments: list[str], words: str) -> None:
    if arguments[0] == "matrix":
        td_ray(zoo, "run", "experiment.yaml", "--backend", "inline")
    assert words in refused(zoo, *arguments)


def test_an_unknown_option_is_refused(zoo: Path) -> None:
    ended = td_ray(zoo, "plan", "experiment.yaml", "--jsn")
    assert ended.returncode == 2
    assert "--json" in ended.stderr


def test_results_read_without_the_experiment_file(zoo: Path) -> None:
    td_ray(zoo, "run", "experiment.yaml", "--backend", "inline")
    moved = zoo / "elsewhere"
    os.rename(zoo / "output", moved)
    assert td_ray(zoo, "matrix", "elsewhere", "--task", "species").returncode == 0

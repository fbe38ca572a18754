"""The benchmarks run, and compare methods of stated quality; how fast is for people to read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from td_ray.bench import measures, pairs, run_benchmarks, sweep
from td_ray.bench.heads import run
from td_ray.bench.heads.cases import L2, digits, seeds_stack, stored, synthetic, targets_stack
from td_ray.bench.heads.growth import growth_rows
from td_ray.bench.heads.logistic import logistic_rows
from td_ray.bench.heads.reference import solve_logistic, solve_ridge
from td_ray.bench.heads.rivals import fit_sklearn, problem
from td_ray.bench.measure import in_fresh_process, peak_growth, timed
from td_ray.bench.sweep.ways import timed_sweep
from td_ray.bench.sweep.zoo import Zoo
from td_ray.errors import InputError, RunError
from td_ray.spec import Experiment
from td_ray.sweep import run as run_sweep

COMMAND = [sys.executable, "-m", "td_ray.cli", "bench"]


def test_heads_are_compared_at_stated_quality() -> None:
    printed: list[str] = []
    found = run_benchmarks("heads", quick=True, progress=printed.append)
    rows = {row["method"]: row for row in found.rows}
    assert rows["td_ray"]["agreement"] == rows["sklearn_matched"]["agreement"] == 1
    assert 1 > rows["sklearn"]["agreement"] > rows["torch_adam"]["agreement"] > 0.5
    assert rows["td_ray"]["heads"] == 32
    assert rows["td_ray"]["heads_compared"] == rows["sklearn"]["heads_compared"] == 3
    assert 0 < rows["td_ray"]["matmul_share"] < 1
    assert rows["td_ray_ridge"]["heads"] == 320
    for method in ("td_ray_ridge", "sklearn_ridge", "sklearn_ridge_all_targets"):
        assert rows[method]["agreement"] == 1
    assert all(row["seconds_per_head"] > 0 and row["benchmark"] == "heads" for row in found.rows)
    assert found.machine["matmul_gflops"] > 0
    assert len(printed) == 2
    assert found.notes[-1] == "left out by --quick: all but the digits"


def test_what_is_left_out_is_said() -> None:
    rows, notes = run(1.0, [], minutes=0.0)
    assert rows == []
    assert "r8-wordllama, fashion-mobilenet" in notes[-2]
    assert "0 minutes were over" in notes[-1]
    assert "digits" in notes[-1]
    assert "growth" in notes[-1]


def test_a_search_that_takes_too_long_gives_no_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("td_ray.bench.heads.logistic.MATCHING_SECONDS", 0.0)
    rows = {row["method"]: row for row in logistic_rows(digits, partial(seeds_stack, heads=3), 1.0)}
    assert rows["sklearn"]["agreement"] < rows["td_ray"]["agreement"]
    assert rows["sklearn_matched"]["seconds_per_head"] is None
    assert rows["sklearn_matched"]["agreement"] is None


def test_growth_doubles_one_size_at_a_time() -> None:
    rows = growth_rows({"n": 100, "d": 8, "C": 2, "heads": 4})
    sizes = [tuple(row[name] for name in ("n", "d", "C", "heads")) for row in rows]
    middle = (100, 8, 2, 4)
    doubled = [tuple(size * (1 + (i == j)) for j, size in enumerate(middle)) for i in range(4)]
    assert sizes == [middle, *doubled]
    for row in rows:
        assert row["times_middle"] == pytest.approx(row["seconds"] / rows[0]["seconds"])


def test_pairs_are_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from td_ray.terminal import print_benchmarks

    monkeypatch.setattr(pairs, "MODELS", dict.fromkeys(pairs.MODELS, 12))
    monkeypatch.setattr(pairs, "CLASSES", (2, 300))
    monkeypatch.setattr(pairs, "GROWTH", (20, 40))
    found = run_benchmarks("pairs")
    methods = [row for row in found.rows if row["case"] == "methods"]
    known = [name for name in pairs.MODELS if name != "td_ray_cuda" or torch.cuda.is_available()]
    assert [(row["classes"], row["method"]) for row in methods] == [
        (classes, method) for classes in (2, 300) for method in known
    ]
    scipy = {
        row["classes"]: row["pairs_per_second"] for row in methods if row["method"] == "scipy_pdist"
    }
    for row in methods:
        ratio = row["pairs_per_second"] / scipy[row["classes"]]
        assert row["times_scipy"] == pytest.approx(ratio)
        assert (row["share_of_peak"] is not None) == (row["method"] == "td_ray")
    growth = [row for row in found.rows if row["case"] == "growth"]
    assert [row["models"] for row in growth] == [20, 40]
    assert all(row["peak_memory_bytes"] >= 0 for row in growth)
    print_benchmarks(found.machine, found.rows, found.notes)
    printed = capsys.readouterr().out
    assert "of peak" in printed
    assert "scipy_pdist" in printed


@pytest.mark.parametrize("there", [True, False])
def test_pairs_are_counted_on_a_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert ("td_ray_cuda" in pairs._methods()) == there
    assert set(pairs._methods()) <= set(pairs.MODELS)


def test_measures_are_compared_with_the_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from td_ray.terminal import print_benchmarks

    monkeypatch.setattr(measures, "EXAMPLES", 60)
    monkeypatch.setattr(measures, "MODELS", 6)
    monkeypatch.setattr(measures, "MODELS_OF_LOOP", 3)
    found = run_benchmarks("measures")  # it checks that both give the same values
    assert [(row["measure"], row["method"], row["models"]) for row in found.rows] == [
        (name, *row) for name in measures.DEFINITIONS for row in (("td_ray", 6), ("naive_loop", 3))
    ]
    for ours, loop in zip(found.rows[::2], found.rows[1::2], strict=True):
        ratio = ours["pairs_per_second"] / loop["pairs_per_second"]
        assert ours["times_naive"] == pytest.approx(ratio)
        assert ours["peak_memory_bytes"] >= 0
    print_benchmarks(found.machine, found.rows, found.notes)
    assert "cka_debiased" in capsys.readouterr().out


@pytest.mark.parametrize("classes", [2, 3])
def test_the_reference_is_the_optimum(classes: int) -> None:
    features = synthetic(classes, 8, rows=200, held_out=1)
    start = np.zeros((classes, 8)), np.zeros(classes)
    weight, intercept = solve_logistic(features.train, features.codes, L2, *start)
    parameters = torch.tensor(np.column_stack([weight, intercept]), requires_grad=True)
    scores = torch.from_numpy(features.train).double() @ parameters[:, :-1].T + parameters[:, -1]
    loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(features.codes))
    (loss + L2 / 2 * parameters[:, :-1].square().sum()).backward()
    assert parameters.grad is not None
    assert float(parameters.grad.abs().max()) < 2e-10
    if classes > 2:  # where scikit-learn's head has a vector per class as well
        model = LogisticRegression(C=1 / (L2 * 200), tol=1e-12, solver="newton-cholesky")
        model.fit(features.train.astype(float), features.codes)
        np.testing.assert_allclose(weight, model.coef_, atol=1e-6)


def test_two_classes_are_the_same_problem_for_scikit_learn() -> None:
    stack = seeds_stack(synthetic(2, 8, rows=400, held_out=1), heads=3)
    half = problem(stack, 1)
    assert len(half.codes) == 200
    head = fit_sklearn(half, tolerance=1e-10, precision="float64")
    found = solve_logistic(half.features, half.codes, L2, head.weight * 0, head.intercept * 0)
    np.testing.assert_allclose(head.weight, found[0], atol=1e-5)
    np.testing.assert_allclose(head.intercept, found[1] - found[1].mean(), atol=1e-5)


def test_the_ridge_reference_is_a_least_squares_solution() -> None:
    random = np.random.default_rng(0)
    x, y, test = (random.standard_normal(shape) for shape in ((30, 4), (30, 2), (5, 4)))
    penalties = np.array([1e-3, 1.0])
    found = solve_ridge(x, y, penalties, test)
    mean, level = x.mean(0), y.mean(0)
    for penalty, predictions in zip(penalties, found, strict=True):
        rows = np.vstack([x - mean, (30 * penalty) ** 0.5 * np.eye(4)])
        weight = np.linalg.lstsq(rows, np.vstack([y - level, np.zeros((4, 2))]))[0]
        np.testing.assert_allclose(predictions, ((test - mean) @ weight + level).T)


def test_stacks() -> None:
    seeds = seeds_stack(synthetic(3, 8, rows=100, held_out=1), heads=6)
    assert seeds.weights[0].all()
    np.testing.assert_array_equal(seeds.weights[1] + seeds.weights[2], 1)
    assert (seeds.weights[1] != seeds.weights[3]).any()
    assert sum(seeds.compared.values()) == pytest.approx(1)
    targets = targets_stack(synthetic(3, 8, rows=100, held_out=1), heads=6)
    assert targets.weights.all()
    assert len(np.unique(targets.codes, axis=0)) == 6
    assert sum(targets.compared.values()) == pytest.approx(1)


def write(folder: Path, **changes: Any) -> Path:
    """A file of features, with changes to its arrays; None leaves one out."""
    arrays = {
        "train": np.eye(4),
        "train_labels": np.array(["b", "a", "b", "a"]),
        "test": np.ones((1, 4)),
        "test_labels": np.array(["b"]),
    } | changes
    path = folder / "mine.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_stored_features(tmp_path: Path) -> None:
    features = stored(write(tmp_path))
    assert features.name == "mine"
    assert features.train.dtype == np.float32
    np.testing.assert_allclose(features.train.mean(0), 0, atol=1e-7)
    assert features.codes.tolist() == [1, 0, 1, 0]
    assert features.test_codes.tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": None}, "needs train"),
        ({"test": np.ones((1, 3))}, "one width"),
        ({"train": np.ones(4)}, "matrices"),
        ({"train": np.full((4, 4), np.nan)}, "NaN"),
        ({"train": np.full((4, 4), "a")}, "numbers"),
        ({"test": np.full((1, 4), np.nan)}, "NaN"),
        ({"train_labels": np.arange(3)}, "label per row"),
        ({"train_labels": np.array(["b", "a", "a", "a"])}, "two classes"),
        ({"test_labels": np.array(["c"])}, "lacks"),
    ],
)
def test_features_that_cannot_be_used(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        stored(write(tmp_path, **changes))
    assert "mine.npz" in str(caught.value)


def test_a_file_that_is_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    path.write_text("not an archive")
    with pytest.raises(InputError, match="npz"):
        stored(path)
    ended = subprocess.run(
        [*COMMAND, "heads", "--features", str(tmp_path / "nowhere")], capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "jobs/bench_features.py" in ended.stderr


def allocate() -> int | None:
    return peak_growth(lambda: float(np.ones(10_000_000).sum()))[1]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_memory_that_was_given_back_is_seen() -> None:
    growth = in_fresh_process(allocate)
    assert growth is not None
    assert 7.5e7 < growth < 1.2e8


def test_timed_takes_the_faster_number_of_threads() -> None:
    usual = torch.get_num_threads()
    used: list[int] = []

    def slow_with_one() -> int:
        used.append(torch.get_num_threads())
        time.sleep(0.05 if used[-1] == 1 else 0)
        return used[-1]

    torch.set_num_threads(2)
    try:
        found = timed(slow_with_one)
        assert (found.result, found.threads, found.runs) == (2, 2, 3)
        assert used == [1, 2, 2, 2]
        assert found.seconds < 0.05
        assert timed(slow_with_one, enough=0.01, threads=1).runs == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(usual)


def test_an_unknown_benchmark_is_refused() -> None:
    ended = subprocess.run([*COMMAND, "haeds"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "did you mean 'heads'?" in ended.stderr


def test_json() -> None:
    printed = subprocess.run(
        [*COMMAND, "pairs", "--json"], capture_output=True, text=True, check=True
    ).stdout
    assert set(json.loads(printed)) == {"machine", "rows"}


def test_the_table_of_heads(capsys: pytest.CaptureFixture[str]) -> None:
    from td_ray.terminal import print_benchmarks

    row = {
        "benchmark": "heads",
        "case": "a case",
        "heads_compared": 3,
        "threads": 2,
        "agreement": 1.0,
        "peak_memory_ratio": None,
    }
    rows = [
        row | {"method": "td_ray", "seconds_per_head": 0.01, "matmul_share": 0.5},
        row | {"method": "sklearn", "seconds_per_head": 0.2},
        row | {"method": "sklearn_matched", "seconds_per_head": None, "agreement": None},
    ]
    print_benchmarks({"cores": 2}, rows, ["a note"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["td_ray", "3", "2", "0.01", "20.0", "1.00000", "-", "50%"] in lines
    assert ["sklearn", "3", "2", "0.2", "1.0", "1.00000", "-", "-"] in lines
    assert ["sklearn_matched", "3", "2", "-", "-", "-", "-", "-"] in lines
    assert ["a", "note"] in lines


def test_extraction_gives_the_features_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    from td_ray.bench import features

    small = features._small()
    case = replace(small, images=small.images[:100], batch=32)
    monkeypatch.setattr(features, "_small", lambda: case)
    monkeypatch.setattr(features, "_mobilenet", lambda: case)
    rows = run_benchmarks("features").rows
    assert {row["method"] for row in rows} == {"td_ray", "plain_loop"}
    assert all(row["difference"] <= features.AGREE_WITHIN for row in rows)
    assert all(row["images_per_second"] > 0 for row in rows)
    assert [r["times_plain_loop"] for r in rows if r["method"] == "plain_loop"] == [1] * (
        len(rows) // 2
    )


def test_features_that_differ_are_no_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    from td_ray.bench import features

    small = features._small()
    case = replace(small, images=small.images[:64], batch=32)
    monkeypatch.setattr(features, "_plain_loop", lambda case: features._td_ray(case) + 1)
    with pytest.raises(AssertionError, match="features differ by 1"):
        features._measure(case)


@pytest.mark.ray
def test_sweeps_are_compared_with_what_users_do_without_ray(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from td_ray.terminal import print_benchmarks

    small = {"samples": 60, "width": 3, "classes": 3, "coarser": 1, "seeds": 1}
    monkeypatch.setattr(sweep, "REAL", small)
    monkeypatch.setattr(sweep, "SECONDS", (0,))
    monkeypatch.setattr(sweep, "EMPTY_MODELS", (1, 3))
    monkeypatch.setattr(sweep, "EMPTY_WAYS", {"inline": "inline_threads"})
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where none is: it is not what is measured
    found = run_benchmarks("sweep")  # it checks that all ways give the same results
    compared, (few, many) = found.rows[:3], found.rows[3:]
    assert [row["method"] for row in compared] == ["ray", "inline_shares", "inline_threads"]
    best = min(row["seconds"] for row in compared[1:])
    for row in compared:
        assert row["models"] == os.cpu_count()
        assert row["efficiency"] == pytest.approx(best / row["seconds"])
    assert [(row["method"], row["models"]) for row in (few, many)] == [("inline", 1), ("inline", 3)]
    slope = (many["seconds"] - few["seconds"]) / 2
    assert (few["seconds_per_unit"], many["seconds_per_unit"]) == (None, pytest.approx(slope))
    print_benchmarks(found.machine, found.rows, found.notes)
    assert "inline_shares" in capsys.readouterr().out


def test_sweeps_with_different_results_are_no_benchmark(tmp_path: Path) -> None:
    zoo = Zoo(tmp_path / "zoo", samples=60, width=3, classes=3, coarser=0, seeds=1)
    zoo.fill(3)
    outputs = []
    for name, models in {"first": (0, 1), "again": (0, 1), "other": (0, 2)}.items():
        experiment = zoo.write_experiment(tmp_path / name, models)
        outputs.append(run_sweep(Experiment.load(experiment), backend="inline").output)
    sweep.require_same(outputs[0], outputs[1])
    with pytest.raises(AssertionError):
        sweep.require_same(outputs[0], outputs[2])


def test_a_sweep_that_fails_is_no_benchmark(tmp_path: Path) -> None:
    zoo = Zoo(tmp_path / "zoo", samples=60, width=3, classes=3, coarser=0, seeds=1)
    zoo.fill(1)
    with pytest.raises(RunError, match=r"exit code 2: .*net-0001.npy"):
        timed_sweep("inline_threads", zoo, 2, 1, tmp_path / "run")

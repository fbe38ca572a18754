"""The benchmarks run, and compare methods of equal quality; how fast is for people to read."""

from __future__ import annotations

import json
import subprocess
import sys

from td_ray.bench import run_benchmarks


def test_benchmarks_compare_at_stated_quality() -> None:
    found = run_benchmarks(["all"])
    assert found["machine"]["cores"] >= 1
    heads = {row["method"]: row for row in found["rows"]["heads"]}
    assert heads["td_ray"]["agreement"] >= heads["sklearn"]["agreement"] > 0.99
    assert heads["td_ray_ridge"]["agreement"] == heads["sklearn_ridge"]["agreement"] == 1
    assert all(row["seconds_per_head"] > 0 for row in heads.values())
    pairs = found["rows"]["pairs"]
    assert {row["method"] for row in pairs} == {"td_ray", "scipy_pdist"}
    assert {row["classes"] for row in pairs} == {2, 10, 100}


def test_an_unknown_benchmark_is_refused() -> None:
    command = [sys.executable, "-m", "td_ray.cli", "bench", "haeds"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "did you mean 'heads'?" in ended.stderr


def test_json() -> None:
    command = [sys.executable, "-m", "td_ray.cli", "bench", "pairs", "--json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert set(json.loads(printed)) == {"machine", "rows"}

"""What work costs is measured on small cases here; and one forecast is compared with its run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from td_ray.bench import costs, run_benchmarks
from td_ray.bench.costs import fits, networks, pairs, runs
from td_ray.costs import read_calibration
from td_ray.measures import Measure
from td_ray.registry import HEAD_KINDS, MEASURES
from td_ray.terminal import print_benchmarks


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small cases, in this process."""
    sizes = {"samples": 100, "width": 4, "classes": 3, "coarser": 1, "seeds": 1}
    monkeypatch.setattr(fits, "ZOOS", (sizes, {**sizes, "width": 9}))
    monkeypatch.setattr(networks, "CASES", (("mobilenet_v3_small", 32), ("resnet18", 32)))
    monkeypatch.setattr(networks, "ENOUGH", 0.0)
    shape = {"models": 4, "classes": 3, "examples": 60, "seeds": 1}
    monkeypatch.setattr(pairs, "SHAPES", (shape,))
    monkeypatch.setattr(pairs, "OF_PROBABILITIES", ({**shape, "seeds": 0},))
    monkeypatch.setattr(pairs, "WIDTHS", (4,))
    monkeypatch.setattr(pairs, "FEATURE_MODELS", 3)
    monkeypatch.setattr(pairs, "STORED_MODELS", (2, 8))
    monkeypatch.setattr(networks, "LOADED", ("mobilenet_v3_small",))
    monkeypatch.setattr(costs, "_pool", lambda: ThreadPoolExecutor(1))
    monkeypatch.setattr(costs, "_processes", lambda: 2)


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps that take 7 s and 2 for each model, 4 s more where Ray is started, 3 and 1 inline."""

    @contextmanager
    def nodes(*_: Any) -> Iterator[str]:
        yield "there"

    def timed(
        way: str, zoo: Any, models: int, cores: int, folder: Path, address: str = "local"
    ) -> tuple[float, Path]:
        (folder / "output").mkdir(parents=True)
        (folder / "output/part.parquet").write_bytes(b"." * (500 + 30 * models))
        if way == "inline_threads":
            return 3.0 + models, folder / "output"
        return 7.0 + 4 * (address == "local") + 2 * models, folder / "output"

    monkeypatch.setattr(runs, "timed_sweep", timed)
    monkeypatch.setattr(runs, "simulated_nodes", nodes)


@pytest.mark.usefixtures("small", "sweeps")
def test_everything_gets_a_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "calibration.json"
    found = run_benchmarks("costs", calibration=path)
    measured = read_calibration(path)
    assert (measured.start, measured.start_ray) == (pytest.approx(7), pytest.approx(4))
    assert (measured.trial, measured.unit) == (pytest.approx(2), pytest.approx(1))
    assert measured.unit_bytes == pytest.approx(30)
    assert set(measured.cpu.heads) == set(HEAD_KINDS.names())
    assert measured.array > 0
    assert measured.load > 0
    assert measured.pair_bytes > 0
    of_labels = set()
    for name in MEASURES.names():
        measure = MEASURES.get(name)
        if name != "mimic" and (
            not isinstance(measure, Measure) or "classification" in measure.kinds
        ):
            of_labels.add(name)
    assert set(measured.measures) == of_labels
    for row in found.rows:
        assert row["seconds"] > 0
        assert row.get("off_by", 1.0) > 0
    print_benchmarks(found.machine, found.rows, found.notes)
    assert "mobilenet_v3_small" in capsys.readouterr().out


SCRIPT = """
import json
from td_ray.bench import forecasts, run_benchmarks
from td_ray.costs.calibration import ORDINARY
from td_ray.terminal import print_benchmarks

if __name__ == "__main__":
    forecasts.REAL = {"samples": 60, "width": 3, "classes": 3, "coarser": 1, "seeds": 1}
    forecasts._cases = lambda: [forecasts.Case("arrays", forecasts._arrays, 4, 2, 2)]
    found = run_benchmarks("plan", calibration=ORDINARY)
    print_benchmarks(found.machine, found.rows, found.notes)
    print(json.dumps(found.rows))
"""


@pytest.mark.ray
def test_a_forecast_is_compared_with_its_run() -> None:
    """In a process of its own, since two nodes are simulated beside the Ray that tests share."""
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240, check=True
    )
    (row,) = json.loads(ran.stdout.splitlines()[-1])
    assert (row["case"], row["machines"]) == ("arrays, 4 models", "2 nodes of 1 core")
    assert row["off_by"] == pytest.approx(row["forecast"] / row["seconds"])
    assert row["mib"] > 0
    assert "arrays, 4" in ran.stdout

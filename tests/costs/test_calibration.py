"""Files of unit costs, and GPUs that nobody has measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from td_ray.costs import (
    DATA_SHEETS,
    Counts,
    find_calibration,
    find_gpu,
    from_data_sheet,
    own_calibration,
    read_calibration,
)
from td_ray.costs.calibration import ORDINARY
from td_ray.errors import InputError
from td_ray.measures import Measure
from td_ray.registry import HEAD_KINDS, MEASURES


def test_the_calibration_of_the_package_has_everything() -> None:
    found = read_calibration(ORDINARY)
    assert set(found.cpu.heads) == set(HEAD_KINDS.names())
    measures = [MEASURES.get(name) for name in MEASURES.names()]
    regression = {
        each.name
        for each in measures
        if isinstance(each, Measure) and "classification" not in each.kinds
    }
    assert set(found.measures) == set(MEASURES.names()) - regression - {"mimic"}
    assert "float32" in found.cpu.networks


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    found = read_calibration(ORDINARY)
    found.write(tmp_path / "there/calibration.json")
    assert read_calibration(tmp_path / "there/calibration.json") == found


def test_the_one_that_is_given_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("given", "own"):
        marked = read_calibration(ORDINARY).model_copy(update={"machine": name})
        marked.write(tmp_path / f"{name}.json")
    monkeypatch.delenv("TD_RAY_CALIBRATION", raising=False)
    assert find_calibration(None, tmp_path) == read_calibration(ORDINARY)
    (tmp_path / "own.json").rename(own_calibration(tmp_path))
    assert find_calibration(None, tmp_path).machine == "own"
    given = tmp_path / "given.json"
    assert find_calibration(given, tmp_path).machine == "given"
    monkeypatch.setenv("TD_RAY_CALIBRATION", str(given))
    assert find_calibration(None, tmp_path).machine == "given"
    monkeypatch.setenv("TD_RAY_CALIBRATION", str(tmp_path / "none.json"))
    with pytest.raises(InputError, match=r"none\.json"):
        find_calibration(None, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "cannot be read"),
        ({"trial": -1}, "trial: .*greater than or equal to 0"),
        ({"cpu": {}}, "cpu.networks: Field required"),
        ({"cpu": {"networks": {}, "heads": {}}}, "cpu: .*float32"),
        ({"measures": {"td": {"gigaflop": "fast"}}}, "measures.td.gigaflop"),
        ({"speed": 1}, "speed: Extra inputs"),
        ({"start": float("nan")}, "start: .*finite"),
        ({"measures": {}}, "'measures' has no 'td'"),
    ],
)
def test_damaged_calibrations_are_named(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "calibration.json"
    content = json.loads(ORDINARY.read_text())
    path.write_text(change if isinstance(change, str) else json.dumps({**content, **change}))
    with pytest.raises(InputError, match=message) as error:
        read_calibration(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "sheet"),
    [
        ("a100", "a100"),
        ("nvidia-a100-sxm4-80gb", "a100"),
        ("NVIDIA_H100_80GB_HBM3", "h100"),
        ("tesla_t4", "t4"),
        ("a10g", "a10"),
        ("l40s", "l40s"),
        ("A100-PCIE-40GB", "a100"),
        ("a100-mig-1g.5gb", None),
        ("rtx", None),
        ("", None),
    ],
)
def test_clusters_call_gpus_many_names(name: str, sheet: str | None) -> None:
    assert find_gpu(name) == sheet


def test_data_sheets_are_taken_by_half() -> None:
    """An A100 multiplies 19.5e12 a second in float32, and moves 2,039e9 bytes."""
    device = from_data_sheet("a100")
    assert device.forward(Counts(19.5e12 / 2), "float32") == pytest.approx(1)
    assert device.forward(Counts(convolved=19.5e12 / 2), "float32") == pytest.approx(1)
    assert device.forward(Counts(bytes=2039e9 / 2), "float32") == pytest.approx(1)
    assert set(device.heads) == set(HEAD_KINDS.names())
    for name in DATA_SHEETS:
        whole, half = (
            from_data_sheet(name).forward(Counts(1e12), precision)
            for precision in ("float32", "float16")
        )
        assert whole > half

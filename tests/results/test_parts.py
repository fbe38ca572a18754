"""Parts: whole, of their unit, one for each run, in a folder of their own experiment."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from small_zoo import (
    experiment,
    planned,
)

from td_ray.errors import InputError
from td_ray.results.parts import name_of_runs, runs_of_name
from td_ray.sweep import run
from td_ray.sweep.progress import Quiet


@pytest.mark.parametrize(
    ("runs", "name"),
    [
        ([None], "full"),
        ([None, 0, 1, 2, 3, 4], "full,0-4"),
        ([3], "3"),
        ([7, 1, 2], "1-2,7"),
    ],
)
def test_names_of_runs(runs: list[int | None], name: str) -> None:
    assert name_of_runs(runs) == name
    assert sorted(runs_of_name(name), key=str) == sorted(runs, key=str)


def test_two_parts_with_the_same_run_are_refused(zoo: Path) -> None:
    wanted = experiment(zoo)
    run(wanted, backend="inline")
    part = next((zoo / "output/parts/heads").glob("*/full,0-1.parquet"))
    part.with_name("0.parquet").write_bytes(part.read_bytes())
    with pytest.raises(InputError, match="hold the same run"):
        planned(wanted)


def test_a_part_cut_short_is_not_trusted(zoo: Path) -> None:
    wanted = experiment(zoo)
    run(wanted, backend="inline")
    part = next((zoo / "output/parts/heads").glob("*/*.parquet"))
    part.write_bytes(part.read_bytes()[:-7])
    assert planned(wanted).count("missing") == 1
    run(wanted, backend="inline")
    assert planned(wanted).count("finished") == 8


def test_a_folder_with_another_experiment_is_refused(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    with pytest.raises(InputError, match="holds another experiment, 'small'"):
        planned(experiment(zoo, name="other"))


def test_a_folder_with_other_files_is_refused(zoo: Path) -> None:
    with pytest.raises(InputError, match="holds no td-ray results"):
        planned(experiment(zoo, output="features"))


def test_a_part_of_another_unit_is_refused_by_name(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    for kind, pattern in (("heads", "*/*.parquet"), ("pairs", "*.parquet")):
        one, other = sorted((zoo / "output/parts" / kind).glob(pattern))[:2]
        before = one.read_bytes()
        one.write_bytes(other.read_bytes())
        with pytest.raises(InputError, match=f"{one} is a part of another unit .*; remove it"):
            run(experiment(zoo), backend="inline")
        one.write_bytes(before)
    assert run(experiment(zoo), backend="inline").failures().empty


@pytest.mark.parametrize("kind", ["heads", "pairs", "features"])
def test_one_bit_of_a_part_makes_it_be_written_anew(zoo: Path, kind: str) -> None:
    """Of its data, of its footer, and of the digest itself."""
    wanted = experiment(zoo, measures=["td", "cka"])
    before = run(wanted, backend="inline")
    tables = [before.heads(), before.pairs()]
    part = min((zoo / "output/parts" / kind).rglob("*.parquet"))
    whole = part.read_bytes()
    for place in (7, len(whole) // 2, whole.rindex(b"td-ray-sha256:") + 20, len(whole) - 6):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        part.write_bytes(bytes(damaged))
        said = Said()
        again = run(wanted, backend="inline", reporter=said)
        assert f"{part} was damaged, and is made anew" in said.lines
        assert part.read_bytes() == whole
        for table, same in zip([again.heads(), again.pairs()], tables, strict=True):
            pd.testing.assert_frame_equal(table, same)


class Said(Quiet):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

"""Disks that fill up, may not be written, or vanish: what is finished stays, no unit is blamed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_zoo import experiment, parts_of

from td_ray.errors import InputError, RunError
from td_ray.results.tables import Results
from td_ray.sweep import run
from td_ray.sweep.inline import Inline

TABLES = ("heads", "predictions", "pairs")


@pytest.fixture
def disk(zoo: Path) -> Iterator[Path]:
    """The output folder is a disk of its own, too small for all parts."""
    folder = zoo / "output"
    folder.mkdir()
    # tmpfs counts pages of 4 KiB: the lock, the manifest, the experiment, and some of the parts
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mounting, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def fresh(zoo: Path) -> Results:
    return run(experiment(zoo, output="fresh"), backend="inline")


def same(one: Results, other: Results) -> None:
    for name in TABLES:
        file = f"results/{name}/{name}.parquet"
        assert one.output.read(file) == other.output.read(file), name


def test_a_full_disk_ends_the_run_and_blames_no_unit(zoo: Path, disk: Path) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        run(experiment(zoo), backend="inline")
    there = parts_of(zoo)
    assert 0 < len(there) < 10
    assert not list(disk.rglob("*.tmp"))
    assert not list(disk.glob("parts/failures/*"))
    remount(disk, "size=4m")
    results = run(experiment(zoo), backend="inline")
    after = parts_of(zoo)
    assert {path: after[path] for path in there} == there
    same(results, fresh(zoo))


def test_a_disk_that_may_not_be_written_is_bad_input(zoo: Path, disk: Path) -> None:
    remount(disk, "ro")
    with pytest.raises(InputError, match=r"output: .* cannot be written to: .*Read-only"):
        run(experiment(zoo), backend="inline")


def test_a_disk_that_becomes_read_only_leaves_what_is_there(
    zoo: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remount(disk, "size=4m")
    after_blocks(monkeypatch, lambda: remount(disk, "ro"))
    with pytest.raises(OSError, match="Read-only"):
        run(experiment(zoo), backend="inline")
    there = parts_of(zoo)
    assert len(there) == 8
    monkeypatch.undo()
    remount(disk, "rw")
    (disk / ".lock").unlink()  # the process that could not remove it has not ended
    same(run(experiment(zoo), backend="inline"), fresh(zoo))
    assert {path: parts_of(zoo)[path] for path in there} == there


def test_a_folder_that_vanishes_is_filled_again(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after_blocks(monkeypatch, lambda: shutil.rmtree(zoo / "output"))
    with pytest.raises(RunError, match="8 units neither finished nor recorded as failed"):
        run(experiment(zoo), backend="inline")
    monkeypatch.undo()
    same(run(experiment(zoo), backend="inline"), fresh(zoo))


def after_blocks(monkeypatch: pytest.MonkeyPatch, happens: Any) -> None:
    """Have something happen between heads and pairs."""
    run_blocks = Inline.run_blocks

    def and_then(self: Inline, *given: Any) -> None:
        run_blocks(self, *given)
        happens()

    monkeypatch.setattr(Inline, "run_blocks", and_then)

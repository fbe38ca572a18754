"""One run at a time on one folder: who holds it is named, and a dead owner is followed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event, Thread

import pytest
from small_zoo import experiment

from td_ray.errors import InputError
from td_ray.storage import held, hold, open_folder
from td_ray.storage.hold import Owner
from td_ray.sweep import run

HOLDER = """
import sys, time
from td_ray.storage import held, open_folder
with held(open_folder(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life every 0.1 s, stale after 1 s."""
    monkeypatch.setattr(hold, "SECONDS_BETWEEN_SIGNS", 0.1)
    monkeypatch.setattr(hold, "SECONDS_TO_STALE", 1.0)
    monkeypatch.setattr(hold, "SECONDS_BETWEEN_LOOKS", 0.02)


def elsewhere() -> Owner:
    """An owner whose process cannot be looked for from here."""
    return replace(hold._here(), host="node-7", pid=1234, machine="another", token="its own")


def write_lock(folder: Path, owner: Owner) -> None:
    (folder / ".lock").write_text(json.dumps(asdict(owner)))


def test_a_second_run_is_told_host_process_and_time(zoo: Path) -> None:
    folder = open_folder(zoo / "output")
    pattern = rf"in use by another run \(pid {os.getpid()} on \S+, since 20\d\d-.* UTC\); wait"
    with held(folder, print), pytest.raises(InputError, match=pattern):
        run(experiment(zoo), backend="inline")
    assert not (zoo / "output/.lock").exists()
    assert run(experiment(zoo), backend="inline").failures().empty


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(InputError, match=f"pid {holder.pid}"),
            held(open_folder(tmp_path), print),
        ):
            pass
        holder.kill()
    started = time.monotonic()
    with held(open_folder(tmp_path), print):
        assert time.monotonic() - started < 5


@pytest.mark.usefixtures("quick")
def test_an_owner_elsewhere_that_gives_no_sign_is_followed(tmp_path: Path) -> None:
    write_lock(tmp_path, elsewhere())
    said: list[str] = []
    with held(open_folder(tmp_path), said.append):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert "pid 1234 on node-7" in said[0]
    assert said[0].endswith("waiting for a sign of life, or its end")
    assert "is taken over" in said[1]


@pytest.mark.usefixtures("quick")
def test_an_old_lock_is_taken_over_without_a_wait(tmp_path: Path) -> None:
    write_lock(tmp_path, elsewhere())
    os.utime(tmp_path / ".lock", (0, 0))
    said: list[str] = []
    with held(open_folder(tmp_path), said.append):
        (line,) = said
    assert "is taken over" in line


@pytest.mark.usefixtures("quick")
def test_an_owner_elsewhere_that_gives_signs_refuses_others(tmp_path: Path) -> None:
    owner, ended = elsewhere(), Event()
    write_lock(tmp_path, owner)

    def give_signs() -> None:
        while not ended.wait(0.2):
            write_lock(tmp_path, owner)

    thread = Thread(target=give_signs)
    thread.start()
    try:
        with (
            pytest.raises(InputError, match="pid 1234 on node-7"),
            held(open_folder(tmp_path), print),
        ):
            pass
    finally:
        ended.set()
        thread.join()
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == 1234


@pytest.mark.usefixtures("quick")
def test_signs_are_given_and_a_loss_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    lock = tmp_path / ".lock"
    with held(open_folder(tmp_path), said.append):
        first = lock.stat().st_mtime_ns
        wait_for(lambda: lock.stat().st_mtime_ns != first)
        write_lock(tmp_path, elsewhere())
        wait_for(lambda: bool(said))
    assert said == [f"warning: {tmp_path} was taken over by another run, as this one gave no sign"]
    assert lock.exists()  # it is the other run's


def wait_for(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

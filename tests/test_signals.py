"""Real processes are told to end: within seconds, with a code and one line that say by what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from processes import head_parts, is_alive, start, title, wait_for, wait_for_parts
from small_zoo import content, experiment, write_zoo

from td_ray import yaml_files
from td_ray.cli.signals import ended_by_signals
from td_ray.ending import SECONDS_TO_END, SIGNALS, descendants
from td_ray.sweep import run

MODELS = 16
SECONDS = 10.0
CALL_INTO_C = """
import hashlib
from pathlib import Path
from subprocess import Popen

from td_ray.cli.signals import ended_by_signals
from td_ray.files import atomic, scratch_folder
from td_ray.storage import held, open_folder

with (
    ended_by_signals(),
    held(open_folder("output"), print),
    atomic(Path("beside.json")),
    scratch_folder() as scratch,
):
    Path("scratch").write_text(str(scratch))
    for name in ("parts/.a.parquet.x.tmp", ".tune-0.tmp/state.json", "parts/b.parquet"):
        Path("output", name).parent.mkdir(exist_ok=True)
        Path("output", name).touch()
    child = Popen(["sh", "-c", "sleep 600 & echo ready; sleep 600"], start_new_session=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # an hour in which no handler runs
"""
FULL_STDERR = """
import os
import time

from td_ray.cli.signals import ended_by_signals

with ended_by_signals():
    os.set_blocking(2, False)
    try:
        while True:
            os.write(2, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(2, True)
    print("ready", flush=True)
    time.sleep(600)
"""


def line_of(number: signal.Signals) -> str:
    kept = "what had finished is kept, and the same command goes on from here"
    return f"td-ray: ended by {number.name}; {kept}\n"


@contextmanager
def started(script: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            for pid in [*descendants(process.pid), process.pid] if process.poll() is None else []:
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["process", "group"])
def test_a_call_into_c_ends_and_leaves_nothing_half_done(
    number: signal.Signals, send: Callable[[int, int], None], tmp_path: Path
) -> None:
    with started(CALL_INTO_C, tmp_path) as process:
        children = descendants(process.pid)
        assert len(children) >= 2
        send(process.pid, number)
        output, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, output, errors) == (128 + number, "", line_of(number))
    assert not [pid for pid in children if is_alive(pid)]
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"output", "output/parts", "output/parts/b.parquet", "scratch"}
    assert not Path((tmp_path / "scratch").read_text()).exists()


def test_an_ending_that_hangs_is_ended_by_a_second_signal_or_by_time(tmp_path: Path) -> None:
    with started(FULL_STDERR, tmp_path) as told_once, started(FULL_STDERR, tmp_path) as told_twice:
        told = time.monotonic()
        for process in (told_once, told_twice):
            process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        assert told_twice.poll() is None
        told_twice.send_signal(signal.SIGINT)
        assert told_twice.wait(timeout=1.0) == 130
        assert told_once.poll() is None
        assert told_once.wait(timeout=SECONDS) == 130
        assert SECONDS_TO_END <= time.monotonic() - told <= SECONDS


def test_signals_are_given_back() -> None:
    handlers = [signal.getsignal(number) for number in SIGNALS]
    with ended_by_signals():
        assert not set(handlers) & {signal.getsignal(number) for number in SIGNALS}
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    assert signal.set_wakeup_fd(-1) == -1


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    write_zoo(tmp_path, models=MODELS)
    heads = [{"kind": "logistic", "l2": 1e-4}, "ridge"]
    values = content(heads=heads, resources={"cache": "cache"})
    (tmp_path / "experiment.yaml").write_text(yaml_files.write(values))
    return tmp_path


def ended(folder: Path, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """The run ended by this signal, and all that it had started; its line is the last."""
    mine = descendants(process.pid)
    os.killpg(process.pid, number) if number == signal.SIGUSR1 else process.send_signal(number)
    assert process.wait(timeout=SECONDS) == 128 + number, (folder / "log").read_text()
    assert not [pid for pid in mine if is_alive(pid)]
    assert not list((folder / "output").rglob("*.tmp"))
    log = (folder / "log").read_text()
    assert log.endswith(line_of(number))
    assert "Traceback" not in log
    assert "***" not in log


def head_lost(folder: Path, parts: int) -> dict[Path, tuple[int, int]]:
    """Kill the head of a run's Ray once there are so many parts; returns those at its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
        process = start(folder)
    wait_for_parts(folder, parts, process)
    mine = descendants(process.pid)
    (head,) = [pid for pid in mine if "gcs_server" in title(pid)]
    os.kill(head, signal.SIGKILL)
    assert process.wait(timeout=60) == 1, (folder / "log").read_text()
    assert "the cluster's head at 127.0.0.1:" in (folder / "log").read_text()
    for pid in filter(is_alive, mine):  # they end by themselves, as slowly
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return head_parts(folder)


@pytest.mark.ray
def test_processes_of_ray_take_no_notice_of_sigusr1(ray_session: None) -> None:
    """Slurm sends it to all processes of a job; the run itself is to hear it first."""
    rays = [pid for pid in descendants() if "raylet" in title(pid) or "gcs_server" in title(pid)]
    assert len(rays) >= 2
    for pid in rays:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        assert int(status["SigBlk"], 16) >> (signal.SIGUSR1 - 1) & 1, title(pid)


@pytest.mark.ray
def test_a_run_that_is_told_to_end_at_any_stage_is_finished_by_running_again(zoo: Path) -> None:
    process = start(zoo)
    wait_for(zoo, process, lambda: "connecting" in (zoo / "log").read_text())
    ended(zoo, process, signal.SIGINT)
    process = start(zoo)
    wait_for_parts(zoo, 3, process)
    ended(zoo, process, signal.SIGTERM)
    before = head_parts(zoo)
    assert 3 <= len(before) < 2 * MODELS
    before |= head_lost(zoo, len(before) + 3)
    assert len(before) < 2 * MODELS
    process = start(zoo)
    wait_for(zoo, process, lambda: "pairs: " in (zoo / "log").read_text())
    ended(zoo, process, signal.SIGUSR1)  # to all of its processes, as Slurm sends it
    process = start(zoo)
    assert process.wait(timeout=300) == 0, (zoo / "log").read_text()
    after = head_parts(zoo)
    assert {path: after[path] for path in before} == before
    values = yaml_files.read(zoo / "experiment.yaml")
    undisturbed = run(experiment(zoo, **values | {"output": "inline"}), backend="inline")
    for name in ("heads", "predictions", "pairs"):
        file = f"results/{name}/{name}.parquet"
        assert (zoo / "output" / file).read_bytes() == undisturbed.output.read(file)


def test_without_ray_too(zoo: Path) -> None:
    process = start(zoo, "--backend", "inline")
    wait_for_parts(zoo, 1, process)
    ended(zoo, process, signal.SIGTERM)
    before = head_parts(zoo)
    process = start(zoo, "--backend", "inline")
    assert process.wait(timeout=300) == 0, (zoo / "log").read_text()
    after = head_parts(zoo)
    assert {path: after[path] for path in before} == before

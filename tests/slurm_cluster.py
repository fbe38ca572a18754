"""A real Slurm of two nodes on this machine, with fake GPUs, as Debian's slurm-wlm brings it."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=17101
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
KillWait=10
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port=17111 CPUs=2 RealMemory=4000 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port=17112 CPUs=2 RealMemory=4000 Gres=gpu:2
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""
GPUS = """\
NodeName=n1 Name=gpu File=/dev/tty[1-2]
NodeName=n2 Name=gpu File=/dev/tty[3-4]
"""


def require_slurm() -> None:
    """Skip where no Slurm can be started."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs Debian's slurm-wlm: {', '.join(missing)} is not there")
    if os.geteuid() != 0:
        pytest.skip("starting Slurm's daemons needs root")


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start it; yields the environment in which its commands find it."""
    host = platform.node().partition(".")[0]
    for name in ("state", "spool.n1", "spool.n2"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, host=host))
    (folder / "gres.conf").write_text(GPUS)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    configuration = ["-f", str(folder / "slurm.conf")]
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munge = ["munged", "--foreground", "--force", f"--key-file={key}"]
    for name in ("socket", "pid", "log", "seed"):
        option = name if name == "socket" else f"{name}-file"
        munge.append(f"--{option}={folder}/munge.{name}")
    with ExitStack() as daemons:
        daemons.enter_context(_running(munge, folder))
        _wait(lambda: (folder / "munge.socket").exists(), "munged", folder)
        daemons.enter_context(_running(["slurmctld", "-D", *configuration], folder))
        for node in ("n1", "n2"):
            daemons.enter_context(_running(["slurmd", "-D", "-N", node, *configuration], folder))
        _wait(lambda: _idle_nodes(environment) == 2, "nodes", folder)
        try:
            yield environment
        finally:
            subprocess.run(["scancel", "--me"], env=environment, timeout=30)
            _wait(lambda: not _jobs(environment), "end of jobs", folder)


def _jobs(environment: dict[str, str]) -> str:
    command = ["squeue", "--noheader", "--states=all", "--format=%i %T"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True).stdout
    ended = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT")
    return "".join(line for line in found.splitlines() if not line.endswith(ended))


def _idle_nodes(environment: dict[str, str]) -> int:
    command = ["sinfo", "--noheader", "--Node", "--states=idle", "--format=%N"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    return len(found.stdout.split())


def _wait(is_there: Callable[[], bool], what: str, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not is_there():
        logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))
        assert time.monotonic() < deadline, f"no {what}:\n{logs}"
        time.sleep(0.2)


@contextmanager
def _running(command: list[str], folder: Path) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

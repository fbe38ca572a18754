"""Ways of sweeping a zoo on all cores of a machine: real processes, from start to exit.

    ray              td-ray run --backend ray, a thread for each trial
    inline_shares    an inline process for each core, with a share of the models; their parts are
                     copied into the first one's output, where one more compares all pairs
    inline_threads   one inline process, whose fits have a thread for each core

The last two are what a user without Ray can do with the same program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from td_ray.bench.sweep.zoo import Zoo
from td_ray.errors import RunError

Way = Callable[[Zoo, int, int, Path, str], Path]
"""Sweeps so many models of a zoo on so many cores, in an empty folder, with the Ray at an address
where it needs one; returns the output."""


def ray(zoo: Zoo, models: int, cores: int, folder: Path, address: str) -> Path:
    """On a Ray; on ``local``, the run starts and ends it."""
    output = folder / "output"
    _finish([_start(zoo.write_experiment(output, range(models)), "ray", address=address)])
    return output


def inline_threads(zoo: Zoo, models: int, cores: int, folder: Path, address: str) -> Path:
    """In one process."""
    output = folder / "output"
    experiment = zoo.write_experiment(output, range(models))
    _finish([_start(experiment, "inline", f"resources.cpus_per_trial={cores}")])
    return output


def inline_shares(zoo: Zoo, models: int, cores: int, folder: Path, address: str) -> Path:
    """In a process for each core, and one more."""
    size = -(-models // cores)
    shares = {
        folder / f"share-{start}": range(start, min(start + size, models))
        for start in range(0, models, size)
    }
    first, *others = shares
    _finish([_start(zoo.write_experiment(*share), "inline") for share in shares.items()])
    for share in others:
        shutil.copytree(share / "parts", first / "parts", dirs_exist_ok=True)
    _finish([_start(zoo.write_experiment(first, range(models)), "inline")])
    return first


WAYS: dict[str, Way] = {
    "ray": ray,
    "inline_shares": inline_shares,
    "inline_threads": inline_threads,
}


def timed_sweep(
    way: str, zoo: Zoo, models: int, cores: int, folder: Path, address: str = "local"
) -> tuple[float, Path]:
    """Sweep with an empty cache and an empty output.

    Args:
        folder: is made for it.
        address: of the Ray that is used, where one is; by default the run starts it.

    Returns:
        Seconds from the start of the first process to the end of the last, and the output.

    Raises:
        RunError: a process failed.
    """
    folder.mkdir()
    started = time.perf_counter()
    output = WAYS[way](zoo, models, cores, folder, address)
    return time.perf_counter() - started, output


def _start(
    experiment: Path, backend: str, *overrides: str, address: str = "local"
) -> subprocess.Popen[str]:
    """Start ``td-ray run``; a cluster that the environment names is not used."""
    command = [sys.executable, "-m", "td_ray.cli", "run", str(experiment), "--backend", backend]
    for each in ("resources.cache=cache", *overrides):
        command += ["--set", each]
    environment = {**os.environ, "RAY_ADDRESS": address}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _finish(processes: Sequence[subprocess.Popen[str]]) -> None:
    ended = [(process.communicate()[1], process.returncode) for process in processes]
    for said, code in ended:
        if code:
            last = (said.strip().splitlines() or ["it said nothing"])[-1]
            raise RunError(f"a sweep of the benchmark ended with exit code {code}: {last}")

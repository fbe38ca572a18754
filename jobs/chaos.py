"""A sweep whose processes are killed at random, again and again, and then compared.

    python jobs/chaos.py [--rounds 20] [--seed 0] [--models 24] [--json]

A Ray cluster of a head and two nodes is started on this machine, with a token of its own. Small
networks are compared on handwritten digits by `td-ray run`, over and over, each time from nothing:
features, heads, pairs. In every round one process is killed (SIGKILL) at a random time:

    driver   the run itself; the same command is given again
    worker   one that extracts, fits heads or compares pairs
    cache    the actor that hands out a node's features
    node     a node with all that is on it; another one joins

A run that was not killed has to end well by itself. When a sweep is finished, all its parts and
tables are compared with those of one that nobody disturbed, and what was done twice is counted.

Exit codes: 0 all equal and nothing lost, 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from td_ray.ending import descendants

KINDS = ("driver", "worker", "cache", "node")
TABLES = ("models", "tasks", "samples", "heads", "predictions", "pairs", "comparisons", "failures")
NODES = 2
SECONDS_BETWEEN_KILLS = 12.0
"""At most; a kill that finds no process of its kind waits for one."""

EXPERIMENT = """\
name: chaos
models:
  - source: checkpoints
    path: zoo/net-*.safetensors
    factory: td_ray.demo.networks:small_convnet
data:
  - {name: digits, source: sklearn, dataset: digits, stratify: label}
tasks:
  - {name: digit, data: digits, target: label}
  - name: loops
    data: digits
    target: label
    classes: {none: [1, 2, 3, 4, 5, 7], one: [0, 6, 9], two: [8]}
heads:
  - {kind: logistic, l2: 1e-4}
  - {kind: ridge, l2: 1e-3, targets: [classification]}
measures: [td, error_consistency, cka]
seeds: 4
resources: {tile: 8, device: cpu}
"""


@dataclass
class Outcome:
    """What came of the rounds.

    Attributes:
        kills: processes that were killed, by kind.
        sweeps: finished ones; ``units`` is what there was to do in them.
        lost: units without a part or with a failure at the end.
        repeated: units that were worked on to their end twice or more.
        redone: parts that were finished when the driver was killed, and were written again.
        differing: files of finished sweeps that are not those of the undisturbed one.
        ends: how runs ended that were not killed, by exit code.
    """

    kills: Counter[str] = field(default_factory=Counter)
    sweeps: int = 0
    units: int = 0
    lost: int = 0
    repeated: int = 0
    redone: int = 0
    differing: list[str] = field(default_factory=list)
    ends: Counter[int] = field(default_factory=Counter)

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, done twice for nothing, or different."""
        return not (self.lost or self.redone or self.differing or set(self.ends) - {0})


class Machine:
    """A Ray cluster on this machine, whose nodes come and go."""

    def __init__(self, scratch: Path) -> None:
        from ray.cluster_utils import Cluster

        self._scratch, self._number = scratch, 0
        self._cluster = Cluster()
        self._cluster.add_node(num_cpus=0, include_dashboard=False)
        self._nodes: list[Any] = []
        for _ in range(NODES):
            self.add_node()

    @property
    def address(self) -> str:
        """Of the head."""
        return str(self._cluster.address)

    def add_node(self) -> None:
        """A node of one CPU, with a cache of its own."""
        self._number += 1
        cache = str(self._scratch / f"cache-{self._number}")
        node = self._cluster.add_node(num_cpus=1, env_vars={"TD_RAY_CACHE": cache}, wait=False)
        self._nodes.append(node)

    def kill_node(self, draw: random.Random) -> None:
        """Kill a node, and have another one join."""
        node = self._nodes.pop(draw.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self.add_node()

    def workers(self) -> list[int]:
        """Processes of Ray that do work of ours."""
        ours = [pid for pid in descendants() if title(pid).startswith("ray::")]
        return [pid for pid in ours if not is_cache(pid) and not title(pid).startswith(_IDLE)]

    def caches(self) -> list[int]:
        """Processes of cache actors."""
        return [pid for pid in descendants() if is_cache(pid)]

    def shutdown(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


_IDLE = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")


def is_cache(pid: int) -> bool:
    """Whether a process is a cache actor."""
    return title(pid).startswith("ray::") and "FeatureCache" in title(pid)


def title(pid: int) -> str:
    """How a process calls itself; empty of one that is no more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").strip("\0 ")
    except OSError:
        return ""


def write_zoo(folder: Path, models: int) -> None:
    """Networks whose weights were drawn, each from its own seed, and the experiment."""
    from safetensors.torch import save_file
    from torch import manual_seed

    from td_ray.demo.networks import small_convnet

    (folder / "zoo").mkdir(parents=True)
    for number in range(models):
        manual_seed(number)
        save_file(small_convnet().state_dict(), folder / f"zoo/net-{number:03d}.safetensors")
    (folder / "experiment.yaml").write_text(EXPERIMENT)


def start(folder: Path, output: str, *options: str) -> subprocess.Popen[bytes]:
    """A run into an output folder; what it says goes to a log."""
    command = [sys.executable, "-m", "td_ray.cli", "run", "experiment.yaml"]
    command += ["--set", f"output={output}", *options]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def last_of_log(folder: Path) -> str:
    """The last lines of what runs have said."""
    return "\n".join((folder / "log").read_text(errors="replace").splitlines()[-40:])


def parts_of(output: Path) -> dict[str, tuple[int, bytes]]:
    """Finished parts by name: when each was written, and its bytes."""
    files = (output / "parts").rglob("[!.]*.parquet")
    return {
        str(path.relative_to(output)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in files
    }


def attempts_of(output: Path) -> Counter[str]:
    """How often each unit was worked on to its end."""
    records = (json.loads(path.read_text()) for path in (output / "parts/timings").glob("*.json"))
    return Counter(f"{record['stage']} {record['unit']}" for record in records)


def compare(output: Path, undisturbed: Path, outcome: Outcome) -> None:
    """Compare a finished sweep with the one that nobody disturbed."""
    import pandas as pd

    wanted, found = parts_of(undisturbed), parts_of(output)
    outcome.sweeps += 1
    outcome.units += len(wanted)
    outcome.lost += len(wanted.keys() - found.keys())
    outcome.lost += len(pd.read_parquet(output / "results/failures/failures.parquet"))
    outcome.repeated += sum(count > 1 for count in attempts_of(output).values())
    same = {name for name in wanted.keys() & found.keys() if wanted[name][1] == found[name][1]}
    outcome.differing += sorted((wanted.keys() | found.keys()) - same)
    for name in TABLES:
        file = f"results/{name}/{name}.parquet"
        if (output / file).read_bytes() != (undisturbed / file).read_bytes():
            outcome.differing.append(file)


def kill(kind: str, run: subprocess.Popen[bytes], machine: Machine, draw: random.Random) -> bool:
    """Kill a process of a kind as soon as there is one; False where the run ends before."""
    find = {"worker": machine.workers, "cache": machine.caches}.get(kind)
    while run.poll() is None:
        if kind == "node":
            machine.kill_node(draw)
            return True
        pids = [run.pid] if find is None else find()
        for pid in draw.sample(pids, min(1, len(pids))):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            return True
        time.sleep(0.02)
    return False


def wait(run: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait so long; whether the run has ended by itself."""
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def disturb(
    folder: Path,
    machine: Machine,
    kinds: Sequence[str],
    draw: random.Random,
    say: Callable[[str], None],
) -> Outcome:
    """Run sweeps, and kill a process of each kind in turn, until all were killed."""
    outcome, waiting, number = Outcome(), list(kinds), 0
    while waiting:
        number += 1
        output = f"sweep-{number}"
        finished: dict[str, tuple[int, bytes]] = {}
        run = start(folder, output, "--address", machine.address)
        while True:
            if waiting and not wait(run, draw.uniform(0, SECONDS_BETWEEN_KILLS)):
                kind = waiting[0]
                if kill(kind, run, machine, draw):
                    waiting.pop(0)
                    outcome.kills[kind] += 1
                    say(f"{len(kinds) - len(waiting)} of {len(kinds)}: killed {kind} in {output}")
                if kind == "driver":
                    run.wait()
                    finished |= parts_of(folder / output)
                    run = start(folder, output, "--address", machine.address)
                continue
            run.wait()
            break
        outcome.ends[run.returncode] += 1
        if run.returncode:
            raise RuntimeError(f"{output} ended with {run.returncode}:\n{last_of_log(folder)}")
        now = parts_of(folder / output)
        outcome.redone += sum(now[name] != before for name, before in finished.items())
        compare(folder / output, folder / "undisturbed", outcome)
        say(f"{output}: finished and compared")
        shutil.rmtree(folder / output)
        for cache in folder.glob("cache-*"):
            shutil.rmtree(cache, ignore_errors=True)
    return outcome


def drawn_kinds(rounds: int, draw: random.Random) -> list[str]:
    """The kinds of so many rounds: each as often as the others, in a random order."""
    kinds = [KINDS[number % len(KINDS)] for number in range(rounds)]
    draw.shuffle(kinds)
    return kinds


@contextmanager
def own_environment() -> Iterator[None]:
    """A token for the cluster of this job, and for those who use it; one thread in each process.

    Ray gives each worker one. With more, sums are rounded in another order, and measures of
    features differ in their last digits.
    """
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    own["OMP_NUM_THREADS"] = "1"
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def chaos(folder: Path, rounds: int, seed: int, models: int, say: Callable[[str], None]) -> Outcome:
    """Write the zoo, run it undisturbed in one process, then disturb it on a cluster."""
    draw = random.Random(seed)
    write_zoo(folder, models)
    with own_environment():
        if start(folder, "undisturbed", "--backend", "inline").wait():
            raise RuntimeError(f"the undisturbed run failed:\n{last_of_log(folder)}")
        say("undisturbed: finished")
        machine = Machine(folder)
        try:
            return disturb(folder, machine, drawn_kinds(rounds, draw), draw, say)
        finally:
            machine.shutdown()


def table(outcome: Outcome) -> str:
    """The outcome as people read it."""
    rows = {
        "rounds": outcome.kills.total(),
        **{f"  killed: {kind}": outcome.kills[kind] for kind in KINDS},
        "sweeps finished": outcome.sweeps,
        "units in them": outcome.units,
        "units lost": outcome.lost,
        "parts written again": outcome.redone,
        "units finished twice": outcome.repeated,
        "parts or tables that differ": len(outcome.differing),
    }
    return "\n".join(f"{name:<30}{value:>8,}" for name, value in rows.items())


def main() -> None:
    """Read the arguments, and say what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()

    def say(text: str) -> None:
        print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="td-ray-chaos-") as folder:
        outcome = chaos(Path(folder), asked.rounds, asked.seed, asked.models, say)
    print(json.dumps(vars(outcome)) if asked.json else table(outcome))
    for name in outcome.differing:
        print(f"differs: {name}", file=sys.stderr)
    sys.exit(0 if outcome.is_good else 1)


if __name__ == "__main__":
    main()

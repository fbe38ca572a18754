"""Features in a file, and the memory that a process of its own takes to fit heads on them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

_BEGIN = """
import numpy as np, torch
from td_ray.heads.rows import ScaledRows
from td_ray.heads.scaling import fit_scaling

def peak():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0]) * 1024

torch.set_num_threads(1)
{warm}
raw = torch.from_numpy(np.load({path!r}, mmap_mode="c"))
features = ScaledRows(raw, None, fit_scaling(raw, "column"))
{given}
open("/proc/self/clear_refs", "w").write("5")  # from here on; all of the map is resident already
before = peak()
{fit}
print(peak() - before - ({result}))
"""


def write_features(path: Path, n: int, d: int) -> None:
    """A map of (n, d) float32, written a part at a time."""
    mapped = np.lib.format.open_memmap(path, "w+", np.float32, (n, d))
    rng = np.random.default_rng(0)
    for rows in np.array_split(np.arange(n), 20):
        mapped[rows] = rng.standard_normal((len(rows), d), np.float32)
    mapped.flush()


def bytes_of_fit(
    path: Path, *, warm: str, given: str, fit: str, result: str, with_holes: bool
) -> int:
    """Bytes that a fit takes at its peak, less those of its result.

    Args:
        path: of the features, which code knows as ``features``.
        warm: code that loads what a fit loads.
        given: code that makes its other arguments.
        fit: the code that is measured.
        result: bytes that it leaves, as an expression.
        with_holes: whether holes count that the allocator leaves between large blocks, or only
            what is alive.
    """
    script = _BEGIN.format(path=str(path), warm=warm, given=given, fit=fit, result=result)
    no_holes = {} if with_holes else {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    environment = {**os.environ, **no_holes}
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return int(run.stdout)

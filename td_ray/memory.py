"""How much memory this process may use: what the machine has, and what its control groups leave.

A control group (Linux; Slurm jobs, containers, systemd units) bounds the memory of its processes.
The bound of every group from the process's own up to the root applies, so the smallest counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

GROUPS_OF_PROCESS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")

MOST = 2 * 2**30


def default_memory(groups_of_process: Path = GROUPS_OF_PROCESS, groups: Path = GROUPS) -> int:
    """Bytes for temporaries if nobody says: 2 GiB, or a quarter of this process's memory if less.

    Args:
        groups_of_process: as for `process_memory`.
        groups: as for `process_memory`.
    """
    return min(MOST, process_memory(groups_of_process, groups) // 4)


def process_memory(groups_of_process: Path = GROUPS_OF_PROCESS, groups: Path = GROUPS) -> int:
    """Bytes of memory that this process may use: the machine's, or its control groups' if less.

    Args:
        groups_of_process: the file that names the groups of this process, `hierarchy:controllers:
            path` a line (see cgroups(7)). Where there is none, as on macOS, no group binds.
        groups: where the groups' folders are mounted.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if not groups_of_process.exists():
        return physical
    lines = groups_of_process.read_text().splitlines()
    return min([physical, *(limit for line in lines for limit in _limits(line, groups))])


def _limits(line: str, groups: Path) -> Iterator[int]:
    """The memory limits that one line of the process's groups leads to."""
    _, controllers, path = line.split(":", 2)
    if not controllers:  # version 2; beside version 1 it is mounted one folder deeper
        mounts, name = [groups, groups / "unified"], "memory.max"
    elif "memory" in controllers.split(","):
        mounts, name = [groups / "memory", groups / controllers], "memory.limit_in_bytes"
    else:
        return
    # In a container the path may be the host's: then only the mount's own folder is there to read.
    # A group outside the process's namespace is shown by "..", and is not mounted either.
    inner = PurePosixPath(path.lstrip("/"))
    folders = [] if ".." in inner.parts else [inner, *inner.parents]
    for mount in mounts:
        for folder in {mount, *(mount / part for part in folders)}:
            if (file := folder / name).is_file() and (text := file.read_text().strip()) != "max":
                yield int(text)

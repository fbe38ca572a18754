"""Memory of this process: made-up control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from td_ray.memory import default_memory, process_memory

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MIB = 2**20
# What the kernel says where version 1 has no limit.
UNLIMITED = str(2**63 - 4096)


def write(root: Path, process: str, limits: dict[str, str]) -> tuple[Path, Path]:
    """The arguments: a process in these groups, and limits by file below the mount."""
    (root / "cgroup").write_text(process)
    groups = root / "groups"
    groups.mkdir()
    for name, limit in limits.items():
        path = groups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(limit + "\n")
    return root / "cgroup", groups


V2 = "0::/job/step\n"
V1 = "9:cpu,cpuacct:/job\n4:hugetlb,memory:/job/step\n1:name=systemd:/\n0::/\n"


@pytest.mark.parametrize(
    ("process", "limits", "expected"),
    [
        (V2, {}, PHYSICAL),
        (V2, {"job/step/memory.max": "max", "job/memory.max": "max"}, PHYSICAL),
        (V2, {"job/step/memory.max": str(10 * MIB), "job/memory.max": str(20 * MIB)}, 10 * MIB),
        (V2, {"job/step/memory.max": "max", "job/memory.max": str(20 * MIB)}, 20 * MIB),
        # In a container the folders of the host's path are not there.
        (V2, {"memory.max": str(30 * MIB)}, 30 * MIB),
        ("0::/\n", {"memory.max": str(30 * MIB)}, 30 * MIB),
        ("0::/../outside\n", {"memory.max": str(30 * MIB)}, 30 * MIB),
        # A neighbour's limit is not ours.
        (V2, {"other/memory.max": str(MIB), "job/step/deeper/memory.max": str(MIB)}, PHYSICAL),
        (V2, {"job/memory.max": str(2 * PHYSICAL)}, PHYSICAL),
        # Both versions at once: version 2 is mounted one deeper.
        (V2, {"unified/job/memory.max": str(40 * MIB)}, 40 * MIB),
        (V1, {"memory/job/step/memory.limit_in_bytes": UNLIMITED}, PHYSICAL),
        (V1, {"memory/job/memory.limit_in_bytes": str(50 * MIB)}, 50 * MIB),
        (V1, {"hugetlb,memory/job/step/memory.limit_in_bytes": str(50 * MIB)}, 50 * MIB),
        (V1, {"memory/memory.limit_in_bytes": str(60 * MIB)}, 60 * MIB),
        (V1, {"cpu/job/memory.limit_in_bytes": str(MIB)}, PHYSICAL),
    ],
)
def test_the_smallest_limit_that_applies_counts(
    tmp_path: Path, process: str, limits: dict[str, str], expected: int
) -> None:
    assert process_memory(*write(tmp_path, process, limits)) == expected


def test_without_control_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert process_memory(tmp_path / "absent", tmp_path) == PHYSICAL


@pytest.mark.parametrize("limit", [400 * MIB, 8 * 2**30, PHYSICAL])
def test_the_default_is_a_quarter_but_at_most_2_gib(tmp_path: Path, limit: int) -> None:
    files = write(tmp_path, V2, {"job/memory.max": str(limit)})
    assert default_memory(*files) == min(2 * 2**30, limit // 4, PHYSICAL // 4)


def test_of_this_process() -> None:
    assert 0 < process_memory() <= PHYSICAL
    assert default_memory() == min(2 * 2**30, process_memory() // 4)

"""What became of processes that were lost, in words; and work that goes on without them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

ATTEMPTS_IN_A_ROW = 3
"""Units of one group whose processes are lost, one after the other, before the rest is given up."""

REMEDY = (
    "give each process more room: a larger resources.memory, or more resources.cpus_per_trial, so "
    "that fewer share a node"
)

Group = TypeVar("Group")
Unit = TypeVar("Unit")

_NODE = re.compile(r"was ([\d.]+ ?[KMGT]?B) used / ([\d.]+ ?[KMGT]?B) limit")
_PROCESS = re.compile(r"Selected to kill: .*?actual memory used=([\d.]+)GB")


def words_of(error: str, remedy: str) -> str:
    """What became of a process, in one line.

    Args:
        error: what Ray says of it.
        remedy: what helps against a lack of memory.
    """
    node = _NODE.search(error)
    if node is None:
        last = (error.strip().splitlines() or ["Ray does not say why"])[-1]
        return f"its process was lost too often: {last}"
    sizes = [float(size) for size in _PROCESS.findall(error)]
    own = f", {max(sizes):g}GB of it by this process" if sizes else ""
    return (
        f"its process was ended too often, since its node ran out of memory ({node[1]} of "
        f"{node[2]} used{own}); {remedy}"
    )


def run_until_ended(
    groups: Sequence[Group],
    size_of: Callable[[Group], int],
    run: Callable[[Sequence[Group]], Sequence[tuple[int, str]]],
    left_of: Callable[[Group], Sequence[Unit]],
    give_up: Callable[[Sequence[Unit], str], None],
) -> None:
    """Have every unit end, though some take their processes with them.

    Args:
        groups: of units, which one process works through in their order; none has ended yet.
        size_of: the number of a group's units.
        run: works on groups; returns the places of those whose processes were lost too often, with
            what Ray says of the last.
        left_of: units of a group that have neither a part nor a failure, in their order.
        give_up: writes down the failures of units.
    """
    waiting, in_a_row = list(groups), Counter[int]()
    before = {id(group): size_of(group) for group in waiting}
    while waiting:
        again = []
        for place, error in run(waiting):
            group = waiting[place]
            left = left_of(group)
            if len(left) < before[id(group)]:
                in_a_row[id(group)] = 0
            else:  # all attempts ended at the first of them
                in_a_row[id(group)] += 1
                give_up(left if in_a_row[id(group)] == ATTEMPTS_IN_A_ROW else left[:1], error)
            before[id(group)] = len(left_of(group))
            if before[id(group)]:
                again.append(group)
        waiting = again

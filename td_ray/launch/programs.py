"""Calls of the programs that come with a scheduler."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from td_ray.errors import InputError

_LOG = re.compile(r"[EIW]\d{4} \d\d:\d\d:")
"""A line of kubectl's log, which repeats what it says in the end."""

SECONDS = 120.0
"""In which a program must have answered."""


def answer(command: Sequence[str], where: str, given: str | None = None) -> str:
    """What a program prints.

    Args:
        where: on which machines it is there, for who runs it elsewhere.
        given: for it to read.

    Raises:
        InputError: there is no such program, or it fails; with what it says.
    """
    try:
        ended = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=SECONDS
        )
    except FileNotFoundError:
        raise InputError(f"there is no '{command[0]}' on this machine: {where}") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"'{command[0]}' gave no answer for {SECONDS:g} s; is it up?") from None
    if ended.returncode:
        lines = (ended.stderr or ended.stdout).splitlines()
        said = [line for line in lines if line.strip() and not _LOG.match(line)]
        raise InputError(f"{command[0]}: {'; '.join(said[-3:]) or 'it failed and says nothing'}")
    return ended.stdout

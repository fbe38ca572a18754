"""What a submitted job asks a cluster for."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, Field

from td_ray.errors import InputError
from td_ray.registry import closest
from td_ray.spec.entries import Frozen, Name

TARGETS = ("local", "slurm", "kubernetes", "ray")
"""Where jobs can run, as ``--on`` names it; a cluster's jobs API is named by its address."""

_TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?")


def _seconds(value: Any) -> Any:
    """``[days-]hours:minutes[:seconds]``, or a number of seconds."""
    if not isinstance(value, str) or value.isdecimal():
        return value
    found = _TIME.fullmatch(value.strip())
    if found is None:
        raise ValueError(
            f"'{value}' is no time; write hours:minutes:seconds, with days as in 2-12:00:00"
        )
    days, hours, minutes, seconds = (int(each or 0) for each in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


class Cluster(Frozen):
    """What ``td-ray submit`` asks a scheduler for; never changes a result.

    All but ``nodes`` and ``time`` is for each node. What is not said is the cluster's default.
    ``gpu_type`` is what the cluster calls a kind of GPU; ``time`` is in seconds. ``options`` are
    for the scheduler as they stand, such as ``constraint=ib`` for Slurm.
    """

    nodes: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    gpu_type: Name | None = None
    cpus: Annotated[int, Field(ge=1)] | None = None
    memory: ByteSize | None = None
    time: Annotated[Annotated[int, Field(ge=60)] | None, BeforeValidator(_seconds)] = None
    partition: Name | None = None
    account: Name | None = None
    options: tuple[Name, ...] = ()


def require_target(name: str) -> None:
    """Refuse what is not a target's name.

    Raises:
        InputError: it is none.
    """
    if name not in TARGETS and not name.startswith(("http://", "https://")):
        raise InputError(
            f"--on {name}: no such target; {closest(name, TARGETS)} The jobs API of a Ray cluster "
            "is named by its address, such as http://127.0.0.1:8265"
        )

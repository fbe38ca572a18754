"""What work may use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ByteSize, Field

from td_ray.spec.entries import FolderPlace, Frozen


class Resources(Frozen):
    """What one piece of work may use; never changes a result beyond the stated bound.

    ``memory`` is for what a trial takes beyond its mapped features; by default 2 GiB, or a quarter
    of what its process may use if that is less. ``tile`` is how many models a side of a tile of
    pairs has; by default 128, or as many as that memory holds the predictions of.

    ``cache`` is where this machine keeps features; the URL of a folder in an object store is shared
    by all machines, which have copies of what they use in their own.

    ``time_limit`` is in seconds: how long the heads of one model, task and kind may take, or a tile
    of pairs, or a forward pass from one batch to the next. What takes longer is taken to hang: its
    process is ended, and that unit has failed.
    """

    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    gpus_per_trial: Annotated[float, Field(ge=0)] = 0.0
    gpus_per_extraction: Annotated[float, Field(ge=0)] = 0.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    memory: ByteSize | None = None
    cache: FolderPlace | None = None
    cache_size: ByteSize = ByteSize(50 * 2**30)
    tile: Annotated[int, Field(ge=1)] | None = None
    time_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 6 * 3600.0

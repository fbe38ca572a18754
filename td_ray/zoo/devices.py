"""Which device a network runs on."""

from __future__ import annotations

import torch

from td_ray.errors import MachineError


def find_device(name: str) -> str:
    """Return ``cpu`` or ``cuda`` for the ``device`` of an experiment.

    Raises:
        MachineError: ``cuda`` where there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError("resources.device is 'cuda', and torch sees no CUDA device; say 'auto'")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name

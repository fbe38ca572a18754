"""Libraries that only some sources need: looked for while planning, imported while working."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from td_ray.errors import InputError


def require_library(library: str, source: str) -> None:
    """Look for an optional library without importing it.

    Raises:
        InputError: it is not installed; the message says how to get it.
    """
    if find_spec(library) is None:
        raise InputError(
            f"models, source '{source}' needs the library {library}: pip install 'td-ray[{source}]'"
        )


def torch_checkpoints() -> Path:
    """Where torch keeps weights, as `torch.hub.get_dir` has it, which takes a second to import."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = os.environ.get("TORCH_HOME") or Path(cache) / "torch"
    return Path(home).expanduser() / "hub/checkpoints"

"""Libraries that only some sources need: looked for while planning, imported while working."""

from __future__ import annotations

from importlib.util import find_spec

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

"""The command line; thin. Exit codes: 0 complete, 1 failed, 2 bad input, 3 with failures."""

from __future__ import annotations

import sys
import warnings
from typing import Any

# They register their commands, in the order in which help lists them.
from td_ray.cli import running, reading, listing  # isort: skip  # noqa: F401
from td_ray.cli.app import app
from td_ray.errors import InputError, TdRayError


def _one_line(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"td-ray: warning: {message}", file=sys.stderr)


def main() -> None:
    """Entry point of ``td-ray``: errors become one line and an exit code; warnings, one line."""
    warnings.showwarning = _one_line
    try:
        app()
    except TdRayError as error:
        print(f"td-ray: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"td-ray: {error}; what had finished is kept", file=sys.stderr)
        sys.exit(1)

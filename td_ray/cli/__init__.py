"""The command line; thin. Exit codes: 0 complete, 1 failed, 2 bad input, 3 with failures."""

from __future__ import annotations

import sys
import warnings
from io import TextIOWrapper
from typing import Any

# They register their commands, in the order in which help lists them.
from td_ray.cli import running, jobs, reading, listing  # isort: skip  # noqa: F401
from td_ray.cli.app import app
from td_ray.errors import InputError, TdRayError
from td_ray.printable import printable

LONGEST_LINE = 4000
"""Of an error, in characters."""


def _one_line(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")


def _say(text: str) -> None:
    line = printable(text)
    if len(line) > LONGEST_LINE:  # as where a name of many thousand characters is wrong
        line = f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}"
    print(f"td-ray: {line}", file=sys.stderr)


def main() -> None:
    """Entry point of ``td-ray``: errors become one line and an exit code; warnings, one line."""
    warnings.showwarning = _one_line
    if isinstance(sys.stdout, TextIOWrapper):  # what its encoding lacks is shown as an escape
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except TdRayError as error:
        _say(str(error))
        sys.exit(2 if isinstance(error, InputError) else 1)
    except OSError as error:  # a full disk, a folder that may not be written
        _say(f"{error}; what had finished is kept")
        sys.exit(1)

"""A limit on the time of one unit, kept by the process that works on it.

Code that hangs can be ended only with its process. The process is one of Ray's, which starts
another, and that one goes on with the next unit.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

from td_ray.errors import WorkError


class TimeLimit:
    """Ends this process when a unit takes longer than it may, with its failure on record."""

    def __init__(self, seconds: float | None) -> None:
        """Let each unit take so long; None where the process has to stay."""
        self._seconds = seconds
        self._left = 0.0
        self._late: Callable[[WorkError], None] | None = None
        self._timer: Timer | None = None
        self._started = 0.0

    @contextmanager
    def of_unit(self, late: Callable[[WorkError], None]) -> Iterator[None]:
        """Work on one unit.

        Args:
            late: writes down that it took too long.
        """
        if self._seconds is None:
            yield
            return
        self._left, self._late = self._seconds, late
        self._start()
        try:
            yield
        finally:
            self._stop()
            self._late = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Wait for what others do: it does not count."""
        if self._late is None:
            yield
            return
        self._stop()
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        self._started = time.monotonic()
        self._timer = Timer(max(0.0, self._left), self._end)
        self._timer.daemon = True
        self._timer.start()

    def _stop(self) -> None:
        assert self._timer is not None
        self._timer.cancel()
        self._left -= time.monotonic() - self._started

    def _end(self) -> None:
        error = WorkError(
            f"it took longer than {self._seconds:g} s, and its process was ended; if it only needs "
            "more time, give it a larger resources.time_limit"
        )
        try:
            if self._late is not None:
                self._late(error)
            print(f"td-ray: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)


NO_LIMIT = TimeLimit(None)

"""Progress of a run: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from td_ray.printable import printable

SECONDS_BETWEEN_LINES = 10.0
SECONDS_OF_A_RATE = 1.0
"""A bar's rate is that of the last second or more."""


class Reporter(Protocol):
    """Hears what a run does."""

    def stage(self, name: str, total: int) -> None:
        """A stage begins, with so many pieces of work."""

    def advance(self, done: int = 1, failed: int = 0) -> None:
        """Pieces of work ended."""

    def samples(self, count: int) -> None:
        """So many more samples have gone through networks."""

    def say(self, text: str) -> None:
        """One line that is no piece of work."""


class Quiet:
    """Says nothing."""

    def stage(self, name: str, total: int) -> None:
        """Ignore."""

    def advance(self, done: int = 1, failed: int = 0) -> None:
        """Ignore."""

    def samples(self, count: int) -> None:
        """Ignore."""

    def say(self, text: str) -> None:
        """Ignore."""


class _Rate:
    """Things per second, over stretches of time."""

    def __init__(self) -> None:
        self._count, self._since = 0, time.monotonic()

    def of(self, count: int, seconds: float) -> float | None:
        """The rate since it was last told; None while that is less than ``seconds`` ago."""
        self._count += count
        spent = time.monotonic() - self._since
        if spent < seconds:
            return None
        rate = self._count / max(spent, 1e-9)
        self._count, self._since = 0, time.monotonic()
        return rate


class Lines:
    """Plain lines, for logs: at each stage's start and end, and every ten seconds between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._name = ""
        self._total = self._done = self._failed = 0
        self._started = self._last = time.monotonic()
        self._samples, self._rate = 0, _Rate()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage."""
        self._name, self._total, self._done, self._failed = name, total, 0, 0
        self._started = self._last = time.monotonic()
        self._rate = _Rate()
        self.say(f"{name}: {total} to do")

    def advance(self, done: int = 1, failed: int = 0) -> None:
        """Count, and say so now and then."""
        self._done += done + failed
        self._failed += failed
        now = time.monotonic()
        if self._done >= self._total or now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            spent = now - self._started
            left = spent / max(self._done, 1) * (self._total - self._done)
            failures = f", {self._failed} failed" if self._failed else ""
            self.say(
                f"{self._name}: {self._done} of {self._total}{failures}, "
                f"{spent:.0f} s, about {left:.0f} s left"
            )

    def samples(self, count: int) -> None:
        """Say now and then how many there were, and how fast."""
        self._samples += count
        rate = self._rate.of(count, SECONDS_BETWEEN_LINES)
        if rate:
            self.say(f"features: {self._samples} samples, {rate:.0f} samples/s")

    def say(self, text: str) -> None:
        """Write a line."""
        print(printable(text), file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""


class Bar:
    """A bar with an estimate of what is left, for a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._task: TaskID | None = None
        self._failed = 0
        self._rate = _Rate()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def stage(self, name: str, total: int) -> None:
        """Begin a bar."""
        self._failed, self._rate = 0, _Rate()
        self._task = self._progress.add_task(name, total=total, note="")

    def advance(self, done: int = 1, failed: int = 0) -> None:
        """Move the bar."""
        self._failed += failed
        self._show(done + failed, 0.0)

    def samples(self, count: int) -> None:
        """Show how fast they go."""
        rate = self._rate.of(count, SECONDS_OF_A_RATE)
        if rate is not None:
            self._show(0, rate)

    def _show(self, ended: int, rate: float) -> None:
        notes = [f"{self._failed} failed"] * bool(self._failed)
        notes += [f"{rate:.0f} samples/s"] * bool(rate)
        if self._task is not None:
            self._progress.update(self._task, advance=ended, note=", ".join(notes))

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        self._progress.console.print(printable(text), highlight=False, markup=False, emoji=False)


def on_stderr() -> Lines | Bar:
    """A bar where the error stream is a terminal, else lines."""
    if sys.stderr.isatty():
        return Bar(Console(stderr=True))
    return Lines(sys.stderr)

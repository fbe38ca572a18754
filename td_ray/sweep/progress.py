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

SECONDS_BETWEEN_LINES = 10.0


class Reporter(Protocol):
    """Hears what a run does."""

    def stage(self, name: str, total: int) -> None:
        """A stage begins, with so many pieces of work."""

    def advance(self, done: int = 1, failed: int = 0) -> None:
        """Pieces of work ended."""

    def say(self, text: str) -> None:
        """One line that is no piece of work."""


class Quiet:
    """Says nothing."""

    def stage(self, name: str, total: int) -> None:
        """Ignore."""

    def advance(self, done: int = 1, failed: int = 0) -> None:
        """Ignore."""

    def say(self, text: str) -> None:
        """Ignore."""


class Lines:
    """Plain lines, for logs: at each stage's start and end, and every ten seconds between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._name = ""
        self._total = self._done = self._failed = 0
        self._started = self._last = time.monotonic()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage."""
        self._name, self._total, self._done, self._failed = name, total, 0, 0
        self._started = self._last = time.monotonic()
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

    def say(self, text: str) -> None:
        """Write a line."""
        print(text, file=self._stream, flush=True)

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

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def stage(self, name: str, total: int) -> None:
        """Begin a bar."""
        self._failed = 0
        self._task = self._progress.add_task(name, total=total, note="")

    def advance(self, done: int = 1, failed: int = 0) -> None:
        """Move the bar."""
        if self._task is not None:
            self._failed += failed
            note = f"{self._failed} failed" if self._failed else ""
            self._progress.update(self._task, advance=done + failed, note=note)

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        self._progress.console.print(text, highlight=False)


def on_stderr() -> Lines | Bar:
    """A bar where the error stream is a terminal, else lines."""
    if sys.stderr.isatty():
        return Bar(Console(stderr=True))
    return Lines(sys.stderr)

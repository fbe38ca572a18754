"""A signal ends a command for good, wherever it is: it becomes another, ``td_ray.ending``.

Nothing has to be brought to an end: what had finished is on disk since it was renamed into place.
So no exception unwinds through Ray, whose processes may be dying of the same signal. To become
another program (``exec``) ends all threads at once, calls into C too, and keeps the process's
number, children and exit code.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import td_ray
from td_ray import ending
from td_ray.ending import SIGNALS
from td_ray.files import unfinished
from td_ray.storage import LOCK, held_now

NO_SIGNAL = 0


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGUSR1 end the process, with exit code 128 and their number.

    A thread reads their numbers from a pipe, into which Python writes them whoever's handlers are
    installed: ``ray.init()`` and Ray Tune bring their own. It waits for calls that do not let other
    threads run, and for nothing else. For the main thread of a process of its own, whose children
    are all its to kill.
    """
    reads, writes = os.pipe()
    os.set_blocking(writes, False)  # as Python wants it
    thread = Thread(target=_wait_for_signals, args=(reads,), daemon=True)
    thread.start()
    ending.adopt_orphans(True)
    handlers = {number: signal.signal(number, _go_on) for number in SIGNALS}
    other_pipe = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(other_pipe)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        ending.adopt_orphans(False)
        os.write(writes, bytes([NO_SIGNAL]))
        thread.join()  # does not return where a signal came first
        os.close(reads)
        os.close(writes)


def _left_over() -> list[str]:
    """What this process would have removed at its end."""
    paths = [str(path) for path in unfinished()]
    for folder in held_now():
        paths += [folder.place] if folder.local is None else [str(folder.local)]
        paths += [] if folder.local is None else [str(folder.local / LOCK)]
    return paths


def _go_on(*_: object) -> None:
    """Do nothing; the thread does."""


def _wait_for_signals(reads: int) -> None:
    """End the process at a signal, or return where none is to come any more."""
    while (number := os.read(reads, 1)[0]) not in SIGNALS:
        if number == NO_SIGNAL:
            return
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # another one waits until its handler is set
    program = [sys.executable, "-P", "-m", ending.__name__, str(int(number))]
    here = {"PYTHONPATH": str(Path(td_ray.__file__).parents[1])}
    with suppress(OSError):  # such as a Python that is no longer there
        os.execve(sys.executable, [*program, *_left_over()], {**os.environ, **here})
    os._exit(128 + number)

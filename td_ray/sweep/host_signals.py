"""Signals belong to the process that a run is part of."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TAKEN = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def children_deaf_to_warnings() -> Iterator[None]:
    """Have processes that are started now take no notice of SIGUSR1, which would end them.

    Slurm sends it to all processes of a job. Ray's would be gone first, and Ray then ends this one.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # children inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def handlers_given_back() -> Iterator[None]:
    """Put the handlers back that Ray replaces, and leaves replaced.

    ``ray.init()`` takes SIGTERM; Tune takes SIGUSR1 and SIGINT, and its handler swallows the next.
    """
    handlers = {number: signal.getsignal(number) for number in TAKEN}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None:  # else it is not Python's
                    signal.signal(number, handler)

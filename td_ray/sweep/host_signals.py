"""Signals belong to the process that a run is part of."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TAKEN = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


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

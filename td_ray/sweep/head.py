"""The head of a cluster, without which Ray ends a run's process; the run says so first."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import ray

SECONDS_BETWEEN_LOOKS = 3.0
LOOKS_IN_VAIN = 2
"""One after the other, before the head is called lost; it may only be busy."""


@contextmanager
def watched_head(say: Callable[[str], None]) -> Iterator[None]:
    """Say once when the head of the cluster that this process uses no longer answers.

    Ray waits a minute for it (``RAY_gcs_rpc_server_reconnect_timeout_s``), then it ends the process
    without unwinding it, with exit code 1 and nothing that a user would understand.
    """
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    ended = Event()
    watch = Thread(target=_watch, args=((host, int(port)), say, ended), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def _watch(head: tuple[str, int], say: Callable[[str], None], ended: Event) -> None:
    in_vain = 0
    while in_vain < LOOKS_IN_VAIN and not ended.wait(SECONDS_BETWEEN_LOOKS):
        try:
            socket.create_connection(head, timeout=SECONDS_BETWEEN_LOOKS).close()
            in_vain = 0
        except OSError:
            in_vain += 1
    if in_vain == LOOKS_IN_VAIN:
        say(
            f"the cluster's head at {head[0]}:{head[1]} does not answer: unless it comes back, Ray "
            "ends this run in about a minute; what had finished is kept, and the same command "
            "goes on from there"
        )

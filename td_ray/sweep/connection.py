"""The way to a Ray: the one that is there, one at an address, or one started for this process."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import ray
from ray._private import ray_constants

from td_ray.errors import InputError
from td_ray.sweep.host_signals import children_deaf_to_warnings, handlers_given_back

SECONDS_TO_ANSWER = 5.0

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they write five files a trial
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's boxes, which verbose=0 leaves
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning in each process
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # else SIGTERM prints a C++ trace, then kills
    "RAY_task_oom_retries": "3",  # by default a task that needs too much memory is retried for ever
    # By default a process that extracts features is gone before the next model comes, and the next
    # one spends seconds on its imports.
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
}


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Use the Ray that is there, or connect to ``address``, or start one for the time being.

    Raises:
        InputError: no cluster answers at the address.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        with handlers_given_back(), _starting() if address == "local" else nullcontext():
            ray.init(
                address=address,
                namespace=f"td-ray-{uuid.uuid4().hex}",
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"no Ray cluster could be used at '{address}': {first}; is the token that "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH names the cluster's?"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _starting() -> Iterator[None]:
    with _on_loopback(), children_deaf_to_warnings():
        yield


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have the Ray that is started now listen on this machine's loopback, and nowhere else.

    Ray does so by itself on macOS and Windows, and elsewhere if this variable, which the processes
    of the new Ray inherit, is 0. This process has read it already, when it imported Ray.
    """
    name, read = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    before = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = read
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def require_answer(address: str | None) -> None:
    """Refuse an address that nothing listens at; Ray itself would try for minutes.

    Raises:
        InputError: nothing answers there.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at '{address}' ({error}); start one, or leave --address out "
            "and unset RAY_ADDRESS"
        ) from None

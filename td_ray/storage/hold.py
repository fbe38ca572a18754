"""One run at a time on one output folder, so that no work is done twice.

The owner writes its name into ``.lock`` and gives a sign of life every 30 seconds by writing it
anew. A lock without one for 5 minutes is stale, and so is that of a process of this machine that is
no more. Nothing but time is lost where two runs come to work side by side after all: parts are
whole or not there, and the same from both.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

from td_ray.errors import InputError
from td_ray.files import one_line
from td_ray.storage.folder import Folder, Stamp

LOCK = ".lock"
SECONDS_BETWEEN_SIGNS = 30.0
SECONDS_TO_STALE = 300.0
SECONDS_BETWEEN_LOOKS = 2.0

Say = Callable[[str], None]

_held: set[Folder] = set()


@dataclass(frozen=True)
class Owner:
    """Who holds a folder.

    Attributes:
        since: when it began to, as people read it.
        machine: names the running system and its process numbers; empty where nothing does.
        started: when the process began, in the system's own ticks.
        token: no other hold has.
    """

    host: str
    pid: int
    since: str
    machine: str
    started: str
    token: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}, since {self.since}"

    @property
    def is_gone(self) -> bool:
        """Whether its process is known to be no more; False where that cannot be known."""
        return (
            bool(self.machine) and self.machine == _machine() and _started(self.pid) != self.started
        )


def held_now() -> list[Folder]:
    """The folders that this process holds."""
    return list(_held)


def _here() -> Owner:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    pid = os.getpid()
    return Owner(platform.node(), pid, now, _machine(), _started(pid), uuid.uuid4().hex)


def _machine() -> str:
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _started(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    return ""


@contextmanager
def held(folder: Folder, say: Say) -> Iterator[None]:
    """Hold a folder for this process.

    Args:
        folder: need not be there yet.
        say: hears of what is waited for or taken over.

    Raises:
        InputError: another run holds it, which the message names; or it cannot be written to.
    """
    me = _here()
    content = json.dumps(asdict(me)).encode()
    while not _create(folder, content):
        ended_with = _wait_for_end(folder, say)
        if folder.stamp(LOCK) == ended_with:  # else another run was faster
            folder.remove(LOCK)
    _held.add(folder)
    ended = Event()
    thread = Thread(target=_give_signs, args=(folder, me, content, ended, say), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError):  # it will be found stale
            if _owner(folder) == me:
                folder.remove(LOCK)
        _held.discard(folder)


def _create(folder: Folder, content: bytes) -> bool:
    try:
        return folder.create(LOCK, content)
    except OSError as error:
        raise InputError(
            f"output: {folder} cannot be written to: {one_line(error)}; choose another folder, or "
            "see to this one"
        ) from None


def _give_signs(folder: Folder, me: Owner, content: bytes, ended: Event, say: Say) -> None:
    while not ended.wait(SECONDS_BETWEEN_SIGNS):
        try:
            if _owner(folder) not in (me, None):
                say(f"warning: {folder} was taken over by another run, as this one gave no sign")
                return
            folder.write(LOCK, content)
        except OSError:
            continue  # whoever writes a part hears of it, and says what is wrong


def _owner(folder: Folder) -> Owner | None:
    """Who holds a folder; None where nobody does, or the lock does not say."""
    try:
        return Owner(**json.loads(folder.read(LOCK)))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _wait_for_end(folder: Folder, say: Say) -> Stamp | None:
    """Return the lock's stamp when nobody holds the folder any more.

    Raises:
        InputError: somebody does.
    """
    owner, seen = _owner(folder), folder.stamp(LOCK)
    if owner is not None and owner.is_gone:
        return seen
    is_here = owner is not None and owner.machine == _machine()
    who = "another run" if owner is None else f"another run ({owner})"
    refusal = f"{folder} is in use by {who}; wait for it, or end it"
    if is_here:
        raise InputError(refusal)
    deadline = time.monotonic() + SECONDS_TO_STALE - _age(folder)
    if time.monotonic() < deadline:
        say(f"{folder} was held by {who}: waiting for a sign of life, or its end")
    while time.monotonic() < deadline:
        stamp = folder.stamp(LOCK)
        if stamp is None:
            return None
        if stamp != seen:
            raise InputError(refusal)
        time.sleep(SECONDS_BETWEEN_LOOKS)
    say(f"{folder} is taken over: {who} gave no sign of life for {SECONDS_TO_STALE / 60:g} minutes")
    return seen


def _age(folder: Folder) -> float:
    """How long ago the last sign was, in seconds of the folder's own clock."""
    probe = f"{LOCK}-{uuid.uuid4().hex}"
    last = folder.stamp(LOCK)
    folder.write(probe, b"")
    try:
        now = folder.stamp(probe)
    finally:
        folder.remove(probe)
    return 0.0 if now is None or last is None else (now.modified - last.modified) / 1e9

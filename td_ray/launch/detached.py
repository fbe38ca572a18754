"""Run a command that outlives whoever started it, with a log and its exit code in a folder.

    python -m td_ray.launch.detached FOLDER COMMAND ...

Prints the number of a process that waits for the command and passes signals on to it. As long as
that process or the command lives it holds a lock on the file ``alive``.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from td_ray.ending import SIGNALS
from td_ray.files import atomic

ALIVE, CODE, LOG = "alive", "code", "log"


def code_of(folder: Path) -> int | None:
    """The exit code that a job has left in its folder; None where it has left none."""
    with suppress(FileNotFoundError, ValueError):
        return int((folder / CODE).read_text())
    return None


def main() -> None:
    """Start the command, and leave it to a process of a session of its own."""
    folder, command = Path(sys.argv[1]), sys.argv[2:]
    alive = (folder / ALIVE).open("w")
    fcntl.flock(alive, fcntl.LOCK_EX)  # both processes hold it after the fork
    if pid := os.fork():
        print(pid, flush=True)
        os._exit(0)
    os.setsid()
    with Path(os.devnull).open("r+") as nothing:
        for descriptor in (0, 1, 2):
            os.dup2(nothing.fileno(), descriptor)
    with (folder / LOG).open("ab") as log:
        # The run holds the lock as well, should this process be killed before it.
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, pass_fds=[alive.fileno()]
        )
    for number in SIGNALS:
        signal.signal(number, lambda number, _: process.send_signal(number))
    code = process.wait()
    with atomic(folder / CODE) as temporary:
        temporary.write_text(f"{code if code >= 0 else 128 - code}\n")


if __name__ == "__main__":
    main()

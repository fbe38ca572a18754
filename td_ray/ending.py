"""What a process becomes when a signal ends it: it ends its children, and what is half done goes.

    python -m td_ray.ending NUMBER [PATH ...]

It is the same process still, with its children. A PATH is what it leaves half done or holds: a file
that is to go, a folder whose temporary files are, or the URL of a folder whose lock is. Small, so
that it starts fast.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from td_ray.files import remove_leftovers

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Of a terminal, of a scheduler, and of Slurm some time before it takes the node away."""

SECONDS_TO_END = 6
"""Then it exits, however far it has come."""

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


def main() -> None:
    """End, within seconds; at once when a second signal comes."""
    number, *paths = sys.argv[1:]
    code = 128 + int(number)
    while signal.sigtimedwait(SIGNALS, 0):
        pass  # sent twice, as by `timeout` to a process and to its group; that is no second signal
    for each in (*SIGNALS, signal.SIGALRM):
        signal.signal(each, lambda *_: os._exit(code))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    signal.alarm(SECONDS_TO_END)
    with suppress(OSError):  # whoever read it may be gone
        start = "\r\x1b[K\x1b[?25h" if os.isatty(2) else ""  # clear a bar, show the cursor again
        name = signal.Signals(int(number)).name
        kept = "what had finished is kept, and the same command goes on from here"
        os.write(2, f"{start}td-ray: ended by {name}; {kept}\n".encode())
    while processes := descendants():
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)
    for path in paths:
        with suppress(OSError):  # the next run tries again
            if "://" in path:
                _let_go(path)
            else:
                remove_leftovers(Path(path))
    os._exit(code)


def _let_go(url: str) -> None:
    """Remove the lock of a folder in an object store, which no end of a process does."""
    from td_ray.storage import LOCK, open_folder

    open_folder(url).remove(LOCK)


def adopt_orphans(yes: bool) -> None:
    """Become the parent of children's children whose parents end, so that they can be found."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0)


def descendants(root: int | None = None) -> list[int]:
    """Processes that one, by default this, started, those that they started, and so on.

    Parents come first.

    Where there is no /proc, none: Ray's processes end there by themselves, some time later.
    """
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # one that has just ended
            state, parent = path.read_text().rsplit(")", 1)[1].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(path.parent.name))
    found = [os.getpid() if root is None else root]
    for process in found:
        found += children.get(process, [])
    return found[1:]


if __name__ == "__main__":
    main()

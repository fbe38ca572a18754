"""Files that appear whole or not at all, and digests that are not computed twice."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from td_ray.errors import InputError, TdRayError

Files = Path | Sequence[Path]
"""One file, or many that belong together and are digested as one, in their order."""

Digest = Callable[[Files], str | None]
"""Gives the digest of files' bytes, or None where it is not known without reading them."""

# What a plan reads by itself: a file that is no larger than this costs it next to nothing.
SMALL_FILE_BYTES = 4 * 2**20

_unfinished: set[Path] = set()
"""Temporary files and folders that this process is writing."""


def fingerprint(value: Any) -> str:
    """Return 32 hexadecimal digits that identify a value made of JSON types."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def sha256(files: Files) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal; of many files, that of theirs."""
    if isinstance(files, Path):
        with files.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for path in files:
        whole.update(sha256(path).encode())
    return whole.hexdigest()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success sync it and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    _unfinished.add(temporary)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=".td-ray-", suffix=".tmp"))
    _unfinished.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unfinished.discard(folder)


def unfinished() -> list[Path]:
    """Temporary files and folders of this process, for ``remove_leftovers``."""
    return list(_unfinished)


def remove_leftovers(path: Path) -> None:
    """Remove a file, a temporary folder, or all that is temporary below another folder.

    Their writers must be gone.
    """
    is_whole = path.is_dir() and not path.name.endswith(".tmp")
    for each in list(path.rglob(".*.tmp")) if is_whole else [path]:
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, keys sorted."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, sort_keys=True, indent=1) + "\n")


def require_file(path: Path, what: str) -> Path:
    """Return ``path`` if it is a file.

    Raises:
        InputError: it is not there; the message names ``what`` needed it.
    """
    if not os.path.isfile(path):  # unlike Path.is_file, it says no to impossible names
        raise InputError(f"{what}: no file at {path}")
    return path


@contextmanager
def reading(path: Path | str, what: str = "") -> Iterator[None]:
    """Turn whatever the reader of a damaged or hostile file raises into one line.

    Raises:
        InputError: the file cannot be read as what its name says; ``what`` names who needed it.
    """
    try:
        yield
    except TdRayError:
        raise
    except Exception as error:  # readers raise far more than they document
        needed = f"{what}: " if what else ""
        raise InputError(f"{needed}{path} cannot be read: {one_line(error)}") from None


def one_line(error: BaseException, longest: int = 400) -> str:
    """An error's text in one line, cut where it goes on and on."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # some libraries colour their errors
    text = " ".join(plain.split()) or type(error).__name__
    return text if len(text) <= longest else text[: longest - 3] + "..."


class DigestMemory:
    """SHA-256 of files, remembered by (path, size, modification time) in the cache folder.

    Files that are asked for together have one record, so that a folder of images is one look-up.
    """

    def __init__(self, root: Path) -> None:
        self._root = root / "digests"

    def known(self, files: Files) -> str | None:
        """Return the digest if it is remembered or the files are small, else None."""
        stamp = _stamp(files)
        remembered = self._remembered(stamp)
        if remembered is None and stamp["size"] <= SMALL_FILE_BYTES:
            return self.computed(files)
        return remembered

    def computed(self, files: Files) -> str:
        """Return the digest, reading the files where it is not remembered."""
        before = _stamp(files)
        remembered = self._remembered(before)
        if remembered is not None:
            return remembered
        digest = sha256(files)
        if _stamp(files) == before:  # what changes while it is read is not remembered
            with suppress(OSError):  # a cache that cannot be written costs time, nothing else
                write_json(self._record(before), {**before, "sha256": digest})
        return digest

    def _record(self, stamp: dict[str, Any]) -> Path:
        return self._root / f"{fingerprint(stamp['path'])}.json"

    def _remembered(self, stamp: dict[str, Any]) -> str | None:
        try:
            record = json.loads(self._record(stamp).read_text())
        except (OSError, ValueError):
            return None
        if not isinstance(record, dict):
            return None
        digest = record.pop("sha256", None)
        return str(digest) if digest and record == stamp else None


def _stamp(files: Files) -> dict[str, Any]:
    """Path, size and modification time; of many files their sum, and digests of the lists."""
    if isinstance(files, Path):
        status = files.stat()
        path = str(files.resolve())
        return {"path": path, "size": status.st_size, "modified": status.st_mtime_ns}
    found = [os.stat(path) for path in files]
    times = [[status.st_size, status.st_mtime_ns] for status in found]
    return {
        "path": fingerprint([os.path.abspath(path) for path in files]),
        "size": sum(status.st_size for status in found),
        "modified": fingerprint(times),
    }

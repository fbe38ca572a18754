"""A folder in which files appear whole or not at all.

On a file system a file is written under a temporary name, synced and renamed. In an object store it
is one PUT (or one upload of several parts, which the store puts together at its end): nobody sees
an object before it is whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow import fs

from td_ray.files import atomic, scratch_folder
from td_ray.storage.addresses import connect, is_url

WITH_BUCKETS = ("s3", "gs", "gcs", "abfs", "abfss")
COPIED_AT_ONCE = 2**23
READERS = 16
"""Requests to an object store at once: each waits for its answer most of the time."""


class Stamp(NamedTuple):
    """What tells one version of a file from another: its size in bytes, its time in ns."""

    size: int
    modified: int


class Folder:
    """Files of one folder by their names, which may have slashes.

    Attributes:
        place: how people call it: a path or a URL.
        local: its path; None in an object store.
        filesystem: for libraries that read through pyarrow.
    """

    def __init__(self, place: str, filesystem: Any, root: str, local: Path | None) -> None:
        self.place, self.filesystem, self.local = place, filesystem, local
        self._root = root

    def __str__(self) -> str:
        return self.place

    def path(self, name: str) -> str:
        """The path of a file in ``filesystem``."""
        return f"{self._root}/{name}" if name else self._root

    def shown(self, name: str) -> str:
        """How people call a file."""
        return f"{self.place.partition('?')[0]}/{name}"

    def has_bucket(self) -> bool:
        """Whether the bucket is there that it is in; True on a file system, which has none."""
        if self.place.partition("://")[0] not in WITH_BUCKETS:
            return True
        info = self.filesystem.get_file_info(self._root.partition("/")[0])
        return bool(info.type != fs.FileType.NotFound)

    def names(self) -> list[str]:
        """The names of what is directly in the folder; none where there is no such folder."""
        return sorted(found.base_name for found in self._find("", recursive=False))

    def stamps(self, under: str) -> dict[str, Stamp]:
        """All files below a folder of it, by name; not those whose names start with a dot."""
        found = self._find(under, recursive=True)
        start = len(self._root.lstrip("/")) + 1
        return {
            info.path.lstrip("/")[start:]: Stamp(info.size, info.mtime_ns or 0)
            for info in found
            if info.type == fs.FileType.File and not info.base_name.startswith(".")
        }

    def stamp(self, name: str) -> Stamp | None:
        """The stamp of a file; None where there is none."""
        info = self.filesystem.get_file_info(self.path(name))
        return Stamp(info.size, info.mtime_ns or 0) if info.type == fs.FileType.File else None

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is none.
        """
        if self.local is not None:
            return (self.local / name).read_bytes()
        with self.filesystem.open_input_file(self.path(name)) as stream:
            return bytes(stream.read())

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """The contents of files, in any number; None for one that is gone."""

        def one(name: str) -> tuple[str, bytes | None]:
            with suppress(FileNotFoundError):
                return name, self.read(name)
            return name, None

        if self.local is not None:
            yield from map(one, names)
            return
        waiting = list(names)
        with ThreadPoolExecutor(READERS) as threads:
            for start in range(0, len(waiting), READERS):  # that few are in memory at once
                yield from threads.map(one, waiting[start : start + READERS])

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        if self.local is not None:
            with atomic(self.local / name) as temporary:
                temporary.write_bytes(content)
            return
        self._put(name, content)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a file of this machine to write to; on success it becomes the file ``name``."""
        if self.local is not None:
            with atomic(self.local / name) as temporary:
                yield temporary
            return
        with scratch_folder() as folder:
            file = folder / "file"
            yield file
            self.upload(file, name)

    def upload(self, file: Path, name: str) -> None:
        """Write a file of this machine, of any size, to the object store."""
        from pyarrow import memory_map

        with memory_map(str(file)) as mapped:
            self._put(name, mapped.read_buffer())

    def download(self, name: str, file: Path) -> None:
        """Copy a file, of any size, into a new one of this machine.

        Raises:
            FileNotFoundError: there is none.
        """
        with (
            self.filesystem.open_input_stream(self.path(name)) as source,
            file.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, COPIED_AT_ONCE)
            target.flush()
            os.fsync(target.fileno())

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that is not there; False where it is.

        On a file system, of two who create it one succeeds. An object store cannot promise that.
        """
        if self.local is None:
            if self.stamp(name) is not None:
                return False
            self._put(name, content)
            return True
        file = self.local / name
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with file.open("xb") as stream:
                stream.write(content)
        except FileExistsError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path(name))

    def _find(self, under: str, *, recursive: bool) -> list[Any]:
        selector = fs.FileSelector(self.path(under), allow_not_found=True, recursive=recursive)
        return list(self.filesystem.get_file_info(selector))

    def _put(self, name: str, content: Any) -> None:
        """Send an object in one call: what fails in it is raised, and leaves no object."""
        stream = self.filesystem.open_output_stream(self.path(name))
        stream.write(content)
        stream.close()


def open_folder(place: str | os.PathLike[str]) -> Folder:
    """Open a folder, which need not be there yet.

    Raises:
        InputError: a URL that names no file system.
    """
    name = os.fspath(place)
    if is_url(name):
        filesystem, root = connect(name)
        return Folder(name.rstrip("/"), filesystem, root, None)
    path = os.path.normpath(name)
    return Folder(path, fs.LocalFileSystem(), os.path.abspath(path), Path(path))

"""The feature cache: one array per (model, layer, data set), found by its content.

    CACHE/features/<key>/features.npy     (samples, width) float32, rows in the data set's order
    CACHE/features/<key>/about.json       whose features, their size, the SHA-256 of their bytes

The key is a fingerprint of all that decides the values. An entry is written beside its place and
renamed into it, so that it is whole or not there. Readers map it; nothing is copied per process.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray import versions
from td_ray.errors import WorkError
from td_ray.files import Digest, fingerprint, sha256, write_json
from td_ray.tasks import DataSet
from td_ray.zoo import NetworkSource, Representation

Features = NDArray[np.float32]

WEEK = 7 * 24 * 3600.0

_DAMAGED = (ValueError, KeyError, TypeError, IndexError)
"""What reading a damaged ``about.json`` may raise."""


def features_key(
    representation: Representation, data: DataSet, folder: Path, digest: Digest
) -> str | None:
    """Return the fingerprint of a representation's features on a data set; None if not known."""
    source = representation.model
    identity = source.identity(folder, data.name, representation.layer, digest)
    inputs = None
    kind = [source.source, representation.layer, "float32"]
    if isinstance(source, NetworkSource):
        if source.pooling != "mean":  # named only then, so that older features keep their key
            kind.append(source.pooling)
        inputs = data.source.inputs_identity(folder, digest)
        if inputs is None and data.samples.inputs is not None:
            return None
    if identity is None:
        return None
    return fingerprint([versions.FEATURES, kind, identity, inputs, data.ids_digest])


@dataclass(frozen=True)
class Entry:
    """One array in the cache.

    Attributes:
        width: of its features.
        bytes: its size on disk.
        used: when it was last asked for, in seconds since the epoch.
    """

    key: str
    model: str
    layer: str
    data: str
    width: int
    bytes: int
    used: float


class FeatureStore:
    """The feature arrays of one cache folder, with a cap on their total size."""

    def __init__(self, cache: Path, cap: int) -> None:
        self._root = cache / "features"
        self._cap = cap
        self._verified: set[str] = set()

    def path(self, key: str) -> Path:
        """The array's file, whether it is there or not."""
        return self._root / key / "features.npy"

    def has(self, key: str) -> bool:
        """Whether an entry is there; its bytes are checked by ``valid``."""
        return self.path(key).is_file() and self._about(key).is_file()

    def valid(self, key: str) -> bool:
        """Whether an entry is there with the bytes that were written; a damaged one is removed."""
        if not self.has(key):
            return False
        try:
            if key not in self._verified and sha256(self.path(key)) != self._written(key):
                self.remove(key)
                return False
            with suppress(PermissionError):  # another user's entry in a shared cache
                os.utime(self._about(key))
        except FileNotFoundError:  # another process has just dropped it
            return False
        self._verified.add(key)
        return True

    def write(
        self, key: str, blocks: Iterable[Features], representation: Representation, data: DataSet
    ) -> None:
        """Write an array block by block.

        Raises:
            WorkError: NaN or infinite values, or another number of rows than the data set has.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=self._root, prefix=f".{key}."))
        try:
            who = f"model '{representation.model_name}' on data set '{data.name}'"
            shape = _write_blocks(place / "features.npy", blocks, data, who)
            about = {
                "model": representation.model_name,
                "layer": representation.layer,
                "data": data.name,
                "shape": shape,
                "sha256": sha256(place / "features.npy"),
            }
            write_json(place / "about.json", about)
            place.chmod(0o755)  # a temporary folder is its owner's alone; the cache is shared
            if not self.has(key):
                self.remove(key)  # what is left of an entry that lost one of its files
            try:
                place.rename(self._root / key)
            except OSError:
                if not self.has(key):  # else another process wrote the same bytes first
                    raise
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def open(self, key: str) -> Features:
        """Map an array; pages are shared between processes, writes stay private."""
        array: Features = np.load(self.path(key), mmap_mode="c", allow_pickle=False)
        return array

    def entries(self) -> list[Entry]:
        """All arrays, the one that was used longest ago first."""
        found = []
        for about in self._root.glob("[!.]*/about.json"):
            with suppress(FileNotFoundError, *_DAMAGED):
                content: dict[str, Any] = json.loads(about.read_text())
                size = (about.parent / "features.npy").stat().st_size
                names = (content["model"], content["layer"], content["data"])
                width, used = content["shape"][1], about.stat().st_mtime
                found.append(Entry(about.parent.name, *names, width, size, used))
        return sorted(found, key=lambda entry: (entry.used, entry.key))

    def evict(self, held: Collection[str]) -> list[str]:
        """Drop what was used longest ago and nobody holds, until the cap is kept."""
        self._clear_leftovers()
        entries = self.entries()
        total = sum(entry.bytes for entry in entries)
        dropped = []
        for entry in entries:
            if total <= self._cap:
                break
            if entry.key not in held:
                self.remove(entry.key)
                dropped.append(entry.key)
                total -= entry.bytes
        return dropped

    def remove(self, key: str) -> None:
        """Remove an entry; processes that have it mapped keep what they see."""
        self._verified.discard(key)
        self._root.mkdir(parents=True, exist_ok=True)
        grave = Path(tempfile.mkdtemp(dir=self._root, prefix=".removed."))
        with suppress(FileNotFoundError):
            (self._root / key).rename(grave / key)
        shutil.rmtree(grave, ignore_errors=True)

    def _about(self, key: str) -> Path:
        return self._root / key / "about.json"

    def _written(self, key: str) -> str | None:
        """The SHA-256 of the bytes that were written; None where the record is damaged."""
        with suppress(*_DAMAGED):
            return str(json.loads(self._about(key).read_text())["sha256"])
        return None

    def _clear_leftovers(self) -> None:
        """Drop what killed processes left half written a week ago or earlier."""
        for place in self._root.glob(".*"):
            with suppress(OSError):
                newest = max(file.stat().st_mtime for file in (place, *place.iterdir()))
                if newest < time.time() - WEEK:
                    shutil.rmtree(place, ignore_errors=True)


def _write_blocks(path: Path, blocks: Iterable[Features], data: DataSet, who: str) -> list[int]:
    """Write blocks of rows into one npy file; returns its shape."""
    done, width = 0, 0
    with path.open("wb") as file:
        for block in blocks:
            if not done:
                width = block.shape[1]
                header = {"descr": "<f4", "fortran_order": False, "shape": (data.n, width)}
                np.lib.format.write_array_header_1_0(file, header)
            if block.ndim != 2 or block.shape[1] != width:
                raise WorkError(
                    f"{who}: features of width {width} at first, later of shape {block.shape}"
                )
            bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
            if len(bad):
                row = done + int(bad[0])
                id_ = data.ids[row] if row < data.n else row
                raise WorkError(f"{who}: NaN or infinite features, first at sample '{id_}'")
            done += len(block)
            if done > data.n:
                break
            file.write(np.ascontiguousarray(block, dtype="<f4").data)
        file.flush()
        os.fsync(file.fileno())
    if done != data.n:
        count = f"{done} or more" if done > data.n else str(done)
        raise WorkError(f"{who}: features of {count} samples, and the data set has {data.n}")
    return [done, width]

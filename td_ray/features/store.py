"""Where feature arrays are kept, and for how long.

Each machine keeps those that it uses, as files that processes map. A shared cache in an object
store has a copy of all of them: what one machine has extracted, others fetch.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import WorkError
from td_ray.features.keys import Pass
from td_ray.features.writing import Writing, workplace
from td_ray.files import sha256
from td_ray.spec import Experiment
from td_ray.storage import Folder

Features = NDArray[np.float32] | NDArray[np.float16]

WEEK = 7 * 24 * 3600.0

_DAMAGED = (ValueError, KeyError, TypeError, IndexError)
"""What reading a damaged ``about.json`` may raise."""


@dataclass(frozen=True)
class Entry:
    """One array in the cache.

    Attributes:
        width: of its features.
        bytes: its size on disk.
        used: when it was last asked for, in seconds since the epoch.
        samples_per_second: at which it was made.
    """

    key: str
    model: str
    layer: str
    data: str
    width: int
    bytes: int
    used: float
    samples_per_second: float


class FeatureStore:
    """The feature arrays of one cache folder, with a cap on their total size.

    The shared cache has no cap: whoever owns the store sets how long it keeps objects.
    """

    def __init__(self, cache: Path, cap: int, shared: Folder | None = None) -> None:
        self._root = cache / "features"
        self._cap = cap
        self._shared = shared
        self._verified: set[str] = set()

    @classmethod
    def of(cls, experiment: Experiment) -> Self:
        """The store that an experiment names."""
        cap = experiment.resources.cache_size
        return cls(experiment.cache_path, cap, experiment.shared_cache)

    def path(self, key: str) -> Path:
        """The array's file, whether it is there or not."""
        return self._root / key / "features.npy"

    def has(self, key: str) -> bool:
        """Whether an entry is there; its bytes are checked by ``valid``."""
        return self.path(key).is_file() and self._about(key).is_file()

    def valid(self, key: str) -> bool:
        """Whether an entry is there with the bytes that were written; a damaged one is removed.

        One that the shared cache has is fetched.
        """
        if not self.has(key) and not self._fetch(key):
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

    @contextmanager
    def writing(self, wanted: Pass) -> Iterator[Writing]:
        """Arrays of a pass, those that are not there yet; others who write them are waited for.

        What is left unfinished by a process that was lost is gone on with.
        """
        with ExitStack() as held:
            places = {}
            for layer, key in sorted(wanted.keys.items(), key=lambda item: item[1]):
                place = held.enter_context(workplace(self._root, key))
                if self.valid(key):
                    shutil.rmtree(place, ignore_errors=True)
                else:
                    places[layer] = place
            writing = Writing(wanted, places)
            unfinished = True  # unless the pass ends, by itself or by the model's own trouble
            try:
                yield writing
                if writing.finished:
                    for layer, entry in writing.entries():
                        self._keep(wanted.keys[layer], entry)
                        self._share(wanted.keys[layer])
                unfinished = not writing.finished
            except WorkError:
                unfinished = False  # gone on with, it would come again
                raise
            finally:
                writing.close(keep=unfinished)

    def _keep(self, key: str, entry: Path) -> None:
        """Move a whole entry to its place."""
        if not self.has(key):
            self.remove(key)  # what is left of an entry that lost one of its files
        try:
            entry.rename(self._root / key)
        except OSError:
            if not self.has(key):  # else another process wrote the same bytes first
                raise

    def _share(self, key: str) -> None:
        """Copy an entry to the shared cache; the digest comes last, and makes it count."""
        if self._shared is not None:
            for file in (self.path(key), self._about(key)):
                self._shared.upload(file, f"features/{key}/{file.name}")

    def _fetch(self, key: str) -> bool:
        """Bring an entry from the shared cache; False where it has none that is whole."""
        if self._shared is None:
            return False
        self._root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._root, prefix=".fetched.") as folder:
            entry = Path(folder) / "entry"
            entry.mkdir()
            try:
                for file in (self._about(key), self.path(key)):
                    self._shared.download(f"features/{key}/{file.name}", entry / file.name)
                written = json.loads((entry / "about.json").read_text())["sha256"]
            except (FileNotFoundError, *_DAMAGED):
                return False
            if sha256(entry / "features.npy") != written:
                return False
            self._keep(key, entry)
        return True

    def shared_keys(self) -> set[str]:
        """Keys of the entries in the shared cache."""
        names = {} if self._shared is None else self._shared.stamps("features")
        return {name.split("/")[1] for name in names if name.endswith("/about.json")}

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
                speed = content["samples"] / max(content["seconds"], 1e-9)
                found.append(Entry(about.parent.name, *names, width, size, used, speed))
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
                newest = max(file.stat().st_mtime for file in (place, *place.rglob("*")))
                if newest < time.time() - WEEK:
                    shutil.rmtree(place, ignore_errors=True)

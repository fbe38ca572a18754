"""Arrays on their way into the store: appended, synced now and then, gone on with after a loss."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import WorkError
from td_ray.features.keys import Pass
from td_ray.files import sha256, write_json
from td_ray.zoo import Storage

SYNC_SECONDS = 10.0
"""What a lost process has done since its last sync is done again."""

NAMED = 5
"""Samples that an error names."""


@contextmanager
def workplace(root: Path, key: str) -> Iterator[Path]:
    """A folder in which one process at a time writes the entry of a key."""
    place = root / f".{key}"
    while True:
        place.mkdir(parents=True, exist_ok=True)
        with (place / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:  # a file system without locks: a place of its own, and no resuming
                place = Path(tempfile.mkdtemp(dir=root, prefix=f".{key}."))
            else:
                if not _is_at(lock, place / "lock"):
                    continue  # whoever held it has finished and removed it
            yield place
            return


def _is_at(lock: IO[str], path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.fstat(lock.fileno()).st_ino == path.stat().st_ino
    return False


class Writing:
    """The arrays of one pass.

    Attributes:
        start: rows that are there already, in all of them.
        errors: of layers that were given up, since what they gave is not features.
        finished: whether all rows are there, and the entries whole.
    """

    def __init__(self, wanted: Pass, places: Mapping[str, Path]) -> None:
        """Go on with what is in the places, by layer."""
        self._wanted, self._places = wanted, dict(places)
        self._arrays = {
            layer: _Array(place, wanted.data.n, wanted.model.storage)
            for layer, place in places.items()
        }
        self.start = min((array.rows for array in self._arrays.values()), default=0)
        for array in self._arrays.values():
            array.cut(self.start)
        self.errors: dict[str, WorkError] = {}
        self.finished = False
        self._synced, self._begun = time.monotonic(), time.monotonic()

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose features are missing and not given up."""
        return tuple(self._arrays)

    def append(self, block: Mapping[str, NDArray[np.float32]]) -> None:
        """Add features (rows, width) of the next samples, by layer.

        A layer with NaN or infinite values, or another width than before, is given up.

        Raises:
            WorkError: no layer is left.
        """
        for layer in self.layers:
            try:
                self._check(layer, block[layer])
            except WorkError as error:
                self.errors[layer] = error
                self._arrays.pop(layer).close()
                shutil.rmtree(self._places[layer], ignore_errors=True)
                if not self._arrays:
                    raise
            else:
                self._arrays[layer].append(block[layer])
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()

    def finish(self) -> None:
        """Make the entries whole.

        Raises:
            WorkError: fewer rows than the data set has samples.
        """
        data, model = self._wanted.data, self._wanted.model
        for layer, array in self._arrays.items():
            if array.rows != data.n:
                raise WorkError(
                    f"{self._wanted.who}: features of {array.rows} samples, and the data set has "
                    f"{data.n}"
                )
            array.sync()
            about = {
                "model": model.name,
                "layer": layer,
                "data": data.name,
                "shape": [array.rows, array.width],
                "seconds": time.monotonic() - self._begun,
                "samples": data.n - self.start,
                "sha256": sha256(array.file),
            }
            write_json(array.file.with_name("about.json"), about)
            array.file.parent.chmod(0o755)  # the cache is shared
        self.finished = True

    def entries(self) -> Iterator[tuple[str, Path]]:
        """The folders of the whole entries, by layer."""
        for layer, array in self._arrays.items():
            yield layer, array.file.parent

    def close(self, *, keep: bool) -> None:
        """Leave; what has been synced stays where it is to be gone on with."""
        for layer, array in self._arrays.items():
            array.close()
            if not keep or not (self._places[layer] / "progress.json").exists():
                shutil.rmtree(self._places[layer], ignore_errors=True)

    def _sync(self) -> None:
        for layer, array in self._arrays.items():
            array.sync()
            progress = {"rows": array.rows, "width": array.width}
            write_json(self._places[layer] / "progress.json", progress)
        self._synced = time.monotonic()

    def _check(self, layer: str, block: NDArray[np.float32]) -> None:
        who, data, array = self._wanted.who, self._wanted.data, self._arrays[layer]
        if block.ndim != 2 or (array.width and block.shape[1] != array.width):
            raise WorkError(
                f"{who}: features of width {array.width} at first, later of shape {block.shape}: "
                f"layer '{layer}' changes its size between inputs; name another"
            )
        if array.rows + len(block) > data.n:
            count = array.rows + len(block)
            raise WorkError(
                f"{who}: features of {count} or more samples, and the data set has {data.n}"
            )
        for what, remedy, wrong in (
            ("NaN or infinite features", "", ~np.isfinite(block)),
            ("features too large for float16", "; say storage: float32", array.is_too_large(block)),
        ):
            bad = np.flatnonzero(wrong.any(axis=1))
            if len(bad):
                names = ", ".join(f"'{data.ids[array.rows + row]}'" for row in bad[:NAMED])
                more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
                raise WorkError(f"{who}: {what} at layer '{layer}', samples {names}{more}{remedy}")


class _Array:
    """One npy file of float32 or float16 that grows by rows.

    Attributes:
        rows: how many are written.
        width: of a row; 0 before the first.
    """

    def __init__(self, place: Path, samples: int, storage: Storage) -> None:
        self._type = np.dtype(storage).newbyteorder("<")
        self.file = place / "entry/features.npy"
        self.file.parent.mkdir(exist_ok=True)
        self._samples = samples
        self.rows, self.width = self._written(place / "progress.json")
        self._stream = self.file.open("r+b" if self.file.exists() else "w+b")

    def append(self, block: NDArray[np.float32]) -> None:
        if not self.width:
            self.width = block.shape[1]
            self._stream.write(self._header())
        self._stream.write(np.ascontiguousarray(block, dtype=self._type).data)
        self.rows += len(block)

    def is_too_large(self, block: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Finite features of a block that the storage has no numbers for."""
        return np.isfinite(block) & (np.abs(block) > np.finfo(self._type).max)

    def cut(self, rows: int) -> None:
        """Keep the first rows."""
        self.rows = rows
        if not rows:
            self.width = 0
        size = self._size(rows) if rows else 0
        self._stream.truncate(size)
        self._stream.seek(size)

    def sync(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()

    def _size(self, rows: int) -> int:
        return len(self._header()) + self._type.itemsize * rows * self.width

    def _header(self) -> bytes:
        stream = io.BytesIO()
        shape = (self._samples, self.width)
        header = {"descr": self._type.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        return stream.getvalue()

    def _written(self, progress: Path) -> tuple[int, int]:
        """Rows and width at the last sync; none where less than that is in the file."""
        try:
            content = json.loads(progress.read_text())
            self.width = int(content["width"])
            if self.file.stat().st_size >= self._size(int(content["rows"])):
                return int(content["rows"]), self.width
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing was synced
        return 0, 0

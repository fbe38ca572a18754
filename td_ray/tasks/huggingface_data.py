"""Data sets of the Hugging Face library, from a folder or from its cache.

data:
  - {name: reviews, source: huggingface, dataset: saved/reviews, inputs: text}
  - name: imdb
    source: huggingface
    dataset: stanfordnlp/imdb
    revision: e6281661ce1c48d982bc483cf8a173c1bbeb5d31
    inputs: text
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import yaml

from td_ray.errors import InputError, WorkError
from td_ray.files import Digest, atomic, fingerprint, one_line, reading
from td_ray.needs import NeededSnapshot
from td_ray.registry import DATA_SOURCES, closest
from td_ray.spec import Split, Words
from td_ray.tasks.dataset import DataSource, Samples
from td_ray.tasks.folders import files_under, stamp_of
from td_ray.tasks.images import decode
from td_ray.tasks.inputs import Block, as_block
from td_ray.tasks.table import read_columns

_COMMIT = re.compile(r"[0-9a-f]{40}")


@DATA_SOURCES.register("huggingface")
class HuggingFaceData(DataSource):
    """A data set that the library ``datasets`` reads; no code of it is run.

    Columns are those of text, numbers and labels; labels are codes, and ``label_name`` holds
    their names where the data set has them (``X_name`` for a column X). The column ``split``
    holds the parts, and is the split unless another one is asked for. Sample ids are
    ``train-00017``. Texts are inputs as str, images as uint8 (h, w, 3) in RGB.

    Attributes:
        dataset: a folder (``save_to_disk``, or files that the library reads, such as Parquet),
            or a name on the hub, whose files ``td-ray prefetch`` puts into the library's cache.
        config: which of the data set's configurations.
        revision: the commit of a data set on the hub.
        inputs: the column that models take.
        parts: the parts that are read, in this order.
    """

    dataset: str
    config: str | None = None
    revision: str | None = None
    inputs: str | None = None
    parts: Words = ("train", "test")
    split: Split = Split(column="split")

    def read(self, folder: Path, cache: Path) -> Samples:
        """Read labels; see ``DataSource``."""
        where = f"data set '{self.name}'"
        for snapshot in self.needed(folder):
            if not snapshot.is_there:
                raise InputError(snapshot.remedy)
        root = self._root(folder)
        opened = Opened(root, self.config, self.parts, stamp_of(root), cache / "huggingface")
        columns = _columns(opened, self.inputs, where)
        parts = columns["split"].astype(str)
        sizes = tuple(int((parts == part).sum()) for part in self.parts)
        named = zip(self.parts, sizes, strict=True)
        ids = [f"{part}-{row:05d}" for part, size in named for row in range(size)]
        if self.inputs is None:
            return Samples(np.array(ids), columns)
        return Samples(np.array(ids), columns, partial(ColumnInputs, opened, self.inputs, sizes))

    def inputs_identity(self, folder: Path, digest: Digest) -> Any:
        """The column, the parts and the digest of all files of the data set."""
        if self.inputs is None:
            return None
        known = digest(files_under(self._root(folder)))
        return None if known is None else [self.inputs, self.config, list(self.parts), known]

    def needed(self, folder: Path) -> list[NeededSnapshot]:
        """The files of a data set on the hub, in the library's cache."""
        where = f"data set '{self.name}'"
        if find_spec("datasets") is None:
            raise InputError(
                "data, source 'huggingface' needs the library datasets: "
                "pip install 'td-ray[huggingface]'"
            )
        if (folder / self.dataset).is_dir():
            return []
        if self.revision is None or not _COMMIT.fullmatch(self.revision):
            raise InputError(
                f"{where}: no folder at {folder / self.dataset}; for a data set on the hub give "
                "'revision', its commit of 40 digits, since what a branch names changes"
            )
        return [NeededSnapshot(where, self.dataset, self.revision, "dataset")]

    def _root(self, folder: Path) -> Path:
        """The folder that holds the files."""
        snapshots = self.needed(folder)
        return snapshots[0].place if snapshots else folder / self.dataset


@dataclass(frozen=True)
class Opened:
    """A data set's files, and what they are opened with.

    Attributes:
        stamp: of the files, so that changed ones are opened again.
        cache: where the library keeps what it makes of them.
    """

    root: Path
    config: str | None
    parts: tuple[str, ...]
    stamp: str
    cache: Path


@dataclass(frozen=True)
class ColumnInputs:
    """A column of a data set's parts, one part after the other, read when it is asked for."""

    opened: Opened
    column: str
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        """The number of samples."""
        return sum(self.sizes)

    def __getitem__(self, rows: slice, /) -> Block:
        """Texts as a list; images and arrays as one array where all have one shape.

        Raises:
            WorkError: a value that is missing, or an image that cannot be decoded.
        """
        start, stop, step = rows.indices(len(self))
        values: list[Any] = []
        first = 0
        for part, size in zip(_open(self.opened, "inputs"), self.sizes, strict=True):
            inside = slice(max(start - first, 0), min(max(stop - first, 0), size))
            if inside.start < inside.stop:
                values.extend(_undecoded(part, self.column)[inside][self.column])
            first += size
        try:
            items = [_item(value) for value in values[::step]]
        except Exception as error:  # Pillow's readers raise far more than they document
            raise WorkError(
                f"column '{self.column}' of {self.opened.root}, samples {start} to {stop}: "
                f"{one_line(error)}"
            ) from None
        return items if items and isinstance(items[0], str) else as_block(items)


def _item(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and set(value) == {"bytes", "path"}:
        return decode(value["bytes"] or Path(value["path"]).read_bytes())
    if value is None:
        raise ValueError("a value is missing")
    return np.asarray(value)


def _undecoded(part: Any, column: str) -> Any:
    """A part whose images are read as bytes: they are decoded as all images are."""
    from datasets import Image

    if isinstance(part.features[column], Image):
        return part.cast_column(column, Image(decode=False))
    return part


def _refuse_addresses(root: Path, where: str) -> None:
    """Refuse files that are elsewhere: the library asks for them even where it is offline."""
    for file in (root / "README.md", root / ".huggingface.yaml"):
        text = file.read_text() if file.is_file() else ""
        if file.suffix == ".md":
            text = text.split("---\n", 2)[1] if text.startswith("---\n") else ""
        found = yaml.safe_load(text) or {}
        for config in found.get("configs") or []:
            if "://" in str(config.get("data_files")):
                raise InputError(
                    f"{where}: {file} names files by address ({config['data_files']}), and a run "
                    "never downloads; put them into the folder, and name them there"
                )


_OPENING = Lock()


@contextmanager
def _offline() -> Iterator[None]:
    """Let the library read files alone, and quietly."""
    from datasets import config
    from datasets.utils import disable_progress_bars

    disable_progress_bars()
    with _OPENING:
        before, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, True
        try:
            yield
        finally:
            config.HF_HUB_OFFLINE = before


@lru_cache(maxsize=4)
def _open(opened: Opened, where: str) -> list[Any]:
    """The parts of a data set.

    Raises:
        InputError: files that the library cannot read, or no such part.
    """
    import datasets

    root = opened.root
    with reading(root, where), _offline():
        if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
            found = datasets.load_from_disk(str(root))
            if isinstance(found, datasets.Dataset):
                found = {str(found.split or "train"): found}
        else:
            _refuse_addresses(root, where)
            found = datasets.load_dataset(
                str(root), opened.config, cache_dir=str(opened.cache / opened.stamp)
            )
    for part in opened.parts:
        if part not in found:
            hint = closest(part, found)
            raise InputError(f"{where}: {root} has no part '{part}': {hint}; name its 'parts'")
    return [found[part] for part in opened.parts]


def _columns(opened: Opened, inputs: str | None, where: str) -> dict[str, Any]:
    """Columns of labels; kept in the cache, since the library's import takes seconds."""
    key = [str(opened.root.resolve()), opened.config, list(opened.parts), opened.stamp, inputs]
    path = opened.cache / f"columns-{fingerprint(key)}.parquet"
    with suppress(OSError, InputError):  # not there yet, or damaged
        return read_columns(path, where, text=())
    import pyarrow
    from pyarrow import parquet

    tables = [
        _table(part, name, inputs, f"{where}: {opened.root}")
        for name, part in zip(opened.parts, _open(opened, where), strict=True)
    ]
    with reading(opened.root, where):
        whole = pyarrow.concat_tables(tables, promote_options="default")
    with atomic(path) as temporary:
        parquet.write_table(whole, temporary)
    return read_columns(path, where, text=())


def _table(part: Any, name: str, inputs: str | None, where: str) -> Any:
    """A part's plain columns, names of labels beside their codes, and the part's name."""
    import pyarrow
    from datasets import ClassLabel, Value

    features = part.features
    if inputs is not None and inputs not in features:
        raise InputError(f"{where} has no column '{inputs}' of inputs: {closest(inputs, features)}")
    columns = {}
    for column, feature in features.items():
        plain = isinstance(feature, Value) and feature.dtype != "binary"
        if column == inputs or not (plain or isinstance(feature, ClassLabel)):
            continue
        values: Sequence[Any] = list(part[column])
        columns[column] = values
        if isinstance(feature, ClassLabel):
            unlabelled = (None, -1)  # -1 is the library's word for it
            columns[f"{column}_name"] = [
                None if value in unlabelled else feature.names[value] for value in values
            ]
    return pyarrow.table({**columns, "split": [name] * len(part)})

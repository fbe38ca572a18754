"""Outputs that models have given already; no head is fitted, they are compared as they are.

    models:
      - source: predictions
        path: outputs/*.parquet        # 'id' and one column per task
        tasks: [species]

Under every head of a task such a model stands with the same predictions. Without outputs for the
seeds its noise floor is null. With ``halves: "{task}-{seed}{half}"`` the file also holds what heads
that were fitted on complementary halves of the training split predict, in ``species-0a``,
``species-0b`` and so on; the halves are the same for all models that are compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from td_ray.errors import InputError, WorkError
from td_ray.files import Digest, require_file
from td_ray.registry import MODEL_SOURCES, closest
from td_ray.tasks import DataSet, Task
from td_ray.tasks.table import ROW_ORDER
from td_ray.tasks.text import as_text
from td_ray.zoo import arrays
from td_ray.zoo.file_entry import FileEntry, named
from td_ray.zoo.source import PredictionSource


@MODEL_SOURCES.register("predictions")
class StoredPredictions(FileEntry, PredictionSource):
    """A file of predicted labels or values.

    Attributes:
        columns: ``{task: array or column}`` where the name is not the task's own.
        ids: a file of sample ids, or ``row-order``; by default ids are inside the file. They
            are those of the evaluation split, or of the whole data set.
        halves: the arrays or columns of the heads fitted on halves, with ``{seed}``, ``{half}``
            (a or b) and, where there are several tasks, ``{task}``.
    """

    columns: Mapping[str, str] = {}
    ids: str | None = None
    halves: str | None = None

    @field_validator("halves")
    @classmethod
    def _tells_them_apart(cls, value: str | None) -> str | None:
        if value is not None and not ("{seed}" in value and "{half}" in value):
            raise ValueError("'halves' needs {seed} and {half}, such as \"{task}-{seed}{half}\"")
        return value

    @property
    def has_halves(self) -> bool:
        """See ``PredictionSource``."""
        return self.halves is not None

    def identity(self, folder: Path, data: str, layer: str, digest: Digest) -> Any:
        """The bytes of the file (and of the ids)."""
        beside = self.ids is not None and self.ids != ROW_ORDER
        ids = digest(folder / named(str(self.ids), data)) if beside else self.ids
        outputs = digest(self.file(folder, data))
        if outputs is None or (beside and ids is None):
            return None
        return [outputs, ids, dict(self.columns), self.halves]

    def has_samples(self, folder: Path, data: DataSet) -> NDArray[np.bool_]:
        """Those whose ids come with the file, and all that are not predicted."""
        path, ids = self.file(folder, data.name), self._ids(data)
        return arrays.holds(path, ids, folder, data.ids) | ~data.evaluation

    def check(self, folder: Path, data: DataSet, tasks: Sequence[str]) -> None:
        """The file is there, with a column for each task and the evaluation split's ids."""
        path = require_file(self.file(folder, data.name), "predictions")
        for task in tasks:
            key = self.columns.get(task, task)
            arrays.require_column(path, key)
            self._order(path, folder, data, key)

    def predictions(
        self, folder: Path, task: Task, data: DataSet, seed: int | None, half: str | None
    ) -> NDArray[Any]:
        """Read the outputs for a task; see ``PredictionSource``."""
        path = self.file(folder, data.name)
        key = self.columns.get(task.name, task.name)
        if seed is not None:
            words = {"task": key, "seed": str(seed), "half": str(half)}
            key = re.sub(r"\{(task|seed|half)\}", lambda word: words[word[1]], str(self.halves))
        try:
            order = self._order(path, folder, data, key)
            outputs = arrays.read_column(path, key)[order]
        except InputError as error:
            raise WorkError(str(error)) from None
        if outputs.ndim != 1:
            raise WorkError(f"{path}: '{key}' has shape {outputs.shape}; give one label a sample")
        if len(outputs) == data.n:
            outputs = outputs[data.evaluation]
        outputs = outputs[task.evaluation_rows(data.name)[data.evaluation]]
        return _labels(outputs, task, path) if task.is_classification else _values(outputs, path)

    def _order(self, path: Path, folder: Path, data: DataSet, key: str) -> NDArray[np.intp]:
        others = data.left_out is not None
        whole = not others and arrays.n_rows(path, key) == data.n
        wanted = data.ids if whole else data.evaluation_ids
        return arrays.row_order(path, self._ids(data), folder, wanted, data.name, key, others)

    def _ids(self, data: DataSet) -> str | None:
        return None if self.ids is None else named(self.ids, data.name)


def _labels(outputs: NDArray[Any], task: Task, path: Path) -> NDArray[np.int64]:
    try:
        if outputs.dtype.kind in "iub":  # numbers are told apart faster than words
            numbers, positions = np.unique(outputs, return_inverse=True)
            labels = as_text(numbers).tolist()
        else:
            text, positions = np.unique(as_text(outputs), return_inverse=True)
            labels = text.tolist()
    except ValueError as error:
        raise WorkError(f"{path}: the outputs for task '{task.name}' {error}") from None
    codes = {name: code for code, name in enumerate(task.classes)}
    for label in labels:
        if label not in codes:
            raise WorkError(
                f"{path}: '{label}' is no class of task '{task.name}': {closest(label, codes)}"
            )
    return np.array([codes[label] for label in labels], dtype=np.int64)[positions]


def _values(outputs: NDArray[Any], path: Path) -> NDArray[np.float64]:
    if outputs.dtype.kind not in "fiu" or not np.isfinite(outputs).all():
        raise WorkError(f"{path}: predicted values must be finite numbers")
    return outputs.astype(np.float64)

"""Outputs that models have given already; no head is fitted, they are compared as they are.

    models:
      - source: predictions
        path: outputs/*.parquet        # 'id' and one column per task
        tasks: [species]

Under every head of a task such a model stands with the same predictions. Without outputs for the
seeds its noise floor is null. With ``halves: "{task}-{seed}{half}"`` the file also holds what heads
that were fitted on complementary halves of the training split predict, in ``species-0a``,
``species-0b`` and so on; the halves are the same for all models that are compared.

Measures of probabilities need an array (or a column of lists) with a row per sample and a column
per class, in the order of the task's classes (labels sorted, or as its ``classes`` lists them).
``probabilities: "{task}-probabilities"`` finds them in ``species-probabilities``, and those of
heads on halves in ``species-0a-probabilities`` and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
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

# Half precision rounds each of many probabilities; more than this is no rounding.
ROUNDING_OF_TOTAL = 1e-2
SHOWN = 8  # classes, in messages


@MODEL_SOURCES.register("predictions")
class StoredPredictions(FileEntry, PredictionSource):
    """A file of predicted labels or values.

    Attributes:
        columns: ``{task: array or column}`` where the name is not the task's own.
        ids: a file of sample ids, or ``row-order``; by default ids are inside the file. They
            are those of the evaluation split, or of the whole data set.
        halves: the arrays or columns of the heads fitted on halves, with ``{seed}``, ``{half}``
            (a or b) and, where there are several tasks, ``{task}``.
        probabilities: the arrays or columns of probabilities; ``{task}`` stands for the one of
            the labels that they belong to.
    """

    columns: Mapping[str, str] = {}
    ids: str | None = None
    halves: str | None = None
    probabilities: str | None = None

    @field_validator("halves")
    @classmethod
    def _tells_them_apart(cls, value: str | None) -> str | None:
        if value is not None and not ("{seed}" in value and "{half}" in value):
            raise ValueError("'halves' needs {seed} and {half}, such as \"{task}-{seed}{half}\"")
        return value

    @field_validator("probabilities")
    @classmethod
    def _belong_to_labels(cls, value: str | None) -> str | None:
        if value is not None and "{task}" not in value:
            raise ValueError("'probabilities' needs {task}, such as \"{task}-probabilities\"")
        return value

    @property
    def has_halves(self) -> bool:
        """See ``PredictionSource``."""
        return self.halves is not None

    @property
    def has_probabilities(self) -> bool:
        """See ``PredictionSource``."""
        return self.probabilities is not None

    def identity(self, folder: Path, data: str, layer: str, digest: Digest) -> Any:
        """The bytes of the file (and of the ids)."""
        beside = self.ids is not None and self.ids != ROW_ORDER
        ids = digest(folder / named(str(self.ids), data)) if beside else self.ids
        outputs = digest(self.file(folder, data))
        if outputs is None or (beside and ids is None):
            return None
        named_arrays = [dict(self.columns), self.halves]
        return [outputs, ids, *named_arrays, *([self.probabilities] * self.has_probabilities)]

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
            if self.probabilities is not None:
                arrays.require_column(path, self._beside(key))

    def predictions(
        self, folder: Path, task: Task, data: DataSet, seed: int | None, half: str | None
    ) -> NDArray[Any]:
        """Read the outputs for a task; see ``PredictionSource``."""
        path, key = self.file(folder, data.name), self._key(task, seed, half)
        outputs = self._evaluated(arrays.read_column, path, key, folder, task, data)
        if outputs.ndim != 1:
            raise WorkError(f"{path}: '{key}' has shape {outputs.shape}; give one label a sample")
        return _labels(outputs, task, path) if task.is_classification else _values(outputs, path)

    def predicted_probabilities(
        self, folder: Path, task: Task, data: DataSet, seed: int | None, half: str | None
    ) -> NDArray[np.float32]:
        """Read the probabilities for a task; see ``PredictionSource``."""
        path, key = self.file(folder, data.name), self._beside(self._key(task, seed, half))
        outputs = self._evaluated(_read_matrix, path, key, folder, task, data)
        codes = self.predictions(folder, task, data, seed, half)
        return _probabilities(outputs, codes, task, f"{path}: '{key}'")

    def _key(self, task: Task, seed: int | None, half: str | None) -> str:
        """The array of the labels or values."""
        key = self.columns.get(task.name, task.name)
        if seed is None:
            return key
        words = {"task": key, "seed": str(seed), "half": str(half)}
        return re.sub(r"\{(task|seed|half)\}", lambda word: words[word[1]], str(self.halves))

    def _beside(self, key: str) -> str:
        """The array of the probabilities that belong to an array of labels."""
        return str(self.probabilities).replace("{task}", key)

    def _evaluated(
        self,
        read: Callable[[Path, str], NDArray[Any]],
        path: Path,
        key: str,
        folder: Path,
        task: Task,
        data: DataSet,
    ) -> NDArray[Any]:
        """The rows of an array that a task predicts, in the order of the data set."""
        try:
            order = self._order(path, folder, data, key)
            outputs = read(path, key)[order]
        except InputError as error:
            raise WorkError(str(error)) from None
        if len(outputs) == data.n:
            outputs = outputs[data.evaluation]
        return outputs[task.evaluation_rows(data.name)[data.evaluation]]

    def _order(self, path: Path, folder: Path, data: DataSet, key: str) -> NDArray[np.intp]:
        others = data.left_out is not None
        whole = not others and arrays.n_rows(path, key) == data.n
        wanted = data.ids if whole else data.evaluation_ids
        return arrays.row_order(path, self._ids(data), folder, wanted, data.name, key, others)

    def _ids(self, data: DataSet) -> str | None:
        return None if self.ids is None else named(self.ids, data.name)


def _read_matrix(path: Path, key: str) -> NDArray[Any]:
    arrays.require_column(path, key)
    return arrays.read_array(path, key)


def _probabilities(
    found: NDArray[Any], codes: NDArray[np.int64], task: Task, where: str
) -> NDArray[np.float32]:
    """Probabilities that are some, and go with the predicted codes."""
    shape = (len(codes), len(task.classes))
    if found.shape != shape or found.dtype.kind != "f":
        raise WorkError(
            f"{where} has shape {found.shape} {found.dtype}; probabilities of task '{task.name}' "
            f"are floats, a row per sample and a column for each of its {shape[1]} classes"
        )
    values = found.astype(np.float64)
    total = values.sum(axis=1)
    bad = ~((values >= 0).all(axis=1) & (np.abs(total - 1) <= ROUNDING_OF_TOTAL))
    if bad.any():
        row = int(bad.argmax())
        raise WorkError(
            f"{where}: probabilities are at least 0 and sum to 1; row {row} of the evaluation "
            f"split has {values[row].min():g} and sums to {total[row]:g} (softmax comes first)"
        )
    other = values[np.arange(len(codes)), codes] < values.max(axis=1)
    if other.any():
        row = int(other.argmax())
        likely, label = task.classes[values[row].argmax()], task.classes[codes[row]]
        raise WorkError(
            f"{where}: in {other.sum()} rows another class is more probable than the predicted "
            f"one; in row {row} of the evaluation split '{likely}' than '{label}': columns are in "
            f"the order {', '.join(task.classes[:SHOWN])}{', ...' * (shape[1] > SHOWN)}"
        )
    return np.asarray((values / total[:, None]).astype(np.float32))


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

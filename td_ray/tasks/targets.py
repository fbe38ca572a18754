"""Tasks: a column of a data set, turned into label codes or numbers.

Class codes follow the sorted labels of the training split, or the order of ``classes`` where
the task groups labels into coarser ones.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.files import Digest, fingerprint
from td_ray.registry import closest
from td_ray.spec import TaskSpec
from td_ray.tasks.dataset import DataSet
from td_ray.tasks.text import as_text

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,20}")


class Target(ABC):
    """What a task asks of each sample of its data sets."""

    classes: tuple[str, ...]
    """Names of the classes in code order; empty for regression."""

    reads_inputs: ClassVar[bool] = False
    """Whether ``values`` reads the inputs: nothing for a plan to do. It remembers what it found."""

    @property
    def is_partial(self) -> bool:
        """Whether it leaves out samples of the splits, which is known without its values."""
        return False

    @abstractmethod
    def identity(self, digest: Digest) -> str | None:
        """Identity of all that decides the target; None where a digest is not known yet."""

    @abstractmethod
    def values(self, data: DataSet) -> NDArray[Any]:
        """(n,) float64 values or int64 codes; -1 where a sample takes no part."""


@dataclass(frozen=True, eq=False)
class ColumnTarget(Target):
    """A column that has been read; samples outside the splits take no part.

    Attributes:
        columns: (n,) values or codes by data set name.
        digest: of those on the rows of the splits, and of the classes.
    """

    classes: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    digest: str

    def identity(self, digest: Digest) -> str:
        """See ``Target``."""
        return self.digest

    def values(self, data: DataSet) -> NDArray[Any]:
        """See ``Target``."""
        return self.columns[data.name]


@dataclass(frozen=True, eq=False)
class RegroupedTarget(Target):
    """Another target's classes, put together, renamed or left out.

    Attributes:
        codes: (classes of the other,) int64 new code of each, -1 where it is left out.
    """

    other: Target
    classes: tuple[str, ...]
    codes: NDArray[np.int64]

    @property
    def is_partial(self) -> bool:
        """See ``Target``."""
        return self.other.is_partial or bool((self.codes < 0).any())

    def identity(self, digest: Digest) -> str:
        """See ``Target``."""
        return fingerprint([self.other.identity(digest), self.classes, self.codes.tolist()])

    def values(self, data: DataSet) -> NDArray[np.int64]:
        """See ``Target``."""
        # the last code is that of -1, which stays what it is
        return np.asarray(np.append(self.codes, -1)[self.other.values(data)])


@dataclass(frozen=True)
class Task:
    """A target with the data sets it is fitted and evaluated on.

    Targets are computed when asked for, so that hundreds of tasks on one data set take no room.

    Attributes:
        spec: the line of the experiment; a family has many tasks of one line.
        data: the data set whose training split is fitted.
        evaluation: data sets that are predicted, by name.
    """

    spec: TaskSpec
    name: str
    data: DataSet
    evaluation: Mapping[str, DataSet]
    target: Target

    @property
    def family(self) -> str | None:
        """The name of the line, where it stands for a family."""
        return None if self.spec.family is None else self.spec.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in code order; empty for regression."""
        return self.target.classes

    @property
    def is_classification(self) -> bool:
        """Whether the target is a label."""
        return self.spec.kind == "classification"

    @property
    def training(self) -> NDArray[np.bool_]:
        """(n,) bool, the rows of its data set that heads are fitted on."""
        return self.data.training & self._takes_part(self.data)

    def evaluation_rows(self, name: str) -> NDArray[np.bool_]:
        """(n,) bool, the rows of a data set that are predicted."""
        data = self.evaluation[name]
        return data.evaluation & self._takes_part(data)

    @property
    def train_target(self) -> NDArray[Any]:
        """(n_train,) int64 codes or float64 values."""
        return self.target.values(self.data)[self.training]

    @property
    def evaluation_targets(self) -> Mapping[str, NDArray[Any]]:
        """The same for each evaluation split, by data set name."""
        return {
            name: self.target.values(data)[self.evaluation_rows(name)]
            for name, data in self.evaluation.items()
        }

    @cached_property
    def n_train(self) -> int:
        """The number of training rows."""
        return int(self.training.sum())

    def evaluation_ids(self, name: str) -> NDArray[np.str_]:
        """Ids of the samples of a data set that are predicted, in row order."""
        return self.evaluation[name].ids[self.evaluation_rows(name)]

    def evaluation_digest(self, name: str) -> str:
        """Identity of these ids and their order, which predictions follow."""
        data, ids = self.evaluation[name], self.evaluation_ids(name)
        whole = len(ids) == len(data.evaluation_ids)
        return data.evaluation_digest if whole else fingerprint(ids.tolist())

    def examples(self, name: str, size: int | None) -> NDArray[np.intp] | None:
        """Positions of the predicted samples of a data set that pairs are estimated on.

        They are drawn without regard to classes, so that a share of them is an unbiased estimate.
        A larger size holds all of a smaller one.

        Returns:
            (size,) ascending; None for all, where no size is given or there are no more.
        """
        if size is None:
            return None
        data = self.evaluation[name]
        keys = data.queue[self.evaluation_rows(name)[data.evaluation]]
        return np.sort(np.argsort(keys, kind="stable")[:size]) if size < len(keys) else None

    @property
    def validation(self) -> NDArray[np.bool_]:
        """(n_train,) the rows of the data set's validation part that take part."""
        return self.data.validation[self.training[self.data.training]]

    def halves(self, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The halves of the data set, each (n_train,): every task is cut alike."""
        rows = self.training[self.data.training]
        a, b = self.data.halves(seed)
        return a[rows], b[rows]

    @property
    def center(self) -> float:
        """The constant by which regression predictions are centred: the training mean."""
        if self.is_classification or self.target.reads_inputs:  # a score has the mean 0
            return 0.0
        return float(np.mean(self.train_target))

    def _takes_part(self, data: DataSet) -> NDArray[np.bool_]:
        if not self.target.is_partial:  # and so its values, which may cost, are not needed
            return np.ones(data.n, dtype=bool)
        return np.asarray(self.target.values(data) >= 0)


def column_target(spec: TaskSpec, data: Mapping[str, DataSet]) -> Target:
    """Read the target that a line of ``tasks`` names, without its family.

    Raises:
        InputError: no such column, labels where numbers are needed (or the reverse), a class
            that the training split lacks.
    """
    where, column = f"task '{spec.name}'", str(spec.target)
    fitted = data[spec.data]
    evaluation = {name: data[name] for name in spec.evaluated_on}
    train = fitted.column(column, where)[fitted.training]
    evals = {
        name: dataset.column(column, where)[dataset.evaluation]
        for name, dataset in evaluation.items()
    }
    if spec.kind == "regression":
        numbers = {name: _numbers(values, where, column) for name, values in evals.items()}
        values = _numbers(train, where, column)
        if values.min() == values.max():
            raise InputError(
                f"{where}: column '{column}' is {values[0]:g} on the whole training split; "
                "there is nothing to regress on"
            )
        return _whole(spec, data, (), values, numbers)
    coarser = _grouping(spec, where)
    if coarser is not None:
        found = [_labels(values, where, column) for values in (train, *evals.values())]
        _refuse_unknown(coarser, set(np.concatenate(found).tolist()), where)
    names = _class_names(spec, _labels(train, where, column), coarser, where)
    codes = {name: code for code, name in enumerate(names)}

    def encode(values: NDArray[Any], data_name: str) -> NDArray[np.int64]:
        labels = _labels(values, where, column)
        return _encode(labels, codes, coarser, f"{where}: data set '{data_name}'")

    train_codes = encode(train, spec.data)
    eval_codes = {name: encode(values, name) for name, values in evals.items()}
    absent = set(range(len(names))) - set(train_codes.tolist())
    if absent:
        raise InputError(
            f"{where}: class '{names[min(absent)]}' is missing from the training split of "
            f"'{spec.data}'; a head cannot learn it: change the split or the task"
        )
    return _whole(spec, data, names, train_codes, eval_codes)


def _whole(
    spec: TaskSpec,
    data: Mapping[str, DataSet],
    classes: tuple[str, ...],
    train: NDArray[Any],
    evals: Mapping[str, NDArray[Any]],
) -> ColumnTarget:
    """Put the values of the splits' rows in their places among all rows."""
    places = {name: data[name].evaluation for name in evals}
    columns = {
        name: np.full(data[name].n, -1, dtype=train.dtype)
        for name in (spec.data, *spec.evaluated_on)
    }
    columns[spec.data][data[spec.data].training] = train
    for name, rows in places.items():
        columns[name][rows] = evals[name]
    arrays = [train, *(evals[name] for name in spec.evaluated_on)]
    identity = fingerprint([spec.kind, classes, [array.tolist() for array in arrays]])
    return ColumnTarget(classes, columns, identity)


def _numbers(values: NDArray[Any], where: str, column: str) -> NDArray[np.float64]:
    try:
        if values.dtype.kind not in "bfiuO":
            raise ValueError
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        kind = "dates" if values.dtype.kind in "mM" else "text or gaps"
        raise InputError(
            f"{where}: column '{column}' holds {kind} and cannot be a regression target; "
            "say kind: classification, or make it numbers"
        ) from None
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise InputError(
            f"{where}: column '{column}' has {numbers[row]} among its values; "
            "fill it, or drop those rows"
        )
    return numbers


def _labels(values: NDArray[Any], where: str, column: str) -> NDArray[np.str_]:
    try:
        labels = as_text(values)
    except ValueError as error:
        raise InputError(
            f"{where}: column '{column}' {error}; say kind: regression, or name a column of labels"
        ) from None
    if (labels == "").any():
        raise InputError(f"{where}: column '{column}' has empty labels; fill or drop those rows")
    return labels


def _grouping(spec: TaskSpec, where: str) -> dict[str, str] | None:
    if spec.classes is None:
        return None
    coarser: dict[str, str] = {}
    for name, labels in spec.classes.items():
        for label in map(str, labels):
            if label in coarser:
                raise InputError(f"{where}: label '{label}' is in two of its 'classes'")
            coarser[label] = name
    return coarser


def _refuse_unknown(coarser: Mapping[str, str], found: set[str], where: str) -> None:
    for label, name in coarser.items():
        if label not in found:
            raise InputError(
                f"{where}: no sample has the label '{label}' of class '{name}': "
                f"{closest(label, found)}"
            )


def _class_names(
    spec: TaskSpec, train: NDArray[np.str_], coarser: dict[str, str] | None, where: str
) -> tuple[str, ...]:
    names = list(spec.classes) if spec.classes is not None else _in_order(np.unique(train))
    if len(names) < 2:
        raise InputError(f"{where}: a classification task needs at least two classes")
    return tuple(names)


def _in_order(labels: NDArray[np.str_]) -> list[str]:
    """Labels sorted as numbers where all of them are whole numbers, else as text."""
    names = [str(label) for label in labels]
    if all(_WHOLE_NUMBER.fullmatch(name) for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _encode(
    labels: NDArray[np.str_],
    codes: Mapping[str, int],
    coarser: Mapping[str, str] | None,
    where: str,
) -> NDArray[np.int64]:
    found, positions = np.unique(labels, return_inverse=True)
    translated = np.empty(len(found), dtype=np.int64)
    for number, label in enumerate(found.tolist()):
        name = label if coarser is None else coarser.get(label)
        if name is None:
            raise InputError(
                f"{where}: label '{label}' is in none of the task's 'classes', "
                f"which hold {', '.join(list(coarser or ())[:8])}"
            )
        if name not in codes:
            raise InputError(
                f"{where}: class '{name}' is evaluated but missing from the training split; "
                "a head cannot learn it: change the split or the task"
            )
        translated[number] = codes[name]
    return translated[positions]

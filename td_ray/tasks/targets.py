"""Tasks: a column of a data set, turned into label codes or numbers.

Class codes follow the sorted labels of the training split, or the order of ``classes`` where
the task groups labels into coarser ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.files import fingerprint
from td_ray.registry import closest
from td_ray.spec import TaskSpec
from td_ray.tasks.dataset import DataSet
from td_ray.tasks.text import as_text

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,20}")


@dataclass(frozen=True)
class Task:
    """A target with the data sets it is fitted and evaluated on.

    Attributes:
        spec: what the experiment says.
        data: the data set whose training split is fitted.
        evaluation: data sets that are predicted, by name.
        classes: names of the classes in code order; empty for regression.
        train_target: (n_train,) int64 codes or float64 values.
        evaluation_targets: the same for each evaluation split, by data set name.
    """

    spec: TaskSpec
    data: DataSet
    evaluation: Mapping[str, DataSet]
    classes: tuple[str, ...]
    train_target: NDArray[Any]
    evaluation_targets: Mapping[str, NDArray[Any]]

    @property
    def name(self) -> str:
        """The task's name."""
        return self.spec.name

    @property
    def is_classification(self) -> bool:
        """Whether the target is a label."""
        return self.spec.kind == "classification"

    @property
    def center(self) -> float:
        """The constant by which regression predictions are centred: the training mean."""
        return 0.0 if self.is_classification else float(np.mean(self.train_target))

    @cached_property
    def identity(self) -> str:
        """Identity of the target on the training and evaluation rows."""
        arrays = [self.train_target, *(self.evaluation_targets[k] for k in self.spec.evaluated_on)]
        return fingerprint([self.spec.kind, self.classes, [array.tolist() for array in arrays]])


def resolve_tasks(specs: Sequence[TaskSpec], data: Mapping[str, DataSet]) -> list[Task]:
    """Turn task lines into tasks.

    Raises:
        InputError: no such column, labels where numbers are needed (or the reverse), a class
            that the training split lacks.
    """
    return [_resolve(spec, data) for spec in specs]


def _resolve(spec: TaskSpec, data: Mapping[str, DataSet]) -> Task:
    where = f"task '{spec.name}'"
    fitted = data[spec.data]
    evaluation = {name: data[name] for name in spec.evaluated_on}
    train = fitted.column(spec.target, where)[fitted.training]
    evals = {
        name: dataset.column(spec.target, where)[dataset.evaluation]
        for name, dataset in evaluation.items()
    }
    if spec.kind == "regression":
        numbers = {name: _numbers(values, where, spec.target) for name, values in evals.items()}
        values = _numbers(train, where, spec.target)
        if values.min() == values.max():
            raise InputError(
                f"{where}: column '{spec.target}' is {values[0]:g} on the whole training split; "
                "there is nothing to regress on"
            )
        return Task(spec, fitted, evaluation, (), values, numbers)
    coarser = _grouping(spec, where)
    if coarser is not None:
        found = [_labels(values, where, spec.target) for values in (train, *evals.values())]
        _refuse_unknown(coarser, set(np.concatenate(found).tolist()), where)
    names = _class_names(spec, _labels(train, where, spec.target), coarser, where)
    codes = {name: code for code, name in enumerate(names)}

    def encode(values: NDArray[Any], data_name: str) -> NDArray[np.int64]:
        labels = _labels(values, where, spec.target)
        return _encode(labels, codes, coarser, f"{where}: data set '{data_name}'")

    train_codes = encode(train, spec.data)
    eval_codes = {name: encode(values, name) for name, values in evals.items()}
    absent = set(range(len(names))) - set(train_codes.tolist())
    if absent:
        raise InputError(
            f"{where}: class '{names[min(absent)]}' is missing from the training split of "
            f"'{spec.data}'; a head cannot learn it: change the split or the task"
        )
    return Task(spec, fitted, evaluation, names, train_codes, eval_codes)


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

"""From lines of ``tasks`` to tasks: one each, or a family of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import comb, factorial

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.registry import closest
from td_ray.spec import Family, TaskSpec
from td_ray.tasks.dataset import DataSet
from td_ray.tasks.drawn import GaussianTarget, SignTarget
from td_ray.tasks.splits import keys
from td_ray.tasks.targets import RegroupedTarget, Target, Task, column_target
from td_ray.tasks.teachers import Teachers, TeacherTarget


def resolve_tasks(specs: Sequence[TaskSpec], data: Mapping[str, DataSet]) -> list[Task]:
    """Turn task lines into tasks, and look at the targets of those that could lack a class.

    Raises:
        InputError: as ``expand`` does; a class or a split without samples.
    """
    tasks = expand(specs, data)
    for task in tasks:
        if (task.spec.subset or task.spec.family) and not task.target.reads_inputs:
            _refuse_empty(task)
    return tasks


def expand(specs: Sequence[TaskSpec], data: Mapping[str, DataSet]) -> list[Task]:
    """Turn task lines into tasks, whose targets are not computed.

    Raises:
        InputError: a target that cannot be, too few classes for a family, two tasks of one name.
    """
    tasks = [
        Task(spec, name, data[spec.data], {key: data[key] for key in spec.evaluated_on}, target)
        for spec in specs
        for name, target in _targets(spec, data)
    ]
    names = set()
    for task in tasks:
        if task.name in names:
            raise InputError(f"two tasks are called '{task.name}'; rename one of the lines")
        names.add(task.name)
    return tasks


def _refuse_empty(task: Task) -> None:
    if task.is_classification and len(np.unique(task.train_target)) < len(task.classes):
        raise InputError(f"task '{task.name}': the training split lacks one of its classes")
    for name in task.evaluation:
        if not task.evaluation_rows(name).any():
            raise InputError(
                f"task '{task.name}': the evaluation split of '{name}' has none of its samples"
            )


def _targets(spec: TaskSpec, data: Mapping[str, DataSet]) -> Iterator[tuple[str, Target]]:
    family, where = spec.family, f"task '{spec.name}'"
    numbers = range((family and family.count) or 0)
    if family is not None and family.kind == "teachers":
        yield from _teachers(spec, family, data)
        return
    if family is not None and not family.needs_labels:
        drawn = GaussianTarget if family.kind == "gaussian" else SignTarget
        yield from ((numbered(spec, k), drawn(family.seed, k)) for k in numbers)
        return
    whole = column_target(spec, data)
    if spec.subset is not None:
        whole = _subset(whole, [_known(label, whole, where) for label in spec.subset], where)
    if family is None:
        yield spec.name, whole
    elif family.kind == "one_vs_rest":
        chosen = [_known(label, whole, where) for label in family.labels] or list(whole.classes)
        yield from ((f"{spec.name}-{name}", _one_vs_rest(whole, name)) for name in chosen)
    elif family.kind == "subsets":
        for k, codes in enumerate(_distinct(whole, family, where, _draw_subset)):
            names = [name for name, code in zip(whole.classes, codes, strict=True) if code >= 0]
            yield numbered(spec, k), RegroupedTarget(whole, tuple(names), np.array(codes))
    else:
        for k, codes in enumerate(_distinct(whole, family, where, _draw_partition)):
            parts: list[list[str]] = [[] for _ in range(int(family.classes or 0))]
            for name, code in zip(whole.classes, codes, strict=True):
                parts[code].append(name)
            yield (
                numbered(spec, k),
                RegroupedTarget(whole, tuple("+".join(part) for part in parts), np.array(codes)),
            )


def _teachers(
    spec: TaskSpec, family: Family, data: Mapping[str, DataSet]
) -> Iterator[tuple[str, Target]]:
    used = {name: data[name] for name in (spec.data, *spec.evaluated_on)}
    for each in used.values():
        each.require_inputs()
    n_classes = 0 if spec.kind == "regression" else family.classes or 2
    classes = ("-1", "+1") if n_classes == 2 else tuple(map(str, range(n_classes)))
    where, count = f"task '{spec.name}'", int(family.count or 0)
    teachers = Teachers(where, data[spec.data], used, family.seed, count, n_classes)
    yield from ((numbered(spec, k), TeacherTarget(teachers, k, classes)) for k in range(count))


def numbered(spec: TaskSpec, number: int) -> str:
    """The name of a task of a family; it does not change when the family grows."""
    return f"{spec.name}-{number:03d}"


def _known(label: object, target: Target, where: str) -> str:
    if str(label) not in target.classes:
        raise InputError(
            f"{where}: no class is called '{label}': {closest(str(label), target.classes)}"
        )
    return str(label)


def _subset(target: Target, names: Sequence[str], where: str) -> RegroupedTarget:
    if len(set(names)) < 2:
        raise InputError(f"{where}: 'subset' needs at least two classes")
    kept = [name for name in target.classes if name in names]
    codes = [kept.index(name) if name in kept else -1 for name in target.classes]
    return RegroupedTarget(target, tuple(kept), np.array(codes))


def _one_vs_rest(target: Target, name: str) -> RegroupedTarget:
    codes = np.array([each == name for each in target.classes], dtype=np.int64)
    return RegroupedTarget(target, (f"not {name}", name), codes)


Codes = tuple[int, ...]


def _distinct(
    target: Target, family: Family, where: str, draw: Callable[[NDArray[np.intp], int], Codes]
) -> list[Codes]:
    """New codes of the classes for each task; number k depends on those before it alone."""
    n, size, count = len(target.classes), int(family.classes or 0), int(family.count or 0)
    if size > n:
        raise InputError(f"{where}: 'classes: {size}' of a family, and there are only {n} classes")
    possible = comb(n, size) if family.kind == "subsets" else _partitions(n, size)
    if count > possible:
        raise InputError(
            f"{where}: there are only {possible} {family.kind} with {size} of {n} classes; "
            f"ask for at most {possible}, not {count}"
        )
    found: dict[Codes, None] = {}
    names, attempt = np.array(target.classes), 0
    while len(found) < count:
        order = np.argsort(keys(names, f"{family.kind}:{family.seed}:{attempt}"), kind="stable")
        found.setdefault(draw(order, size))
        attempt += 1
    return list(found)


def _draw_subset(order: NDArray[np.intp], size: int) -> Codes:
    kept = sorted(order[:size].tolist())
    return tuple(kept.index(code) if code in kept else -1 for code in range(len(order)))


def _draw_partition(order: NDArray[np.intp], size: int) -> Codes:
    """Sizes differ by at most one; superclasses are in the order of their first class."""
    part = np.empty(len(order), dtype=np.intp)
    part[order] = np.arange(len(order)) % size
    first = list(dict.fromkeys(part.tolist()))
    return tuple(first.index(each) for each in part.tolist())


def _partitions(n: int, size: int) -> int:
    """How many partitions of n classes into parts of sizes as equal as can be there are."""
    small, large = divmod(n, size)
    orders = factorial(small + 1) ** large * factorial(small) ** (size - large)
    return int(factorial(n) // (orders * factorial(large) * factorial(size - large)))

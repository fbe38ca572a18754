"""Which pairs of representations an experiment asks for: lines of ``pairs`` as arrays.

Names, globs and metadata become positions and codes once; whether pairs are wanted is then asked
for blocks of them, by array operations. A pair is the same in either order, and no representation
is paired with itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.files import require_file
from td_ray.registry import closest
from td_ray.spec import PairRule
from td_ray.tasks.table import read_columns
from td_ray.zoo import Representation

ROWS_AT_ONCE = 128

Positions = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Groups:
    """Metadata that both sides of a pair share, and such that tells them apart.

    Attributes:
        same: (n,) codes of each key whose values are equal; -1 where there is no value.
        other: (n,) codes of each key whose values differ.
    """

    same: tuple[NDArray[np.int32], ...]
    other: tuple[NDArray[np.int32], ...]

    def fit(self, a: Positions, b: Positions) -> NDArray[np.bool_]:
        """Whether pairs of positions fit; ``a`` and ``b`` are broadcast to one shape."""
        fits = np.ones(np.broadcast_shapes(a.shape, b.shape), dtype=np.bool_)
        for code in (*self.same, *self.other):
            fits &= (code[a] >= 0) & (code[b] >= 0)
        for code in self.same:
            fits &= code[a] == code[b]
        for code in self.other:
            fits &= code[a] != code[b]
        return fits


@dataclass(frozen=True, eq=False)
class Line:
    """Pairs of one of the first with one of the second that the groups fit; (n,) bool sides."""

    first: NDArray[np.bool_]
    second: NDArray[np.bool_]
    groups: Groups

    def mark(self, found: NDArray[np.bool_], rows: Positions, columns: Positions) -> None:
        """Set what is wanted in a block."""
        sides = (self.first, self.second)
        for one, other in (sides, sides[::-1])[: 1 if self.first is self.second else 2]:
            a, b = np.flatnonzero(one[rows]), np.flatnonzero(other[columns])
            if len(a) and len(b):
                found[np.ix_(a, b)] |= self.groups.fit(rows[a][:, None], columns[b][None, :])


class WantedPairs:
    """The pairs that are wanted among n representations, which go by their positions."""

    def __init__(
        self, names: Sequence[str], lines: Sequence[Line] | None, listed: Positions
    ) -> None:
        """Take names (n,), lines (None for all pairs) and listed pairs (m, 2)."""
        self._place = {name: position for position, name in enumerate(names)}
        self._lines = lines
        self._listed = np.concatenate([listed, listed[:, ::-1]])

    @property
    def are_all(self) -> bool:
        """Whether every pair is wanted."""
        return self._lines is None

    def positions(self, representations: Iterable[Representation]) -> Positions:
        """Where representations stand."""
        return np.array([self._place[item.name] for item in representations], dtype=np.intp)

    def block(self, rows: Positions, columns: Positions) -> NDArray[np.bool_]:
        """(rows, columns) bool, which pairs are wanted."""
        different: NDArray[np.bool_] = rows[:, None] != columns[None, :]
        if self._lines is None:
            return different
        found = np.zeros((len(rows), len(columns)), dtype=np.bool_)
        for line in self._lines:
            line.mark(found, rows, columns)
        row_of, column_of = (np.full(len(self._place), -1, dtype=np.intp) for _ in range(2))
        row_of[rows], column_of[columns] = np.arange(len(rows)), np.arange(len(columns))
        a, b = row_of[self._listed[:, 0]], column_of[self._listed[:, 1]]
        here = (a >= 0) & (b >= 0)
        found[a[here], b[here]] = True
        return found & different

    def partners(self, positions: Positions) -> NDArray[np.int64]:
        """(len(positions),) of each, with how many of the others a pair is wanted."""
        starts = range(0, len(positions), ROWS_AT_ONCE)
        strips = (positions[start : start + ROWS_AT_ONCE] for start in starts)
        counts = [self.block(strip, positions).sum(axis=1) for strip in strips]
        return np.concatenate([np.zeros(0, dtype=np.int64), *counts])

    def count(self, positions: Positions) -> int:
        """The number of wanted pairs among some."""
        if self.are_all:
            return len(positions) * (len(positions) - 1) // 2
        return int(self.partners(positions).sum()) // 2

    def needed(self) -> list[int]:
        """Positions that are in some wanted pair; all of them where all pairs are wanted."""
        everything = np.arange(len(self._place))
        if self.are_all:
            return everything.tolist()
        return np.flatnonzero(self.partners(everything)).tolist()


def select_pairs(
    pairs: str | Sequence[PairRule], representations: Sequence[Representation], folder: Path
) -> WantedPairs:
    """Look up what the lines of ``pairs`` name.

    Args:
        pairs: of an experiment.
        representations: all that there are.
        folder: where paths of tables start.

    Raises:
        InputError: a name, a key or a table that is not there, or a line that no pair fits.
    """
    names = [item.name for item in representations]
    lines, listed = [], [np.empty((0, 2), dtype=np.intp)]
    if isinstance(pairs, str):
        return WantedPairs(names, None, listed[0])
    known = _Names(representations)
    for rule in pairs:
        groups = Groups(*(_codes(keys, representations) for keys in (rule.within, rule.between)))
        found = _listed(rule, known, folder)
        if found is not None:
            found = found[groups.fit(*found.T)]
            listed.append(found)
            is_empty = not len(found)
        else:
            line = _line(rule, known, groups)
            lines.append(line)
            is_empty = not WantedPairs(names, [line], listed[0]).needed()
        if is_empty:
            raise InputError(f"pairs: no two models fit {rule.model_dump(mode='json')}")
    return WantedPairs(names, lines, np.concatenate(listed))


class _Names:
    """Positions by the names of models, and of models at a layer."""

    def __init__(self, representations: Sequence[Representation]) -> None:
        self.size = len(representations)
        self._places: Mapping[str, list[int]] = defaultdict(list)
        for position, item in enumerate(representations):
            self._places[item.model_name].append(position)
            self._places[item.name].append(position)
        self.models = {item.model_name for item in representations}

    def named(self, name: str) -> list[int] | None:
        """Positions of a name; None where it is none."""
        return self._places.get(name)

    def selected(self, glob: str) -> NDArray[np.bool_]:
        """(n,) bool, those that a name or else a glob selects.

        Raises:
            InputError: there are none.
        """
        chosen = np.zeros(self.size, dtype=np.bool_)
        places = self.named(glob)
        if places is None:
            fits = re.compile(translate(glob)).match
            places = [place for name, own in self._places.items() if fits(name) for place in own]
        if not places:
            raise InputError(f"pairs: '{glob}' selects no model: {closest(glob, self.models)}")
        chosen[places] = True
        return chosen


def _codes(
    keys: Sequence[str], representations: Sequence[Representation]
) -> tuple[NDArray[np.int32], ...]:
    """(n,) codes of the values of each metadata key; -1 where a model has none."""
    metadata = [item.metadata for item in representations]
    for key in keys:
        if not any(each.get(key) is not None for each in metadata):
            hint = closest(key, {name for each in metadata for name in each})
            raise InputError(f"pairs: no model has metadata '{key}': {hint}")
    found = []
    for key in keys:
        # as text, which is how results are grouped
        values = [None if each.get(key) is None else str(each[key]) for each in metadata]
        code = {value: number for number, value in enumerate(dict.fromkeys(values))}
        found.append(np.array([-1 if v is None else code[v] for v in values], dtype=np.int32))
    return tuple(found)


def _line(rule: PairRule, known: _Names, groups: Groups) -> Line:
    if rule.names is None:
        everything = np.ones(known.size, dtype=np.bool_)
        return Line(everything, everything, groups)
    first, second = (known.selected(glob) for glob in rule.names)
    return Line(first, second, groups)


def _listed(rule: PairRule, known: _Names, folder: Path) -> Positions | None:
    """(m, 2) pairs of a rule that lists them, by names without globs; None for other rules."""
    if rule.file is not None:
        return _read(rule.file, known, folder)
    if rule.names is None or any(known.named(name) is None for name in rule.names):
        return None
    return _product(*rule.names, known, "pairs")


def _product(a: str, b: str, known: _Names, where: str) -> Positions:
    """(m, 2) pairs of two names: one pair, or more where a model has several layers.

    Raises:
        InputError: no such name, or twice the same representation.
    """
    sides = []
    for name in (a, b):
        places = known.named(name)
        if places is None:
            raise InputError(f"{where}: no model is called '{name}': {closest(name, known.models)}")
        sides.append(places)
    pairs = [(i, j) for i in sides[0] for j in sides[1] if i != j]
    if not pairs:
        raise InputError(f"{where}: '{a}' is paired with itself; name two models")
    return np.array(pairs, dtype=np.intp)


def _read(file: str, known: _Names, folder: Path) -> Positions:
    """(m, 2) pairs of a table of names.

    Raises:
        InputError: no such file, no such columns, or a row that is wrong.
    """
    path = require_file(folder / file, "pairs")
    columns = read_columns(path, "pairs", text=("model_a", "model_b", "layer_a", "layer_b"))
    for name in ("model_a", "model_b"):
        if name not in columns:
            raise InputError(f"pairs: {path} has no column '{name}': {closest(name, columns)}")
    sides = [_names_of_side(columns, side) for side in "ab"]
    if not sides[0]:
        raise InputError(f"pairs: {path} holds no pairs")
    return np.concatenate(
        [
            _product(a, b, known, f"pairs: {path}, row {row} (counted from 0)")
            for row, (a, b) in enumerate(zip(*sides, strict=True))
        ]
    )


def _names_of_side(columns: Mapping[str, NDArray[Any]], side: str) -> list[str]:
    models = [str(name) for name in columns[f"model_{side}"]]
    if f"layer_{side}" not in columns:
        return models
    layers = columns[f"layer_{side}"]
    return [f"{model}@{layer}" for model, layer in zip(models, layers, strict=True)]

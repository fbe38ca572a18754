"""Random linear teachers: targets that are linear functions of what models take.

Teacher k of a seed has a vector w of independent standard normal weights for each of its outputs,
drawn from the seed, k and the output alone. The score of an input x is w.x, less its mean and
divided by its deviation over the training split. The target is

    two classes     whether the score is above its median over the training split
    C classes       the output whose score is the largest
    regression      the score

An input of two axes or three is averaged over the cells of a grid of SIDE x SIDE on its first two
axes, where it is larger: still a linear function of the input, at a price that does not grow with
the size of an image, and images of different sizes are alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray import versions
from td_ray.errors import InputError
from td_ray.files import Digest, fingerprint
from td_ray.tasks.dataset import DataSet
from td_ray.tasks.inputs import Block
from td_ray.tasks.targets import Target

SIDE = 32
ROWS_AT_ONCE = 64
BYTES_AT_ONCE = 2**28
"""Of weights, and of scores; the inputs are read once for as many teachers as that allows."""


@dataclass(frozen=True, eq=False)
class Teachers:
    """The teachers of one line of ``tasks``, whose scores are computed together.

    Attributes:
        where: the line, for errors.
        fitted: the data set whose training split sets medians, means and deviations.
        data: all data sets of the line, by name.
        seed: of the weights.
        count: how many teachers.
        n_classes: of each; 0 for regression.
    """

    where: str
    fitted: DataSet
    data: Mapping[str, DataSet]
    seed: int
    count: int
    n_classes: int

    @property
    def outputs(self) -> int:
        """Scores of each teacher."""
        return self.n_classes if self.n_classes > 2 else 1

    @cached_property
    def values(self) -> Mapping[str, NDArray[Any]]:
        """By data set: (count, n) int16 codes, or float64 values.

        Raises:
            InputError: inputs that are no numbers, differ in shape, or do not vary; a class
                without a sample.
        """
        width = rows_of(self.fitted.inputs[0:1], self.where).shape[1]
        samples = max(data.n for data in self.data.values())
        most = BYTES_AT_ONCE // (8 * max(width, samples))
        step = max(1, most // self.outputs)
        starts = range(0, self.count, step)
        parts = [self._taught(range(s, min(s + step, self.count)), width) for s in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.data}

    def _taught(self, numbers: range, width: int) -> dict[str, NDArray[Any]]:
        weights = np.concatenate([self._weights(number, width) for number in numbers], axis=1)
        scores = {name: self._scores(data, weights) for name, data in self.data.items()}
        training = scores[self.fitted.name][self.fitted.training]
        mean, deviation = training.mean(0), training.std(0)
        if not (deviation > 1e-9 * np.abs(mean)).all():
            raise InputError(
                f"{self.where}: the inputs of data set '{self.fitted.name}' do not vary over its "
                "training split, so teachers have nothing to tell apart"
            )
        middle = np.median(training, axis=0)
        values = {n: self._values(each, mean, deviation, middle) for n, each in scores.items()}
        self._refuse_empty(numbers, values[self.fitted.name][:, self.fitted.training])
        return values

    def _weights(self, number: int, width: int) -> NDArray[np.float64]:
        """(width, outputs) standard normal, from bits that no library's release moves."""
        from scipy.special import ndtri

        columns = []
        for output in range(self.outputs):
            text = f"teachers:{self.seed}:{number}:{output}"
            key = hashlib.blake2b(text.encode(), digest_size=16).digest()
            bits = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(width)
            # the middles of 2^53 equal steps: neither 0 nor 1
            columns.append(ndtri(((bits >> 11) + 0.5) / 2**53))
        return np.stack(columns, axis=1)

    def _scores(self, data: DataSet, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, columns of the weights)."""
        scores = np.empty((data.n, weights.shape[1]))
        where = f"{self.where}: data set '{data.name}'"
        for rows, block in _blocks(data):
            inputs = rows_of(block, where)
            if inputs.shape[1] != len(weights):
                raise InputError(
                    f"{where}: inputs of {inputs.shape[1]} numbers at sample '{data.ids[rows][0]}' "
                    f"and of {len(weights)} at the first; teachers take inputs of one size"
                )
            scores[rows] = inputs @ weights
        return scores

    def _refuse_empty(self, numbers: range, codes: NDArray[Any]) -> None:
        for number, row in zip(numbers, codes, strict=True):
            found = np.unique(row)
            if self.n_classes and len(found) < self.n_classes:
                raise InputError(
                    f"{self.where}: teacher {number} of seed {self.seed} puts the training split "
                    f"into {len(found)} of {self.n_classes} classes; ask for fewer classes, or "
                    "another seed"
                )

    def _values(
        self,
        scores: NDArray[np.float64],
        mean: NDArray[np.float64],
        deviation: NDArray[np.float64],
        middle: NDArray[np.float64],
    ) -> NDArray[Any]:
        """(teachers, n)."""
        if self.n_classes == 2:
            return np.asarray((scores > middle).T, dtype=np.int16)
        standard = (scores - mean) / deviation
        if not self.n_classes:
            return np.asarray(standard.T)
        codes = standard.reshape(len(scores), -1, self.n_classes).argmax(2)
        return np.asarray(codes.astype(np.int16).T)


@dataclass(frozen=True, eq=False)
class TeacherTarget(Target):
    """What one of them says."""

    teachers: Teachers
    number: int
    classes: tuple[str, ...]

    reads_inputs = True

    def identity(self, digest: Digest) -> str | None:
        """See ``Target``: the inputs, which of them set the median, and the weights."""
        teachers = self.teachers
        inputs = [[x.inputs_identity(digest), x.ids_digest] for x in teachers.data.values()]
        if any(identity is None for identity, _ in inputs):
            return None
        which = [teachers.seed, self.number, teachers.n_classes]
        kind = [versions.TARGETS, "teachers", *which]
        return fingerprint([kind, inputs, teachers.fitted.split_digest])

    def values(self, data: DataSet) -> NDArray[Any]:
        """See ``Target``; the first of a line's teachers that is asked does the work of all."""
        found: NDArray[Any] = self.teachers.values[data.name][self.number]
        return found.astype(np.int64) if self.classes else found


def _blocks(data: DataSet) -> Iterator[tuple[slice, Block]]:
    for start in range(0, data.n, ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, data.n))
        yield rows, data.inputs[rows]


def rows_of(block: Block, where: str) -> NDArray[np.float64]:
    """Inputs of some samples as rows of numbers (rows, width).

    Raises:
        InputError: texts, or inputs of different shapes.
    """
    arrays = [np.asarray(each) for each in block]
    if any(each.dtype.kind not in "fiub" for each in arrays):
        raise InputError(f"{where}: teachers are linear functions of numbers, and it has texts")
    flat = [averaged(each).ravel() for each in arrays]
    widths = {len(each) for each in flat}
    if len(widths) > 1:
        raise InputError(
            f"{where}: inputs of {' and of '.join(map(str, sorted(widths)[:2]))} numbers; teachers "
            f"take inputs of one size, or images of at least {SIDE} x {SIDE} pixels"
        )
    return np.stack(flat)


def averaged(values: NDArray[Any]) -> NDArray[np.float64]:
    """An input in float64, its first two axes brought to at most SIDE cells each."""
    values = values.astype(np.float64)
    if values.ndim not in (2, 3):
        return values
    for axis in (0, 1):
        length = values.shape[axis]
        if length > SIDE:
            edges = np.arange(SIDE + 1) * length // SIDE
            shape = [1] * values.ndim
            shape[axis] = SIDE
            counts = np.diff(edges).reshape(shape)
            values = np.asarray(np.add.reduceat(values, edges[:-1], axis=axis) / counts)
    return values

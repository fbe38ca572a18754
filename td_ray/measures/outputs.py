"""What a measure of predictions is given: the outputs of some heads on the same examples."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.measures.bit_planes import Planes, count_block_differences, pack
from td_ray.measures.directions import Values, has_direction, is_finite, unit_rows
from td_ray.measures.example_blocks import ExampleBlocks, example_blocks, laid_out


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of one task on one data set, which all heads predict.

    Attributes:
        blocks: of them, over which sums are kept apart.
        truth: (n,) codes of the true classes, as the task orders them; None for regression.
        n_classes: of the task; 0 for regression.
        digest: of the ids of all samples that are predicted, which stored predictions must have.
        chosen: (n,) positions of the examples among these; None for all.
    """

    blocks: ExampleBlocks
    truth: NDArray[np.integer] | None = None
    n_classes: int = 0
    digest: str = ""
    chosen: NDArray[np.intp] | None = None

    @cached_property
    def whole(self) -> Examples:
        """The same examples in a single block: faster, where no standard error is asked for."""
        return replace(self, blocks=one_block(self.blocks.examples))

    @cached_property
    def by_class_size(self) -> tuple[ClassesOfOneSize, ...]:
        """The classes that occur, those with equally many examples together."""
        if self.truth is None:
            raise ValueError("there are no true classes")
        present, codes, sizes = np.unique(self.truth, return_inverse=True, return_counts=True)
        shares = np.zeros((len(present), len(self.blocks.sizes)))
        np.add.at(shares, (codes, self.blocks.of_example), 1)
        found = []
        for size in np.unique(sizes):
            own = np.flatnonzero(sizes == size)
            chosen = np.isin(codes, own)
            by_class = np.searchsorted(own, codes[chosen])
            found.append(
                ClassesOfOneSize(
                    1 / (float(size) * len(present)),
                    chosen,
                    self.blocks.among(chosen),
                    laid_out(np.arange(len(by_class)), by_class, len(own)),
                    shares[own] / size,
                )
            )
        return tuple(found)


@dataclass(frozen=True, eq=False)
class ClassesOfOneSize:
    """Classes with equally many examples, each of which weighs the same in a mean over classes.

    Attributes:
        weight: of an example: 1 / (size of its class * number of classes).
        chosen: (n,) bool, examples of these classes.
        blocks: their places in the blocks.
        classes: their places by class.
        shares: (classes, blocks) of each class's examples, how many are in each block.
    """

    weight: float
    chosen: NDArray[np.bool_]
    blocks: ExampleBlocks
    classes: ExampleBlocks
    shares: NDArray[np.float64]


def one_block(n: int) -> ExampleBlocks:
    """All of n examples in one block, in their order."""
    return example_blocks(np.arange(n, dtype=np.uint64), None, 1)


def histogram(codes: NDArray[np.integer], classes: int) -> NDArray[np.float64]:
    """(rows, classes) how often each code is in each row of codes (rows, n)."""
    places = codes + classes * np.arange(len(codes))[:, None]
    counts = np.bincount(places.ravel(), minlength=len(codes) * classes)
    return counts.reshape(len(codes), classes).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs of H heads on n examples. A slice of it holds some of the heads.

    What is made of the outputs on the way has the heads as its first axis. It is kept, and slices
    have their share of it.

    Attributes:
        predicted: (H, n) codes of classes, or values less the training mean of the target.
        examples: those that are predicted.
        probabilities: (H, n, C) float32, where a measure needs them.
    """

    predicted: NDArray[Any]
    examples: Examples
    probabilities: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.predicted)

    def __getitem__(self, rows: slice) -> Outputs:
        given = {field.name for field in fields(self)}
        made = {name: value[rows] for name, value in vars(self).items() if name not in given}
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        part = replace(self, predicted=self.predicted[rows], probabilities=probabilities)
        vars(part).update(made)
        return part

    @property
    def n_blocks(self) -> int:
        """How many blocks its examples are in."""
        return len(self.examples.blocks.sizes)

    @cached_property
    def planes(self) -> Planes:
        """(H, planes, words) bits of the codes, block by block."""
        return pack(self.examples.blocks.deal(self.predicted))

    @cached_property
    def right_planes(self) -> Planes:
        """(H, 1, words) bits that say which examples a head gets right."""
        right = self.predicted == self.examples.truth
        return pack(self.examples.blocks.deal(right.view(np.uint8)))

    @cached_property
    def right(self) -> NDArray[np.int32]:
        """(H, blocks) how many examples a head gets right: that differ from a row of zeros."""
        nothing = np.zeros_like(self.right_planes[:1])
        return count_block_differences(self.right_planes, nothing, self.n_blocks)[:, 0]

    @cached_property
    def histogram(self) -> NDArray[np.float64]:
        """(H, C) how often each class is predicted."""
        return histogram(self.predicted, self.examples.n_classes)

    @cached_property
    def finite(self) -> NDArray[np.bool_]:
        """(H,) heads whose values are finite."""
        return is_finite(self.predicted)

    @cached_property
    def directed(self) -> NDArray[np.bool_]:
        """(H,) heads whose values have a direction."""
        return has_direction(self.predicted)

    @cached_property
    def values(self) -> Values:
        """(H, n) values, block after block; zeros where they are not finite."""
        safe = np.where(self.finite[:, None], self.predicted, 0.0)
        return np.take(safe, np.concatenate(self.examples.blocks.members), axis=1)

    @cached_property
    def directions(self) -> Values:
        """(H, n) the same, of length one."""
        return unit_rows(self.values)

"""Features in blocks of rows: a matrix in memory, or one that stays in its file and is streamed.

A solver takes `Features` and reads them by `blocks` and `gather`, so that neither a copy nor a
float64 twin of the whole matrix is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from td_ray.errors import InputError

if TYPE_CHECKING:  # a scaling is fitted on such rows, so its module imports this one
    from td_ray.heads.scaling import Scaling


class ScaledRows:
    """Chosen rows of a matrix, scaled as they are read; the matrix may be a memory map.

    Reading a block touches the pages of its own rows alone. What is read may share memory with the
    matrix: do not write to it.

    Attributes:
        shape: (rows, width after scaling).
        dtype: what blocks come in: the matrix's own without a scaling, else as `Scaling.apply`.
        device: where blocks come to.
    """

    def __init__(
        self,
        matrix: Tensor,
        rows: Tensor | None = None,
        scaling: Scaling | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Choose rows; nothing is read.

        Args:
            matrix: (N, d) floating point, such as `torch.from_numpy` of an `np.memmap`.
            rows: (N,) bool, or int64 row numbers that increase; None for all.
            scaling: applied to every block; None leaves the rows as they are.
            device: of the blocks, and of the scaling's statistics.

        Raises:
            InputError: not such a matrix, rows or scaling.
        """
        if matrix.ndim != 2 or not matrix.is_floating_point():
            raise InputError(
                "features must be a floating-point matrix with a row per sample, "
                f"not {tuple(matrix.shape)} {matrix.dtype}"
            )
        self._matrix = matrix
        self._rows = _row_numbers(rows, len(matrix))
        self._scaling = scaling
        self._device = torch.device(device)
        none = self._scale(matrix[:0])
        self.dtype, self.device = none.dtype, none.device
        count = len(matrix) if self._rows is None else len(self._rows)
        self.shape = torch.Size((count, none.shape[1]))

    def __len__(self) -> int:
        """The number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        """The rows of a slice of step 1."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise InputError(f"rows are read in runs, not with step {step}")
        if self._rows is None:
            return self._scale(self._matrix[start:stop])
        return self._scale(gather(self._matrix, self._rows[start:stop]))

    def rows(self, index: Tensor) -> Tensor:
        """The rows at int64 positions among the chosen ones, in that order."""
        index = index.to(self._matrix.device)
        chosen = index if self._rows is None else self._rows[index]
        return self._scale(gather(self._matrix, chosen))

    def materialise(self) -> Tensor:
        """All rows, scaled, as a tensor of their own."""
        whole = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        for rows, block in blocks(self, MATERIALISED_AT_ONCE):
            whole[rows] = block
        return whole

    def _scale(self, block: Tensor) -> Tensor:
        block = block.to(self._device)
        return block if self._scaling is None else self._scaling.apply(block)


Features = Tensor | ScaledRows

MATERIALISED_AT_ONCE = 1024


def blocks(features: Features, rows: int) -> Iterator[tuple[slice, Tensor]]:
    """Runs of at most `rows` rows, in order, each with where it lies."""
    for start in range(0, len(features), rows):
        run = slice(start, min(start + rows, len(features)))
        yield run, features[run]


def gather(features: Features, index: Tensor) -> Tensor:
    """The rows at int64 positions, in that order; a run of neighbours costs no copy."""
    if isinstance(features, ScaledRows):
        return features.rows(index)
    if len(index) and bool((index.diff() == 1).all()):
        start = int(index[0])
        return features[start : start + len(index)]
    return features.index_select(0, index.to(features.device))


def _row_numbers(rows: Tensor | None, count: int) -> Tensor | None:
    """(n,) int64 row numbers of a mask or of row numbers; None for all rows."""
    if rows is None:
        return None
    rows = rows.cpu()
    if rows.dtype == torch.bool and rows.shape == (count,):
        return rows.nonzero().squeeze(1)
    if rows.dtype != torch.int64 or rows.ndim != 1:
        raise InputError(
            f"rows must be a bool for each of {count} rows, or int64 row numbers, "
            f"not {tuple(rows.shape)} {rows.dtype}"
        )
    if bool((rows.diff() <= 0).any()) or (len(rows) and not 0 <= rows[0] <= rows[-1] < count):
        raise InputError(f"row numbers must increase and lie in 0 to {count - 1}")
    return rows

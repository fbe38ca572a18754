"""Fixed blocks of examples, from whose sums standard errors are made.

The examples of each true class are put in the order of their keys and dealt to the blocks in turn,
the next class where the last one ended. So every block has each class's share to within one
example, blocks differ by at most one example, and who is in which depends on the keys and labels
alone, not on the order of the rows. Such blocks stand for evaluation splits with the same number
of examples of each class, as stratified splits have; they vary less than random ones. Examples
that come in groups, such as a patient's, stay together: groups are dealt, whatever their classes.

Example r of block b is bit r % 64 of word (r // 64) * blocks + b: words of different blocks lie
side by side, each word belongs to one block, and the sum over blocks is the count of all.

    dealt = example_blocks(keys(ids, "blocks"), labels)
    planes = pack(dealt.deal(codes))
    counts = count_block_differences(planes, planes, len(dealt.sizes))
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.measures.bit_planes import WORD

BLOCKS = 40
NOBODY = -1


@dataclass(frozen=True, eq=False)
class ExampleBlocks:
    """Where each example's bit is.

    Attributes:
        order: (places,) int32, the example at each bit, -1 for bits of none; whole words.
        sizes: (blocks,) int64, examples of each block.
        of_example: (n,) int32, the block of each example.
    """

    order: NDArray[np.int32]
    sizes: NDArray[np.int64]
    of_example: NDArray[np.int32]

    @property
    def examples(self) -> int:
        """How many were dealt."""
        return len(self.of_example)

    @cached_property
    def members(self) -> tuple[NDArray[np.intp], ...]:
        """The examples of each block, in the order of their bits."""
        of_bit = self.order.reshape(-1, len(self.sizes), WORD).swapaxes(0, 1)
        return tuple(block[block != NOBODY].astype(np.intp) for block in of_bit)

    def deal(self, codes: NDArray[Any]) -> NDArray[Any]:
        """(rows, n) to (rows, places); zero where there is no example, so that rows agree there.

        Raises:
            InputError: codes of another number of examples.
        """
        if codes.shape[1] != self.examples:
            raise InputError(
                f"the blocks are of {self.examples} examples, the codes of {codes.shape[1]}"
            )
        dealt = np.take(codes, np.maximum(self.order, 0), axis=1)
        dealt[:, self.order == NOBODY] = 0
        return dealt

    def among(self, chosen: NDArray[np.bool_]) -> ExampleBlocks:
        """The same blocks of some examples, (n,) bool; numbers are those among the chosen."""
        number = np.cumsum(chosen) - 1
        dealt = np.concatenate(self.members)
        dealt = dealt[chosen[dealt]]
        return laid_out(number[dealt], self.of_example[dealt], len(self.sizes))


def example_blocks(
    keys: NDArray[np.uint64],
    labels: NDArray[Any] | None = None,
    blocks: int = BLOCKS,
    groups: NDArray[np.uint64] | None = None,
) -> ExampleBlocks:
    """Deal examples to blocks.

    Args:
        keys: (n,) of the samples' ids, random and without repeats: `tasks.splits.keys`, which are
            the same on every platform.
        labels: (n,) true classes, or None to deal all examples as one class.
        blocks: how many; each example is its own where there are fewer examples.
        groups: (n,) keys of the groups that stay whole, or None.

    Raises:
        InputError: no examples, no blocks, or labels of other examples.
    """
    n = len(keys)
    if n == 0 or blocks < 1:
        raise InputError(f"{n} examples cannot be dealt to {blocks} blocks")
    if labels is not None and labels.shape != (n,):
        raise InputError(f"labels must be one per example, {n}, not {labels.shape}")
    by_key = np.argsort(keys, kind="stable")
    dealt = by_key if labels is None else by_key[np.argsort(labels[by_key], kind="stable")]
    if groups is None:
        blocks = min(blocks, n)
        return laid_out(dealt, np.arange(n) % blocks, blocks)
    distinct, group = np.unique(groups, return_inverse=True)
    blocks = min(blocks, len(distinct))
    return laid_out(dealt, group[dealt] % blocks, blocks)


def laid_out(dealt: NDArray[Any], block: NDArray[Any], blocks: int) -> ExampleBlocks:
    """Give bits to the examples `dealt` (n,), in this order; `block` (n,) is that of each."""
    n, sizes = len(dealt), np.bincount(block, minlength=blocks)
    by_block = np.argsort(block, kind="stable")
    place = np.empty(n, dtype=np.int64)
    place[by_block] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    words = -(-int(sizes.max()) // WORD)
    order = np.full(words * blocks * WORD, NOBODY, dtype=np.int32)
    order[(place // WORD * blocks + block) * WORD + place % WORD] = dealt
    of_example = np.empty(n, dtype=np.int32)
    of_example[dealt] = block
    return ExampleBlocks(order, sizes, of_example)

"""Fixed blocks of examples, from whose counts intervals can be made.

The examples of each true class are put in the order of their keys and dealt to the blocks in turn,
the next class where the last one ended. So every block has each class's share to within one
example, blocks differ by at most one example, and who is in which depends on the keys and labels
alone, not on the order of the rows. Such blocks stand for evaluation splits with the same number
of examples of each class, as stratified splits have; they vary less than random ones.

One layout of the bits serves all counts. Example r of block b is bit r % 64 of word
(r // 64) * blocks + b: words of different blocks lie side by side, each word belongs to one block,
and the sum over blocks is the count of all. Within a block the examples are sorted by class, and
place r holds the same class in all blocks but where two classes meet. So the counts of classes, of
which td_macro is the mean, come from the same words, with a mask for each class that a word holds.
Words of its own for each class of each block would need no masks, but a hundred classes in forty
blocks are 4,000 words where 160 hold 10,000 examples.

    dealt = example_blocks(keys(ids, "blocks:0"), labels)
    planes = pack(dealt.deal(codes))
    counts = count_block_differences(planes, planes, len(dealt.sizes))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.measures.bit_planes import WORD

BLOCKS = 40
NOBODY = -1


@dataclass(frozen=True)
class ExampleBlocks:
    """Where each example's bit is.

    Attributes:
        order: (places,) int64, the example at each bit, -1 for bits of none; whole words.
        sizes: (blocks,) int64, examples of each block.
        of_example: (n,) int64, the block of each example.
    """

    order: NDArray[np.int64]
    sizes: NDArray[np.int64]
    of_example: NDArray[np.int64]

    @property
    def examples(self) -> int:
        """How many were dealt."""
        return len(self.of_example)

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


def example_blocks(
    keys: NDArray[np.uint64], labels: NDArray[Any] | None = None, blocks: int = BLOCKS
) -> ExampleBlocks:
    """Deal examples to blocks.

    Args:
        keys: (n,) of the samples' ids, random and without repeats: `tasks.splits.keys`, which are
            the same on every platform.
        labels: (n,) true classes, or None to deal all examples as one class.
        blocks: how many; each example is its own where there are fewer examples.

    Raises:
        InputError: no examples, no blocks, or labels of other examples.
    """
    n = len(keys)
    if n == 0 or blocks < 1:
        raise InputError(f"{n} examples cannot be dealt to {blocks} blocks")
    if labels is not None and labels.shape != (n,):
        raise InputError(f"labels must be one per example, {n}, not {labels.shape}")
    blocks = min(blocks, n)
    by_key = np.argsort(keys, kind="stable")
    dealt = by_key if labels is None else by_key[np.argsort(labels[by_key], kind="stable")]
    place, block = np.divmod(np.arange(n), blocks)
    words = -(-n // (blocks * WORD))
    order = np.full(words * blocks * WORD, NOBODY, dtype=np.int64)
    order[(place // WORD * blocks + block) * WORD + place % WORD] = dealt
    of_example = np.empty(n, dtype=np.int64)
    of_example[dealt] = block
    return ExampleBlocks(order, np.bincount(block, minlength=blocks), of_example)

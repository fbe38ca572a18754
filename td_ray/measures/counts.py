"""Statistics of predicted classes: counts of examples, by block, for every pair of heads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from td_ray.measures.bit_planes import count_block_differences, pack
from td_ray.measures.example_blocks import ExampleBlocks
from td_ray.measures.outputs import Outputs, histogram
from td_ray.measures.sums import Sums, summed


def examples(a: Outputs, b: Outputs) -> Sums:
    """How many examples there are."""
    return summed(a.examples.blocks.sizes[None, None])


def classes(a: Outputs, b: Outputs) -> Sums:
    """How many classes the task has, whatever is left out."""
    return Sums(np.array([[a.examples.n_classes]]), np.zeros((1, 1, a.n_blocks)))


def differ(a: Outputs, b: Outputs) -> Sums:
    """Examples that are predicted differently."""
    return summed(count_block_differences(a.planes, b.planes, a.n_blocks))


def one_right(a: Outputs, b: Outputs) -> Sums:
    """Examples that exactly one of the two gets right."""
    return summed(count_block_differences(a.right_planes, b.right_planes, a.n_blocks))


def right_a(a: Outputs, b: Outputs) -> Sums:
    """Examples that the first gets right."""
    return summed(a.right[:, None])


def right_b(a: Outputs, b: Outputs) -> Sums:
    """Examples that the second gets right."""
    return summed(b.right[None])


def differ_by_class(a: Outputs, b: Outputs) -> Sums:
    """The mean over classes of the share of their examples that are predicted differently.

    Without block g, of m_g of the n examples, the share p_c of a class with n_c examples, n_cg of
    them in the block, d_cg of these predicted differently, is to first order

        p_c - (d_cg - n_cg p_c) / n_c * n / (n - m_g)

    which has a value where all examples of a rare class are in one block. How many examples each
    class has is given: that a rare class is rare is no chance.
    """
    total = np.zeros((len(a), len(b)))
    lost = np.zeros((len(a), len(b), a.n_blocks))
    for group in a.examples.by_class_size:
        of_block = _differ_among(a, b, group.chosen, group.blocks)
        total += group.weight * of_block.sum(axis=-1)
        if a.n_blocks > 1:
            of_class = _differ_among(a, b, group.chosen, group.classes)
            lost += group.weight * (of_block - of_class @ group.shares)
    sizes = a.examples.blocks.sizes
    return Sums(total, lost * (sizes.sum() / np.maximum(sizes.sum() - sizes, 1)))


def _differ_among(
    a: Outputs, b: Outputs, chosen: NDArray[np.bool_], blocks: ExampleBlocks
) -> NDArray[np.int32]:
    """(A, B, blocks) some of the examples that are predicted differently."""
    one, other = (pack(blocks.deal(side.predicted[:, chosen])) for side in (a, b))
    return count_block_differences(one, other, len(blocks.sizes))


def chance(a: Outputs, b: Outputs) -> Sums:
    """Sum over classes of how often the first predicts it times how often the second does.

    Over n^2 it is the agreement of two that predict independently. Without block g a product
    t u of counts becomes (t - t_g)(u - u_g), which is t u less t_g u + (t - t_g) u_g.
    """
    whole = a.histogram @ b.histogram.T
    if a.n_blocks == 1:
        return summed(whole[..., None])
    classes = a.examples.n_classes
    lost = np.empty((len(a), len(b), a.n_blocks))
    for number, members in enumerate(a.examples.blocks.members):
        here_a, here_b = (histogram(each.predicted[:, members], classes) for each in (a, b))
        lost[..., number] = here_a @ b.histogram.T + (a.histogram - here_a) @ here_b.T
    return Sums(whole, lost)

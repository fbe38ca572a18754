"""Statistics of predicted classes: counts of examples, by block, for every pair of heads."""

from __future__ import annotations

import numpy as np

from td_ray.measures.bit_planes import count_block_differences, pack
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


def class_weight(a: Outputs, b: Outputs) -> Sums:
    """The sum of the examples' weights, 1 / (size of the example's class * classes)."""
    found = np.zeros(a.n_blocks)
    for weight, _, blocks in a.examples.by_class_size:
        found += weight * blocks.sizes
    return summed(found[None, None])


def weighted_differ(a: Outputs, b: Outputs) -> Sums:
    """The weights of the examples that are predicted differently."""
    found = np.zeros((len(a), len(b), a.n_blocks))
    for weight, chosen, blocks in a.examples.by_class_size:
        one, other = (pack(blocks.deal(side.predicted[:, chosen])) for side in (a, b))
        found += weight * count_block_differences(one, other, a.n_blocks)
    return summed(found)


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

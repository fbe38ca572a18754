"""The demo's data set: scikit-learn's digits, with a regression target and a fixed split.

It needs no torch, and so neither does the process that plans the demo.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PRETRAINING_EXAMPLES = 300


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class DigitsTable:
    """The 1797 handwritten digits, with the labels and the split of the demo's tasks."""

    ids: list[str]
    """"0" to "1796", in scikit-learn's order."""
    images: NDArray[np.float32]
    """(1797, 8, 8), in [0, 1], 0 for the background."""
    label: NDArray[np.int64]
    """(1797,), the digit."""
    slant: NDArray[np.float64]
    """(1797,), pixels to the right per pixel upwards."""
    split: NDArray[np.str_]
    """(1797,), "train" or "test", half each, stratified by digit."""


def digits_table() -> DigitsTable:
    """Load the digits with their labels; the same table on every call."""
    # Imported here: a training task needs this module, but not scikit-learn.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)
    label = digits.target.astype(np.int64)
    index = np.arange(len(label))
    _, test = train_test_split(index, test_size=0.5, stratify=label, random_state=0)
    return DigitsTable(
        ids=[str(i) for i in index],
        images=images,
        label=label,
        slant=slant(images),
        split=np.where(np.isin(index, test), "test", "train"),
    )


def pretraining_set(table: DigitsTable) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images (300, 8, 8) and digits (300,) that the networks of the zoo are trained on.

    A fixed subset of the training split, stratified by digit: with all 898 images every
    strategy does well and there is little left to tell them apart.
    """
    from sklearn.model_selection import train_test_split

    train = np.flatnonzero(table.split == "train")
    chosen, _ = train_test_split(
        train, train_size=PRETRAINING_EXAMPLES, stratify=table.label[train], random_state=0
    )
    return table.images[chosen], table.label[chosen]


def slant(images: NDArray[np.floating]) -> NDArray[np.float64]:
    """Slant of the stroke in images (n, h, w): (n,), pixels to the right per pixel upwards.

    It is mu11 / mu02, from the central moments of the intensity: the slope of the regression
    of the ink's horizontal position on its height. Positive leans to the right, and scaling
    the intensity changes nothing. It is undefined where the ink lies in one row, and nan where
    there is none.
    """
    ink = images.astype(np.float64)
    mass = ink.sum(axis=(1, 2), keepdims=True)
    height, width = ink.shape[1:]
    up = -np.arange(height, dtype=np.float64)[:, None]  # row 0 is the top one
    right = np.arange(width, dtype=np.float64)[None, :]
    with np.errstate(invalid="ignore"):
        up = up - (ink * up).sum(axis=(1, 2), keepdims=True) / mass
        right = right - (ink * right).sum(axis=(1, 2), keepdims=True) / mass
        ratio: NDArray[np.float64] = (ink * up * right).sum((1, 2)) / (ink * up * up).sum((1, 2))
    return ratio

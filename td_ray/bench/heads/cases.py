"""What is fitted: features, labels, and the stack of heads on them.

The synthetic features have a decaying spectrum, as frozen features of networks do: Gaussian scores
with standard deviations 1, 1/2, 1/3, ..., turned by a random rotation. Labels are drawn from the
softmax of a linear teacher whose weights decay alike. All features are scaled column by column with
the training split's statistics and stored as float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from td_ray.errors import InputError
from td_ray.heads.scaling import fit_scaling
from td_ray.tasks import halves

Array = NDArray[Any]

L2 = 1e-3
HEADS = 32
TRAINING_ROWS, HELD_OUT_ROWS = 8_000, 2_000
# Beyond so many weights per head, scikit-learn needs tens of seconds for one.
LARGE = 2_560


@dataclass(frozen=True)
class Features:
    """Scaled features of two splits, with class codes 0..C-1; every class is in both halves.

    Attributes:
        name: what they are.
        train: (n, d) float32.
        codes: (n,) int64 labels of the training rows.
        test: (m, d) float32.
        test_codes: (m,) int64.
    """

    name: str
    train: Array
    codes: Array
    test: Array
    test_codes: Array

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.codes.max()) + 1


@dataclass(frozen=True)
class Stack:
    """K heads on the same features, at the penalty `L2`.

    Attributes:
        features: what they are fitted on.
        weights: (K, n) float64 of zeros and ones.
        codes: (K, n) int64 class codes.
        kind: what distinguishes the heads, in words.
        compared: the heads that rivals fit too, each with its share of the stack's heads: rivals'
            seconds are weighted so.
    """

    features: Features
    weights: Array
    codes: Array
    kind: str
    compared: dict[int, float]

    @property
    def case(self) -> str:
        """A line that names it."""
        rows, width = self.features.train.shape
        return (
            f"{self.features.name}, n {rows:,}, d {width:,}, C {self.features.classes}, {self.kind}"
        )


def seeds_stack(features: Features, heads: int = HEADS) -> Stack:
    """What a unit of a sweep fits: the full split, then halves of it, from as many seeds as needed.

    The codes are the same for all heads. Rivals fit the full split and two halves; of large
    problems, one half.
    """
    ids = np.arange(len(features.codes)).astype(str)
    rows = [np.ones(len(ids))]
    for seed in range(heads // 2):
        rows += [half.astype(float) for half in halves(ids, features.codes, "bench", seed)]
    codes = np.broadcast_to(features.codes, (heads, len(ids)))
    full = 1 / heads
    compared = {1: (1 - full) / 2, 2: (1 - full) / 2, 0: full}
    if features.classes * features.train.shape[1] > LARGE:
        compared = {1: 1.0}
    kind = f"full split and {heads - 1} halves"
    return Stack(features, np.stack(rows[:heads]), codes, kind, compared)


def targets_stack(features: Features, heads: int = HEADS) -> Stack:
    """A family of tasks: the full split with as many targets, each from a teacher of its own."""
    rows, width = features.train.shape
    random = np.random.default_rng(1)
    targets = [features.codes]
    for _ in range(heads - 1):
        teacher = random.standard_normal((width, features.classes))
        scores = features.train @ teacher
        scores *= _strength(features.classes) / scores.std()
        targets.append((scores + random.gumbel(size=scores.shape)).argmax(1))
    compared = dict.fromkeys(range(3), 1 / 3)
    kind = f"{heads} targets"
    return Stack(features, np.ones((heads, rows)), np.stack(targets), kind, compared)


def digits() -> Features:
    """The 64 pixels of scikit-learn's handwritten digits, 1,257 + 540 images."""
    x, y = load_digits(return_X_y=True)
    train, test, codes, test_codes = train_test_split(
        x, y, test_size=0.3, random_state=0, stratify=y
    )
    return _scaled("digits, pixels", train, codes, test, test_codes)


def synthetic(
    classes: int, width: int, rows: int = TRAINING_ROWS, held_out: int = HELD_OUT_ROWS
) -> Features:
    """Features with a decaying spectrum; the module says how they are drawn."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    decay = torch.arange(1, width + 1, dtype=torch.float64).reciprocal()
    rotation = torch.linalg.qr(normal(width, width))[0]
    latent = normal(rows + held_out, width)
    teacher = normal(classes, width) * decay
    teacher /= teacher.norm(dim=1, keepdim=True)  # a class with small weights would hardly occur
    scores = _strength(classes) * latent @ teacher.T
    gumbel = -torch.rand(scores.shape, generator=random, dtype=torch.float64).log_().neg_().log_()
    codes = (scores + gumbel).argmax(1).numpy()
    x = ((latent * decay) @ rotation).numpy()
    return _scaled("synthetic", x[:rows], codes[:rows], x[rows:], codes[rows:])


def _strength(classes: int) -> float:
    """Standard deviation of a teacher's scores; heads are then right about as often as real ones.

    For 2, 10 and 100 classes, on 90%, 80% and 60% of the held-out rows.
    """
    return float(3 * classes**0.35)


def stored(path: Path) -> Features:
    """Features from an npz file with the arrays train, train_labels, test and test_labels.

    Raises:
        InputError: it cannot be read, lacks an array, or holds what no head can be fitted on.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            train, labels, test, test_labels = (
                arrays[name] for name in ("train", "train_labels", "test", "test_labels")
            )
    except KeyError as error:
        raise InputError(
            f"{path}: {error.args[0]}; the file needs train (n, d), train_labels (n,), "
            "test (m, d) and test_labels (m,)"
        ) from None
    except (OSError, ValueError, BadZipFile) as error:
        raise InputError(f"{path}: not a readable npz file without pickles: {error}") from None
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        raise InputError(
            f"{path}: train and test must be matrices of one width, "
            f"not {train.shape} and {test.shape}"
        )
    for name, values in (("train", train), ("test", test)):
        if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise InputError(f"{path}: {name} must hold numbers without NaN or infinity")
    if labels.shape != (len(train),) or test_labels.shape != (len(test),):
        raise InputError(f"{path}: train_labels and test_labels must have a label per row")
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2 or counts.min() < 2:
        raise InputError(f"{path}: at least two classes with two training rows each are needed")
    if not np.isin(test_labels, names).all():
        raise InputError(f"{path}: test_labels holds a class that train_labels lacks")
    test_codes = np.searchsorted(names, test_labels)
    train, test = train.astype(np.float64), test.astype(np.float64)
    return _scaled(path.stem, train, codes, test, test_codes)


def _scaled(name: str, train: Array, codes: Array, test: Array, test_codes: Array) -> Features:
    scaling = fit_scaling(torch.from_numpy(train), "column")
    scaled = (
        scaling.apply(torch.from_numpy(part)).to(torch.float32).numpy() for part in (train, test)
    )
    first, second = scaled
    return Features(name, first, codes.astype(np.int64), second, test_codes.astype(np.int64))

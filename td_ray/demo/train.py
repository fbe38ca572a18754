"""Trains the demo's zoo on scikit-learn's digits: several strategies, several seeds.

Networks of one strategy see the same images and the same labels; only the seed differs, which
draws the initial weights, the order of the examples and the augmentation. So what their
features disagree on is never a difference between data sets.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import pi
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from td_ray.demo.networks import DIGITS, small_convnet

PRETRAINING_EXAMPLES = 300
EPOCHS = 60
BATCH = 50
LEARNING_RATE = 2e-3

LOOPS = (1, 0, 0, 0, 0, 0, 1, 0, 2, 1)
"""Closed loops in the stroke of each digit (4 written open): a coarser labelling, in 3 classes."""


@dataclass(frozen=True)
class Strategy:
    """One way to train the network; each knob is off by default."""

    name: str
    description: str
    rotation: float = 0.0
    """Largest random rotation, in degrees either way."""
    shift: float = 0.0
    """Largest random shift along each axis, in pixels either way."""
    pixel_noise: float = 0.0
    """Standard deviation of the noise added to the pixels, which are in [0, 1]."""
    mixup: bool = False
    """Train on convex combinations of two examples, with uniform weights."""
    label_noise: float = 0.0
    """Fraction of the labels replaced by another digit."""


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        strategy.name: strategy
        for strategy in (
            Strategy("plain", "No regularisation: the strategy to compare the others with."),
            Strategy("mixup", "Helps: trains on mixtures of two images.", mixup=True),
            Strategy("shifts", "Helps: random shifts of up to a pixel.", shift=1.0),
            Strategy(
                "augmentation",
                "Helps: random shifts, rotations and pixel noise.",
                rotation=10.0,
                shift=1.0,
                pixel_noise=0.1,
            ),
            Strategy("label_noise", "Hurts: part of the labels are wrong.", label_noise=0.3),
        )
    }
)


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class DigitsTable:
    """The 1797 handwritten digits, with the labels and the split of the demo's tasks."""

    ids: list[str]
    """"0" to "1796", in scikit-learn's order."""
    images: NDArray[np.float32]
    """(1797, 8, 8), in [0, 1], 0 for the background."""
    label: NDArray[np.int64]
    """(1797,), the digit."""
    loops: NDArray[np.int64]
    """(1797,), closed loops of the digit: 0, 1 or 2."""
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
        loops=np.array(LOOPS)[label],
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


def train(
    strategy: str,
    seed: int,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> dict[str, Tensor]:
    """Train one network on images (n, 8, 8) in [0, 1] and digits (n,); return its state dict.

    Equal arguments give equal bytes, in any process on one machine and with one version of torch.
    """
    recipe = STRATEGIES[strategy]
    with _deterministic_on_one_thread():
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.as_tensor(images, dtype=torch.float32)
        targets = _targets(torch.as_tensor(labels, dtype=torch.int64), recipe.label_noise)
        network = _initialised_network(generator)
        optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
        for _ in range(EPOCHS):
            for batch in torch.split(torch.randperm(len(inputs), generator=generator), BATCH):
                x, y = _augmented(inputs[batch], targets[batch], recipe, generator)
                optimizer.zero_grad()
                torch.autograd.backward(functional.cross_entropy(network(x), y))
                optimizer.step()
        return dict(network.state_dict())


def _initialised_network(generator: torch.Generator) -> nn.Module:
    """A new network with He-normal weights and zero biases drawn from `generator`."""
    # Built on the meta device, so that torch's global random state is neither used nor moved.
    with torch.device("meta"):
        network = small_convnet()
    network.to_empty(device="cpu")
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network


def _targets(labels: Tensor, noise: float) -> Tensor:
    """One-hot targets (n, 10) of labels (n,), a fraction `noise` of them wrong."""
    # The same labels are wrong for every seed: the data belong to the strategy.
    generator = torch.Generator().manual_seed(0)
    wrong = torch.randperm(len(labels), generator=generator)[: round(noise * len(labels))]
    offset = torch.randint(1, DIGITS, wrong.shape, generator=generator)
    labels = labels.clone()
    labels[wrong] = (labels[wrong] + offset) % DIGITS
    return functional.one_hot(labels, DIGITS).float()


def _augmented(
    x: Tensor, y: Tensor, recipe: Strategy, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A batch of images (b, 8, 8) and targets (b, 10) with the strategy's random changes."""
    if recipe.rotation or recipe.shift:
        x = _moved(x, recipe.rotation, recipe.shift, generator)
    if recipe.pixel_noise:
        x = x + recipe.pixel_noise * torch.randn(x.shape, generator=generator)
    if recipe.mixup:
        other = torch.randperm(len(x), generator=generator)
        weight = torch.rand(len(x), 1, generator=generator)
        x = torch.lerp(x, x[other], weight[:, :, None])
        y = torch.lerp(y, y[other], weight)
    return x, y


def _moved(x: Tensor, rotation: float, shift: float, generator: torch.Generator) -> Tensor:
    """Images (b, h, w), each rotated by up to `rotation` degrees and shifted by up to `shift`."""
    uniform = 2 * torch.rand(3, len(x), generator=generator) - 1
    angle = uniform[0] * rotation * pi / 180
    # affine_grid measures in half image sides, from the centre.
    across, down = uniform[1] * shift * 2 / x.shape[2], uniform[2] * shift * 2 / x.shape[1]
    cos, sin = angle.cos(), angle.sin()
    rows = [torch.stack([cos, -sin, across], 1), torch.stack([sin, cos, down], 1)]
    grid = functional.affine_grid(
        torch.stack(rows, 1), [len(x), 1, *x.shape[1:]], align_corners=False
    )
    return functional.grid_sample(x[:, None], grid, align_corners=False)[:, 0]


@contextmanager
def _deterministic_on_one_thread() -> Iterator[None]:
    """Run torch deterministically on one thread, then restore how it was."""
    threads = torch.get_num_threads()
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.set_num_threads(threads)

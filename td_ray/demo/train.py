"""Trains the demo's zoo on scikit-learn's digits: several strategies, several seeds.

Networks of one strategy see the same images and the same labels; only the seed differs, which
draws the initial weights, the order of the examples and the augmentation. So what their
features disagree on is never a difference between data sets.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import pi

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from td_ray.demo.networks import DIGITS, small_convnet
from td_ray.demo.strategies import STRATEGIES, Strategy

EPOCHS = 60
BATCH = 50
LEARNING_RATE = 2e-3


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

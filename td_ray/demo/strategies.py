"""The ways in which the demo's networks are trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


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
            Strategy("mixup", "Helps on new digits: trains on mixtures of two images.", mixup=True),
            Strategy("shifts", "Helps on new digits: random shifts of up to a pixel.", shift=1.0),
            Strategy(
                "augmentation",
                "Helps on new digits: random shifts, rotations and pixel noise.",
                rotation=10.0,
                shift=1.0,
                pixel_noise=0.1,
            ),
            Strategy("label_noise", "Hurts: three labels in ten are wrong.", label_noise=0.3),
        )
    }
)

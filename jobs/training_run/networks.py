"""The factory that experiment.yaml names: it lies beside the experiment."""

from torch import nn


def build(hidden: int = 64) -> nn.Module:
    """A perceptron for 8x8 images; its penultimate features are (n, hidden)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )

"""The network of the demo's zoo, as a checkpoint factory that needs torch and nothing else."""

from torch import nn

DIGITS = 10


def small_convnet(width: int = 64) -> nn.Module:
    """A small convolutional network for 8x8 grey images.

    Takes float32 images of shape (n, 8, 8) in [0, 1] and returns logits of shape (n, 10). The
    input of the last layer, `nn.Linear(width, 10)`, is the representation: `width`
    non-negative penultimate features per image. Nothing in it depends on the batch (no batch
    normalisation), so an image has the same features whichever images it is computed with.
    """
    return nn.Sequential(
        nn.Unflatten(1, (1, 8)),  # (n, 8, 8) -> (n, 1, 8, 8)
        nn.Conv2d(1, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),  # (n, 32, 4, 4)
        nn.Conv2d(32, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),  # (n, 32, 2, 2)
        nn.Flatten(),
        nn.Linear(128, width),
        nn.ReLU(),
        nn.Linear(width, DIGITS),
    )

"""Blocks of images: an array, or a list of images of different sizes; grey ones become RGB.

An image is (h, w) or (h, w, 3), uint8 or floats in [0, 1]. Nothing here keeps anything, so
threads may prepare blocks at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import WorkError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from td_ray.tasks.inputs import Block


def prepare_images(block: Block, transform: Callable[[Tensor], Tensor], who: str) -> Tensor:
    """Return a block of images as one batch.

    Args:
        block: images.
        transform: takes (n, 3, h, w), uint8 or float32 in [0, 1], n images of one size.
        who: the model's name, for errors.

    Raises:
        WorkError: inputs that are no images, or results that differ in shape.
    """
    if isinstance(block, np.ndarray) and block.dtype != object:
        return transform(as_tensor(block, who))
    return stack([transform(as_tensor(image[None], who))[0] for image in each(block)], who)


def as_tensor(images: NDArray[Any], who: str) -> Tensor:
    """(n, h, w) or (n, h, w, 3) to (n, 3, h, w) of the same values.

    Raises:
        WorkError: other shapes, types or values.
    """
    import torch

    colour = _as_rgb(images, who)
    return torch.from_numpy(np.ascontiguousarray(colour.transpose(0, 3, 1, 2)))


def as_pillow(block: Block, who: str) -> list[Image]:
    """A block as Pillow's images, in RGB; floats are rounded to 8 bits.

    Raises:
        WorkError: inputs that are no images.
    """
    from PIL import Image

    images = (_as_rgb(image[None], who)[0] for image in each(block))
    eight_bits = (x if x.dtype == np.uint8 else np.rint(x * 255).astype(np.uint8) for x in images)
    return [Image.fromarray(np.ascontiguousarray(image)) for image in eight_bits]


def each(block: Block) -> list[NDArray[Any]]:
    """The inputs of a block, one by one."""
    return [np.asarray(image) for image in block]


def stack(tensors: Sequence[Tensor], who: str) -> Tensor:
    """Stack prepared images.

    Raises:
        WorkError: they differ in shape; the message names the first that does.
    """
    import torch

    for position, tensor in enumerate(tensors):
        if tensor.shape != tensors[0].shape:
            raise WorkError(
                f"model '{who}' takes images of one size: prepared, the first is "
                f"{tuple(tensors[0].shape)} and the one at position {position} of its batch "
                f"{tuple(tensor.shape)}; bring them to one size"
            )
    return torch.stack(list(tensors))


def _as_rgb(images: NDArray[Any], who: str) -> NDArray[Any]:
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=-1)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise WorkError(
            f"model '{who}' takes images (n, height, width) or (n, height, width, 3), "
            f"not inputs of shape {images.shape}"
        )
    kind = images.dtype
    if kind != np.uint8 and (kind.kind != "f" or not (images.min() >= 0 and images.max() <= 1)):
        extent = f" from {images.min()} to {images.max()}" if kind.kind in "fiub" else ""
        raise WorkError(
            f"model '{who}' takes images as uint8 or as floats in [0, 1], not {kind}{extent}"
        )
    return images

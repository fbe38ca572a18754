"""Blocks of images: arrays and lists, grey and colour, and what is no image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from td_ray.errors import WorkError
from td_ray.zoo.images import as_pillow, as_tensor, prepare_images

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    "images",
    [
        np.random.default_rng(0).random((2, 8, 8), dtype=np.float32),
        np.random.default_rng(0).random((2, 8, 8)),
        np.random.default_rng(0).random((2, 8, 8, 3)),
        np.arange(384, dtype=np.uint8).reshape(2, 8, 8, 3),
        np.arange(128, dtype=np.uint8).reshape(2, 8, 8),
    ],
)
def test_images(images: NDArray[Any]) -> None:
    found = as_tensor(images, "m").numpy()
    assert found.shape == (2, 3, 8, 8)
    assert found.dtype == images.dtype
    plane = images if images.ndim == 3 else images[..., 1]
    np.testing.assert_array_equal(found[:, 1], plane)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 8)), r"not inputs of shape \(2, 8\)"),
        (np.zeros((2, 3, 8, 8)), r"not inputs of shape \(2, 3, 8, 8\)"),
        (np.zeros((2, 8, 8, 1)), r"not inputs of shape \(2, 8, 8, 1\)"),
        (np.full((2, 8, 8), 255.0), r"floats in \[0, 1\], not float64 from 255.0 to 255.0"),
        (np.full((2, 8, 8), -0.5), r"floats in \[0, 1\]"),
        (np.zeros((2, 8, 8), dtype=np.int64), "not int64"),
    ],
)
def test_what_is_no_image(images: NDArray[Any], words: str) -> None:
    with pytest.raises(WorkError, match=f"^model 'm' takes images .*{words}"):
        as_tensor(images, "m")


def half(images: Tensor) -> Tensor:
    return images[..., :4, :4].float()


def test_a_list_gives_what_an_array_gives() -> None:
    images = RANDOM.integers(0, 255, (5, 8, 9), dtype=np.uint8)
    found = prepare_images(list(images), half, "m")
    assert found.shape == (5, 3, 4, 4)
    np.testing.assert_array_equal(found, prepare_images(images, half, "m"))


def test_images_of_different_sizes_grey_and_colour() -> None:
    images = [RANDOM.random((5, 7)), RANDOM.random((9, 6, 3))]
    found = prepare_images(images, half, "m")
    np.testing.assert_allclose(found[0, 2], images[0][:4, :4])
    np.testing.assert_allclose(found[1, 2], images[1][:4, :4, 2])


def test_results_that_differ_in_size_name_the_position() -> None:
    images = [np.zeros((8, 8)), np.zeros((8, 8)), np.zeros((8, 9))]
    with pytest.raises(WorkError, match=r"\(3, 8, 8\) and the one at position 2 .*\(3, 8, 9\)"):
        prepare_images(images, lambda image: image, "m")


def test_a_list_with_something_else_in_it() -> None:
    with pytest.raises(WorkError, match=r"^model 'm' takes images"):
        prepare_images([np.zeros((8, 8)), np.zeros(3)], half, "m")
    with pytest.raises(WorkError, match=r"^model 'm' takes images"):
        as_pillow(["a text"], "m")


def test_pillow() -> None:
    one, other = as_pillow([np.full((2, 3), 0.5), np.full((4, 5, 3), 7, dtype=np.uint8)], "m")
    assert (one.size, one.mode, one.getpixel((0, 0))) == ((3, 2), "RGB", (128, 128, 128))
    assert (other.size, other.getpixel((0, 0))) == ((5, 4), (7, 7, 7))

"""Image files: found, decoded to RGB, and told apart from damaged ones."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import WorkError
from td_ray.files import fingerprint, one_line, write_json
from td_ray.tasks.inputs import Block, as_block

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""Endings of image files, in lower case."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What these files may hold: Pillow goes by content, and would hand EPS to Ghostscript to run."""

SHOWN = 8
"""How many damaged files an error names."""


@dataclass(frozen=True)
class ImageFiles:
    """Images that are decoded when their block is read: uint8 arrays (h, w, 3).

    Attributes:
        root: the folder that paths start at.
        paths: one per sample, relative to ``root``.
        cache: where it is kept which files are damaged.
    """

    root: Path
    paths: tuple[str, ...]
    cache: Path

    def __len__(self) -> int:
        """The number of images."""
        return len(self.paths)

    def __getitem__(self, rows: slice, /) -> Block:
        """Decode a slice: an array (n, h, w, 3) where all have one size, else a list.

        Raises:
            WorkError: damaged images; names those of the whole folder.
        """
        images = []
        for path in self.paths[rows]:
            content = (self.root / path).read_bytes()  # what this raises is the machine's trouble
            try:
                images.append(decode(content))
            except Exception as error:  # Pillow's readers raise far more than they document
                raise self._damaged(path, error) from None
        return as_block(images)

    def _damaged(self, path: str, error: Exception) -> WorkError:
        bad = damaged(self.root, self.paths, self.cache) or [path]
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        return WorkError(
            f"{len(bad)} of {len(self)} images in {self.root} cannot be decoded "
            f"({one_line(error)}): {', '.join(bad[:SHOWN])}{more}; replace them, "
            "or say corrupted: skip"
        )


def decode(content: bytes) -> NDArray[np.uint8]:
    """Decode an image file to (h, w, 3): upright as its EXIF says, what is transparent on white.

    Raises:
        Exception: it is no image, or a damaged one.
    """
    from PIL import Image, ImageOps

    with Image.open(BytesIO(content), formats=FORMATS) as file:
        image: Image.Image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):  # 16 bits; Pillow would cut off all but the lowest eight
            eight = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255)
            image = Image.fromarray(eight.astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(image.convert("RGB"))


def damaged(root: Path, paths: Sequence[str], cache: Path) -> list[str]:
    """Return those of the paths that cannot be decoded, in their order.

    What was found is kept in the cache by path, size and time, so that each file is tried once.
    """
    memory = cache / "images" / f"{fingerprint(os.path.abspath(root))}.json"
    known = _remembered(memory)
    stamps = {path: _stamp(root / path) for path in paths}
    new = [path for path in paths if known.get(path, [])[:2] != stamps[path]]
    with ThreadPoolExecutor() as pool:
        fine = pool.map(lambda path: _decodes(root / path), new)
        known.update((path, [*stamps[path], good]) for path, good in zip(new, fine, strict=True))
    if new:
        with suppress(OSError):  # a cache that cannot be written costs time, nothing else
            write_json(memory, known)
    return [path for path in paths if not known[path][2]]


def _decodes(path: Path) -> bool:
    content = path.read_bytes()
    try:
        decode(content)
    except Exception:  # Pillow's readers raise far more than they document
        return False
    return True


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _remembered(memory: Path) -> dict[str, list[Any]]:
    try:
        found = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {path: row for path, row in found.items() if isinstance(row, list) and len(row) == 3}

"""A folder of images, a folder per class.

data:
  - {name: pets, source: image_folder, path: images}       # images/cat/1.jpg, images/dog/2.png
  - name: birds
    source: image_folder
    path: birds                                            # birds/train/crow/1.jpg, birds/test/...
    split_folders: true
    corrupted: skip
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import model_validator

from td_ray.errors import InputError, SkippedSamplesWarning
from td_ray.files import Digest
from td_ray.registry import DATA_SOURCES
from td_ray.tasks.dataset import DataSource, Samples
from td_ray.tasks.images import SHOWN, SUFFIXES, ImageFiles, damaged


@DATA_SOURCES.register("image_folder")
class ImageFolder(DataSource):
    """Images whose class is the name of the folder they lie in.

    Sample ids are paths relative to the root, with forward slashes. The column ``label`` is the
    class. Inputs are uint8 arrays (h, w, 3) in RGB, upright, transparent ones on white. Dot files
    and files that are no images are left out.

    Attributes:
        path: the root.
        split_folders: the first level is the split, such as ``train`` and ``test``, and becomes
            the column ``split``, which is then the split unless another one is asked for.
        corrupted: ``skip`` decodes all images once while planning, and leaves out, for all
            models alike, those that cannot be; by default they fail the models that meet them.
    """

    path: str
    split_folders: bool = False
    corrupted: Literal["fail", "skip"] = "fail"

    @model_validator(mode="before")
    @classmethod
    def _split_of_the_folders(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("split_folders") is True:
            return {"split": {"column": "split"}, **value}
        return value

    def read(self, folder: Path, cache: Path) -> Samples:
        """Find the images; see ``DataSource``."""
        where = f"data set '{self.name}'"
        root = folder / self.path
        paths = self._find(root, where)
        if self.corrupted == "skip":
            paths = _without_damaged(root, paths, cache, where)
        parts = np.array([path.split("/", 2)[:2] for path in paths])
        columns = {"label": parts[:, 0]}
        if self.split_folders:
            columns = {"label": parts[:, 1], "split": parts[:, 0]}
        return Samples(np.array(paths), columns, partial(ImageFiles, root, tuple(paths), cache))

    def inputs_identity(self, folder: Path, digest: Digest) -> Any:
        """The digest of all files' bytes; the ids say which of them are used."""
        root = folder / self.path
        return digest([root / path for path in self._find(root, f"data set '{self.name}'")])

    def _find(self, root: Path, where: str) -> list[str]:
        """Paths of all images, sorted."""
        if not root.is_dir():
            raise InputError(f"{where}: no folder at {root}")
        firsts = _folders(root, "", where, "a class" if not self.split_folders else "a split")
        classes = firsts
        if self.split_folders:
            classes = [name for first in firsts for name in _folders(root, first, where, "a class")]
        paths: list[str] = []
        for name in classes:
            found = sorted(_images(root, name))
            if not found:
                raise InputError(
                    f"{where}: the class folder {root / name} holds no images; fill or delete it"
                )
            paths.extend(found)
        if not paths:
            raise InputError(
                f"{where}: {root} has no class folders with images in them, such as "
                f"{root / 'train' if self.split_folders else root}/cat/1.jpg"
            )
        for path in paths:
            if not path.isprintable():  # control characters, or bytes that are not UTF-8
                raise InputError(f"{where}: the name of {root}/{path!r} is no text; rename it")
        return paths


def _folders(root: Path, inside: str, where: str, what: str) -> list[str]:
    """Folders in a folder, relative to the root, sorted; images beside them have no label."""
    found = []
    with os.scandir(root / inside) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                found.append(f"{inside}/{entry.name}" if inside else entry.name)
            elif _is_image(entry.name):
                raise InputError(
                    f"{where}: {entry.path} lies in no folder of {what}, so it has no label; "
                    "the folder that an image lies in is its class"
                )
    return sorted(found)


def _images(root: Path, folder: str) -> Iterator[str]:
    top = str(root)
    for place, folders, files in os.walk(root / folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(place, top).replace(os.sep, "/")
        yield from (f"{inside}/{name}" for name in files if _is_image(name))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _without_damaged(root: Path, paths: list[str], cache: Path, where: str) -> list[str]:
    bad = damaged(root, paths, cache)
    if not bad:
        return paths
    if len(bad) == len(paths):
        raise InputError(f"{where}: none of the {len(paths)} images in {root} can be decoded")
    more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    warnings.warn(
        f"{where}: {len(bad)} of {len(paths)} images cannot be decoded and are left out: "
        f"{', '.join(bad[:SHOWN])}{more}",
        SkippedSamplesWarning,
        stacklevel=2,
    )
    left_out = set(bad)
    return [path for path in paths if path not in left_out]

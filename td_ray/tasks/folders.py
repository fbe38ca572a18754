"""The files of a data set that a library reads: which they are, and whether they have changed."""

from __future__ import annotations

import os
from pathlib import Path

from td_ray.files import fingerprint


def files_under(root: Path) -> list[Path]:
    """All files under a folder, sorted; without dot files and what is unpacked beside itself."""
    found = {
        Path(place) / name
        for place, _, names in os.walk(root)
        for name in names
        if not name.startswith(".")
    }
    packed = {path for path in found if path.suffix == ".gz" and path.with_suffix("") in found}
    return sorted(found - packed)


def stamp_of(root: Path) -> str:
    """Names, sizes and times of all files under a folder."""
    status = ((path.relative_to(root).as_posix(), path.stat()) for path in files_under(root))
    return fingerprint([[name, found.st_size, found.st_mtime_ns] for name, found in status])

"""Scripts and manifests of ``clusters/``, which come with the package."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def cluster_file(name: str) -> Path:
    """A file of ``clusters/``, which is in the package, or beside it in a checkout."""
    inside = PACKAGE / "clusters" / name
    return inside if inside.exists() else PACKAGE.parent / "clusters" / name

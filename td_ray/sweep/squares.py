"""Tiles that one task compares: squares of them, whose sides are read once.

Reading a side of a tile, the predictions of its models, takes longer than comparing it. A square of
4 x 4 tiles has 16 of them and 8 sides.
"""

from __future__ import annotations

from collections.abc import Sequence

from td_ray.plan.tiles import FEATURES, Tile

LARGEST = 4
TASKS_PER_CPU = 4
"""Fewer, and some processes would have nothing to do while the last ones end."""

Square = list[int]
"""Places of tiles in their sequence."""


def squares(tiles: Sequence[Tile], cpus: int) -> list[Square]:
    """Put tiles into the largest squares that still keep all processes busy."""
    side = LARGEST
    while side > 1 and len(_grouped(tiles, side)) < TASKS_PER_CPU * cpus:
        side //= 2
    return _grouped(tiles, side)


def _grouped(tiles: Sequence[Tile], side: int) -> list[Square]:
    """Squares of one comparison each; row by row there and back, so that neighbours share sides."""
    groups: dict[tuple[object, ...], Square] = {}
    for place, tile in enumerate(tiles):
        low, high = tile.buckets
        # what is made of features differs between measures, and would not be held for all of them
        own = tile.measure if tile.kind == FEATURES else None
        square = (tile.task, tile.data, tile.head, own, low // side, high // side)
        groups.setdefault(square, []).append(place)
    for group in groups.values():
        group.sort(key=lambda place: _there_and_back(tiles[place]))
    return list(groups.values())


def _there_and_back(tile: Tile) -> tuple[int, int]:
    low, high = tile.buckets
    return low, high if low % 2 == 0 else -high

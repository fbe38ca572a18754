"""Squares of tiles: every tile once, few sides to read, work for all."""

from __future__ import annotations

from itertools import pairwise

import pytest

from td_ray.plan.tiles import Member, Tile
from td_ray.sweep.squares import TASKS_PER_CPU, squares


def tiles(buckets: int, tasks: int = 1) -> list[Tile]:
    members = [(Member(10 * bucket + 3, "u"),) for bucket in range(buckets)]
    return [
        Tile("", f"t{k}", "classification", "cosine", "h", "d", "td", rows, columns, None, 10)
        for k in range(tasks)
        for low, rows in enumerate(members)
        for columns in members[low:]
    ]


@pytest.mark.parametrize("cpus", [1, 2, 64])
@pytest.mark.parametrize(("buckets", "tasks"), [(1, 1), (1, 50), (8, 1), (13, 2)])
def test_every_tile_is_in_one_square_of_one_comparison(buckets: int, tasks: int, cpus: int) -> None:
    given = tiles(buckets, tasks)
    found = squares(given, cpus)
    assert sorted(place for square in found for place in square) == list(range(len(given)))
    assert all(len({given[place].task for place in square}) == 1 for square in found)
    assert len(found) == len(given) or len(found) >= TASKS_PER_CPU * cpus


def test_neighbours_in_a_square_share_a_side_but_where_it_meets_the_diagonal() -> None:
    given = tiles(16)
    found = squares(given, 2)
    assert max(map(len, found)) == 16
    for square in found:
        apart = sum(
            not set(given[one].buckets) & set(given[other].buckets)
            for one, other in pairwise(square)
        )
        assert apart <= (len(square) < 16)


def test_few_tiles_are_not_put_together() -> None:
    assert [len(square) for square in squares(tiles(3), 2)] == [1] * 6

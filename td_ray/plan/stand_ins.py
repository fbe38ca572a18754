"""Which heads are to be fitted as stand-ins: what each representation does with its features.

    mimic(F -> F') = d( h(F), h''(F') ),   h'' fitted on F' to what h(F) predicts on training rows

A block holds, for one stand-in F', the tiles of which it is the only column. It is worked through
like a block of heads, by `td_ray.work.stand_ins`, when the heads h have been fitted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from td_ray.features import Pass
from td_ray.plan.tiles import StandInTile
from td_ray.plan.units import HeadUnit, Plan, passes_of


@dataclass(frozen=True)
class StandInUnit:
    """Heads that are fitted together: on one representation, for one task, of one kind.

    Attributes:
        head: the stand-in's own unit of heads.
        tiles: one for each range of representations and each data set that is predicted.
    """

    head: HeadUnit
    tiles: tuple[StandInTile, ...]


@dataclass(frozen=True)
class StandInBlock:
    """The missing units of one representation on one data set; they share its features.

    Attributes:
        passes: of its model, by the data set on which features are needed.
    """

    units: tuple[StandInUnit, ...]
    passes: Mapping[str, Pass]

    def __len__(self) -> int:
        return sum(len(unit.tiles) for unit in self.units)

    @property
    def feature_keys(self) -> list[str]:
        """Keys of the features that it opens."""
        return [str(key) for unit in self.units for key in unit.head.features.values()]


def stand_in_blocks(plan: Plan, tiles: Sequence[StandInTile]) -> tuple[StandInBlock, ...]:
    """Put tiles that share a stand-in's features together."""
    heads = {(unit.number, unit.task.name, unit.head.name): unit for unit in plan.units}
    by_unit: dict[tuple[int, str, str], list[StandInTile]] = defaultdict(list)
    for tile in tiles:
        by_unit[tile.columns[0].number, str(tile.task), str(tile.head)].append(tile)
    by_block: dict[tuple[int, str], list[StandInUnit]] = defaultdict(list)
    for key, own in by_unit.items():
        head = heads[key]
        by_block[head.number, head.task.spec.data].append(StandInUnit(head, tuple(own)))
    passes = passes_of([([unit.head for unit in units], []) for units in by_block.values()])
    return tuple(
        StandInBlock(tuple(units), passes[id(units[0].head.representation.model)])
        for units in by_block.values()
    )

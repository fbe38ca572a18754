"""What Ray tasks do: compare tiles, and take predictions that are there.

A process that is started for a task imports this module, which needs neither Ray Tune nor torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from td_ray.errors import MachineError
from td_ray.measures import Examples
from td_ray.plan import Block
from td_ray.plan.tiles import Tile, tile_state
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.storage import open_folder
from td_ray.work.pairs import Reader, run_tile
from td_ray.work.taken_predictions import take_block
from td_ray.work.time_limit import TimeLimit


def compare_tiles(
    tiles: Sequence[Tile], examples: Examples, experiment: Experiment, stage: str
) -> str:
    """Compare tiles of one task; returns the trouble that the machine had, if any."""
    memory = experiment.resources.memory
    reader = _reader(stage, experiment.output_folder.place, experiment.seeds, memory)
    limit = TimeLimit(experiment.resources.time_limit)
    try:
        for tile in tiles:
            if tile_state(tile, reader.parts) == "missing":  # else a lost process had begun here
                run_tile(tile, examples, reader, limit)
    except (OSError, MachineError) as error:
        return str(error)
    return ""


@lru_cache(maxsize=1)
def _reader(stage: str, output: str, seeds: tuple[int, ...], memory: int | None) -> Reader:
    """What a worker process reads predictions with, as long as tiles of one stage come."""
    return Reader(Parts(open_folder(output)), seeds, memory)


def take_predictions(blocks: Sequence[Block], experiment: Experiment) -> tuple[int, int, str]:
    """Take the predictions of models that have them: units finished, failed, and the trouble."""
    parts, finished, failed = Parts(experiment.output_folder), 0, 0
    limit = TimeLimit(experiment.resources.time_limit)
    try:
        for block in blocks:
            done = take_block(block, experiment, parts, limit)
            finished, failed = finished + done[0], failed + done[1]
    except (OSError, MachineError) as error:
        return finished, failed, str(error)
    return finished, failed, ""

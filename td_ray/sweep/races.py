"""Ray Tune races the candidates of searches: one trial trains one candidate of one unit.

Candidates of one unit compete by asynchronous successive halving (ASHA; Li et al., "A system for
massively parallel hyperparameter tuning", MLSys 2020): at each rung, one that is not in the best
third of those that were there before it is stopped. Candidates of different units never meet.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from td_ray.errors import MachineError, WorkError, error_text
from td_ray.head_kinds import Lap
from td_ray.plan import Block
from td_ray.results.parts import Parts
from td_ray.sweep.cache_actor import with_share
from td_ray.sweep.leases import Leases
from td_ray.sweep.lost import REMEDY, words_of
from td_ray.sweep.progress import Reporter
from td_ray.sweep.trials import TRIALS_PER_FIT, Placement, Unsaved, Work, fit_trials
from td_ray.work.head_parts import named, names_of
from td_ray.work.time_limit import TimeLimit

REDUCTION = 3  # of candidates from one rung to the next

Place = tuple[int, int]
"""A unit: the number of its block, and its own number in it."""


def rungs(epochs: int) -> list[int]:
    """The epochs after which a candidate reports: a ninth, a third, all.

    The learning rate falls over all epochs, so that earlier losses say little.
    """
    first = max(1, epochs // REDUCTION**2)
    return [rung for rung in (first, first * REDUCTION) if rung < epochs] + [epochs]


class CandidateTrial(tune.Trainable):
    """Trains one candidate, a rung at a step; its configuration names it by numbers."""

    def setup(self, config: dict[str, Any], work: Work[Block]) -> None:
        """Keep the run's work; called once per process."""
        self._work = work
        self._parts = Parts(work.experiment.output_folder)
        self._limit = TimeLimit(work.experiment.resources.time_limit)
        self._leases: Leases | None = None
        self._laps: Iterator[Lap] | None = None
        self._stage = ""
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next candidate; nothing of the last one is kept."""
        self.cleanup()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next rung; trouble of the machine is reported, and ends the trial."""
        lap, trouble = Lap(0, None), ""
        try:
            with self._limit.of_unit(self._late):
                if self._laps is None:
                    self._laps = self._race()
                for lap in self._laps:
                    if lap.reason or lap.epochs in self._rungs:
                        break
        except (OSError, MachineError) as error:
            trouble = str(error)
        except Exception as error:  # one candidate's trouble costs that candidate alone
            lap = Lap(0, None, error_text(error))
        ended = bool(trouble or lap.reason) or lap.epochs == self._rungs[-1]
        if ended:
            self.cleanup()
        return {
            "epochs": lap.epochs,
            "loss": math.inf if lap.loss is None else lap.loss,
            "reason": lap.reason or "",
            "stage": self._stage,
            "trouble": trouble,
            "done": ended,
        }

    def cleanup(self) -> None:
        """Let go of the features."""
        self._laps = None
        if self._leases is not None:
            self._leases.release()
            self._leases = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a race that is lost is run again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: a race that is lost is run again."""

    def _begin(self, config: dict[str, Any]) -> None:
        block, unit, candidate = config["candidate"]
        self._block = self._work.blocks[block]
        self._unit = self._block.units[unit]
        self._candidate = self._unit.candidates[candidate]
        self._rungs = rungs(self._candidate.epochs)
        self._stage = "features"

    def _late(self, error: WorkError) -> None:
        """A candidate that hangs is its unit's failure: the others would fare alike."""
        text = f"{names_of(self._unit)}: {error}"
        self._parts.write_failure(str(self._unit.key), self._stage, WorkError(text))

    def _race(self) -> Iterator[Lap]:
        import torch

        from td_ray.work.scaled_features import ScaledFeatures
        from td_ray.work.search import race

        experiment = self._work.experiment
        if failure := self._parts.failure(str(self._unit.key)):
            raise WorkError(failure["error"])  # a candidate of this unit was ended
        torch.set_num_threads(experiment.resources.cpus_per_trial)
        self._leases = Leases(self._block.passes, experiment, self._limit)
        share = with_share(experiment, experiment.resources.gpus_per_trial)
        scaled = ScaledFeatures(self._leases.open, share)
        scaled.load(self._unit)
        self._stage = "search"
        return (lap for (lap,) in race(self._unit, [self._candidate], scaled))


class Races(FIFOScheduler):
    """One ASHA for each unit's candidates."""

    def __init__(self, work: Work[Block]) -> None:
        super().__init__()
        self._work = work
        self._races: dict[Place, AsyncHyperBandScheduler] = {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Enter the trial into its unit's race."""
        self._race(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop what its unit's race stops; one that failed ends by itself and is no rival."""
        if result["reason"] or result["trouble"]:
            return str(TrialScheduler.CONTINUE)
        return str(self._race(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Take the trial out of its unit's race."""
        self._race(trial).on_trial_remove(tune_controller, trial)

    def _race(self, trial: Any) -> AsyncHyperBandScheduler:
        block, unit, candidate = trial.config["candidate"]
        if (block, unit) not in self._races:
            epochs = self._work.blocks[block].units[unit].candidates[candidate].epochs
            self._races[block, unit] = AsyncHyperBandScheduler(
                time_attr="epochs",
                metric="loss",
                mode="min",
                max_t=epochs,
                grace_period=rungs(epochs)[0],
                reduction_factor=REDUCTION,
            )
        return self._races[block, unit]


class _Judge(Unsaved):
    """Writes the choice, or the failure, of each unit whose candidates have all ended."""

    def __init__(self, work: Work[Block], parts: Parts, reporter: Reporter) -> None:
        self._work = work
        self._parts = parts
        self._reporter = reporter
        self._ended: dict[Place, dict[int, tuple[Lap, str]]] = defaultdict(dict)
        self.troubles: dict[Place, str] = {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Take the last lap of a candidate."""
        result = trial.last_result
        block, unit, candidate = trial.config["candidate"]
        if result["trouble"]:
            self.troubles[block, unit] = str(result["trouble"])
        loss = float(result["loss"]) if math.isfinite(result["loss"]) else None
        lap = Lap(int(result["epochs"]), loss, result["reason"] or None)
        seconds, host = float(result["time_total_s"]), str(result["hostname"])
        key = str(self._work.blocks[block].units[unit].key)
        try:
            self._parts.write_timing(key, "search", seconds, host)
            self.end((block, unit), candidate, lap, str(result["stage"]))
        except OSError as error:  # such as a full disk; Tune would go on as if nothing were
            self.troubles[block, unit] = str(error)

    def begin_again(self, places: Iterable[Place]) -> None:
        """Forget the candidates of units whose races were broken off."""
        for place in places:
            self._ended.pop(place, None)

    def end(self, place: Place, candidate: int, lap: Lap, stage: str) -> None:
        """Take the last lap of a candidate, and judge its unit once it was the last."""
        from td_ray.work.search import choose

        unit = self._work.blocks[place[0]].units[place[1]]
        ended = self._ended[place]
        ended[candidate] = (lap, stage)
        if len(ended) < len(unit.candidates) or place in self.troubles:
            return
        if self._parts.failure(str(unit.key)) is not None:  # a candidate was ended
            self._reporter.advance(0, 1)
            return
        laps = [ended[number][0] for number in range(len(ended))]
        try:
            self._parts.write_choice(str(unit.key), choose(unit, laps))
            self._reporter.advance(1, 0)
        except WorkError as error:
            first = ended[0][1]
            self._parts.write_failure(str(unit.key), first, named(unit, error, first))
            self._reporter.advance(0, 1)


def run_races(work: Work[Block], placement: Placement, reporter: Reporter) -> None:
    """Choose for all units of all blocks; each leaves its choice, or its failure, on disk.

    Args:
        work: the experiment and its blocks.
        placement: where trials run.
        reporter: hears about units that have chosen.

    Raises:
        MachineError: a machine was in trouble, so that units have not chosen.
    """
    judge = _Judge(work, Parts(work.experiment.output_folder), reporter)
    trainable = tune.with_parameters(CandidateTrial, work=work)
    left = [
        (block, unit) for block, each in enumerate(work.blocks) for unit in range(len(each.units))
    ]
    while left:
        chunk, left = _chunk(work, left)
        blocks = {candidate: candidate[0] for candidate in chunk}
        fit = fit_trials(trainable, "candidate", blocks, placement, [judge], Races(work))
        for (block, unit, candidate), error in fit.lost.items():
            judge.end((block, unit), candidate, Lap(0, None, words_of(error, REMEDY)), "search")
        again = dict.fromkeys((block, unit) for block, unit, _ in fit.unfinished)
        judge.begin_again(again)
        left = [*again, *left]
    if judge.troubles:
        raise MachineError(next(iter(judge.troubles.values())))


def _chunk(
    work: Work[Block], left: Sequence[Place]
) -> tuple[list[tuple[int, int, int]], list[Place]]:
    """Candidates by (block, unit, number) of units that one fit can take, and units of the rest."""
    chunk: list[tuple[int, int, int]] = []
    for number, (block, unit) in enumerate(left):
        count = len(work.blocks[block].units[unit].candidates)
        if chunk and len(chunk) + count > TRIALS_PER_FIT:
            return chunk, list(left[number:])
        chunk += [(block, unit, candidate) for candidate in range(count)]
    return chunk, []

"""Ray Tune schedules blocks: one trial fits the missing heads of one representation.

A trial is one step of a reused actor. It writes parts; Tune's own files and its restore are not
used, since the truth is which parts exist.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.schedulers import TrialScheduler

from td_ray.errors import MachineError
from td_ray.files import scratch_folder
from td_ray.plan import Block
from td_ray.plan.stand_ins import StandInBlock
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.sweep.cache_actor import with_share
from td_ray.sweep.host_signals import handlers_given_back
from td_ray.sweep.leases import Leases
from td_ray.sweep.nodes import Shares, nodes_alive
from td_ray.sweep.progress import Reporter
from td_ray.work.time_limit import TimeLimit

TRIALS_PER_FIT = 2000
FAILURES_OF_PROCESSES = 3
SECONDS_BETWEEN_LOOKS = 1.0
"""At which nodes are alive."""

CREDENTIALS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    *("AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"),
)
"""Variables that trials have from their node, as tasks do, and not from Tune."""


AnyBlock = TypeVar("AnyBlock", Block, StandInBlock)


@dataclass(frozen=True)
class Work(Generic[AnyBlock]):
    """What every trial of a run can see: the experiment and its blocks."""

    experiment: Experiment
    blocks: Sequence[AnyBlock]


class HeadTrial(tune.Trainable):
    """Fits the heads or stand-ins of one block, which its configuration names by number."""

    def setup(self, config: dict[str, Any], work: Work[Block] | Work[StandInBlock]) -> None:
        """Keep the run's work; called once per process."""
        self._work = work
        self._number = int(config["block"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next block; nothing of the last one is kept."""
        self._number = int(new_config["block"])
        return True

    def step(self) -> dict[str, Any]:
        """Do the whole block; trouble of the machine is reported, and leaves units missing."""
        from td_ray.work.heads import run_block
        from td_ray.work.stand_ins import run_stand_ins

        block = self._work.blocks[self._number]
        experiment = self._work.experiment
        share = with_share(experiment, experiment.resources.gpus_per_trial)
        limit = TimeLimit(experiment.resources.time_limit)
        leases = Leases(block.passes, experiment, limit)
        finished, failed, trouble = 0, 0, ""
        try:
            parts = Parts(experiment.output_folder)
            if isinstance(block, StandInBlock):
                finished, failed = run_stand_ins(block, share, parts, leases.open, limit)
            else:
                finished, failed = run_block(block, share, parts, leases.open, limit)
        except (OSError, MachineError) as error:
            trouble = str(error)
        finally:
            leases.release()
        return {"finished": finished, "failed": failed, "trouble": trouble, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: parts are the state."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: parts are the state."""


class Unsaved(tune.Callback):
    """A callback of which Tune saves nothing for its restore, which is not used.

    A reporter may hold what cannot be saved, such as a terminal's lock.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Listener(Unsaved):
    """Passes the ends of trials on, and keeps what troubles the machines had."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.troubles: list[str] = []

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count what the trial did."""
        result = trial.last_result or {}
        self._reporter.advance(int(result.get("finished", 0)), int(result.get("failed", 0)))
        if result.get("trouble"):
            self.troubles.append(str(result["trouble"]))


@dataclass(frozen=True)
class Placement:
    """Where trials run.

    Attributes:
        share: what each has of a machine.
        nodes: blocks whose features are on a node already, and the node's id.
    """

    share: Shares
    nodes: Mapping[int, str]

    def of_block(self, block: int) -> tune.PlacementGroupFactory:
        """A block's share; on the node that has its features, where one has them."""
        share = dict(self.share)
        if block not in self.nodes:
            return tune.PlacementGroupFactory([share])
        selector = {"ray.io/node-id": self.nodes[block]}
        return tune.PlacementGroupFactory([share], bundle_label_selector=[selector])

    def on_nodes_alive(self) -> Placement:
        """The same without nodes that are gone."""
        alive = nodes_alive()
        nodes = {block: node for block, node in self.nodes.items() if node in alive}
        return replace(self, nodes=nodes)


class _Course(Unsaved, tune.Stopper):
    """The course of a fit; ends it when a node is gone that trials wait for: they would for ever.

    Attributes:
        left: trials that have not ended, by their setting, with the node they are bound to.
        lost: those whose processes were lost too often, with the last error.
        misses_nodes: whether a node is gone that some wait for.
    """

    def __init__(self, name: str, left: Mapping[Hashable, str | None]) -> None:
        self._name = name
        self._looked = time.monotonic()
        self.left = dict(left)
        self.lost: dict[Hashable, str] = {}
        self.misses_nodes = False

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It has ended."""
        del self.left[trial.config[self._name]]

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It was lost."""
        setting = trial.config[self._name]
        del self.left[setting]
        self.lost[setting] = str(trial.get_error())

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether one trial is to stop: no."""
        return False

    def stop_all(self) -> bool:
        """Whether all are to stop."""
        awaited = {node for node in self.left.values() if node is not None}
        if awaited and time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS:
            self.misses_nodes = not awaited <= nodes_alive().keys()
            self._looked = time.monotonic()
        return self.misses_nodes


def run_trials(
    work: Work[AnyBlock], placement: Placement, reporter: Reporter
) -> list[tuple[int, str]]:
    """Run all blocks.

    Args:
        work: the experiment and its blocks.
        placement: where they run.
        reporter: hears about ended trials.

    Returns:
        Blocks whose processes were lost too often, with the last error.

    Raises:
        MachineError: a machine was in trouble, so that units are still missing.
    """
    listener = _Listener(reporter)
    lost: list[tuple[int, str]] = []
    trainable = tune.with_parameters(HeadTrial, work=work)
    left = list(range(len(work.blocks)))
    while left:
        chunk, left = left[:TRIALS_PER_FIT], left[TRIALS_PER_FIT:]
        blocks = {number: number for number in chunk}
        fit = fit_trials(trainable, "block", blocks, placement, [listener])
        lost += [(int(block), error) for block, error in fit.lost.items()]
        left = [int(block) for block in fit.unfinished] + left
    if listener.troubles:
        raise MachineError(listener.troubles[0])
    return lost


@dataclass(frozen=True)
class Fit:
    """What became of trials that have not ended by themselves.

    Attributes:
        lost: those whose processes were lost too often, with the last error.
        unfinished: those that were stopped since a node is gone.
    """

    lost: Mapping[Any, str]
    unfinished: Sequence[Any]


def fit_trials(
    trainable: Any,
    name: str,
    blocks: Mapping[Any, int],
    placement: Placement,
    callbacks: Sequence[tune.Callback],
    scheduler: TrialScheduler | None = None,
) -> Fit:
    """Run trials on reused actors.

    Args:
        name: of the one setting in which they differ.
        blocks: its values, one for each trial, and the block that each is of.

    Raises:
        KeyboardInterrupt: Tune was told to stop.
    """
    placement = placement.on_nodes_alive()
    course = _Course(name, {each: placement.nodes.get(at) for each, at in blocks.items()})
    # Tune would put them into the description of each trial, which Ray logs where all can read it.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(CREDENTIALS)
    with scratch_folder() as scratch, handlers_given_back():  # nothing in the folder is used
        tuner = tune.Tuner(
            tune.with_resources(trainable, lambda config: placement.of_block(blocks[config[name]])),
            param_space={name: tune.grid_search(list(blocks))},
            tune_config=tune.TuneConfig(reuse_actors=True, scheduler=scheduler),
            run_config=tune.RunConfig(
                storage_path=str(scratch),
                verbose=0,
                stop=course,
                callbacks=[*callbacks, course],
                failure_config=tune.FailureConfig(max_failures=FAILURES_OF_PROCESSES),
            ),
        )
        tuner.fit()
    if course.left and not course.misses_nodes:
        raise KeyboardInterrupt  # Tune takes the signal, stops its trials, and returns as if done
    return Fit(course.lost, list(course.left))

"""Ray Tune schedules blocks: one trial fits the missing heads of one representation.

A trial is one step of a reused actor. It writes parts; Tune's own files and its restore are not
used, since the truth is which parts exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.schedulers import TrialScheduler

from td_ray.errors import MachineError, WorkError
from td_ray.features import Features, FeatureStore, Pass
from td_ray.files import scratch_folder
from td_ray.plan import Block
from td_ray.plan.stand_ins import StandInBlock
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.sweep.cache_actor import Lease, actor_name, with_share
from td_ray.sweep.host_signals import handlers_given_back
from td_ray.sweep.progress import Reporter
from td_ray.tasks import DataSet

TRIALS_PER_FIT = 2000
FAILURES_OF_PROCESSES = 3

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
        leases = Leases(block.passes, experiment)
        finished, failed, trouble = 0, 0, ""
        try:
            parts = Parts(experiment.output_folder)
            if isinstance(block, StandInBlock):
                finished, failed = run_stand_ins(block, share, parts, leases.open)
            else:
                finished, failed = run_block(block, share, parts, leases.open)
        except (OSError, MachineError) as error:
            trouble = str(error)
        finally:
            leases.release()
        return {"finished": finished, "failed": failed, "trouble": trouble, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: parts are the state."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: parts are the state."""


class Leases:
    """The features that one block holds on this node."""

    def __init__(self, passes: Mapping[str, Pass], experiment: Experiment) -> None:
        self._passes = passes
        self._store = FeatureStore.of(experiment)
        node = ray.get_runtime_context().get_node_id()
        self._cache = ray.get_actor(actor_name(node))
        self._held: list[str] = []

    def open(self, key: str, data: DataSet) -> Features:
        """Map the features of the block's representation on a data set.

        Raises:
            WorkError: they could not be extracted.
            MachineError: the same, for no fault of the model.
        """
        lease: Lease = ray.get(self._cache.lease.remote(key, self._passes[data.name]))
        if lease.error is not None:
            raise (MachineError if lease.blame == "machine" else WorkError)(lease.error)
        self._held.append(key)
        return self._store.open(key)

    def release(self) -> None:
        """Give all of them back."""
        for key in self._held:
            self._cache.release.remote(key)


class _Listener(tune.Callback):
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


def run_trials(
    work: Work[AnyBlock], nodes: Mapping[int, str], reporter: Reporter
) -> list[tuple[int, str]]:
    """Run all blocks.

    Args:
        work: the experiment and its blocks.
        nodes: blocks whose features are on a node already, and the node's id.
        reporter: hears about ended trials.

    Returns:
        Blocks whose processes were lost too often, with the last error.

    Raises:
        MachineError: a machine was in trouble, so that units are still missing.
    """
    listener = _Listener(reporter)
    lost: list[tuple[int, str]] = []
    numbers = list(range(len(work.blocks)))
    shares = shares_of(work.experiment, lambda config: nodes.get(int(config["block"])))
    for start in range(0, len(numbers), TRIALS_PER_FIT):
        chunk = numbers[start : start + TRIALS_PER_FIT]
        trainable = tune.with_resources(tune.with_parameters(HeadTrial, work=work), shares)
        results = fit_trials(trainable, {"block": chunk}, [listener])
        lost += [
            (int(result.config["block"]), str(result.error))
            for result in results
            if result.error is not None
        ]
    if listener.troubles:
        raise MachineError(listener.troubles[0])
    return lost


def fit_trials(
    trainable: Any,
    space: Mapping[str, Sequence[Any]],
    callbacks: Sequence[tune.Callback],
    scheduler: TrialScheduler | None = None,
) -> list[Any]:
    """Run one trial for every value in the space, on reused actors; returns their results.

    Raises:
        KeyboardInterrupt: Tune was told to stop.
    """
    # Tune would put them into the description of each trial, which Ray logs where all can read it.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(CREDENTIALS)
    with scratch_folder() as scratch, handlers_given_back():  # nothing in the folder is used
        tuner = tune.Tuner(
            trainable,
            param_space={name: tune.grid_search(list(values)) for name, values in space.items()},
            tune_config=tune.TuneConfig(reuse_actors=True, scheduler=scheduler),
            run_config=tune.RunConfig(
                storage_path=str(scratch),
                verbose=0,
                callbacks=list(callbacks),
                failure_config=tune.FailureConfig(max_failures=FAILURES_OF_PROCESSES),
            ),
        )
        results = list(tuner.fit())
    if any(result.error is None and not (result.metrics or {}).get("done") for result in results):
        raise KeyboardInterrupt  # Tune takes the signal, stops its trials, and returns as if done
    return results


def shares_of(
    experiment: Experiment, node_of: Callable[[dict[str, Any]], str | None]
) -> Callable[[dict[str, Any]], tune.PlacementGroupFactory]:
    """A trial's share of a machine; on the node that has its features, where one has them."""
    share: dict[str, float] = {"CPU": experiment.resources.cpus_per_trial}
    if experiment.resources.gpus_per_trial:
        share["GPU"] = experiment.resources.gpus_per_trial

    def resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        node = node_of(config)
        if node is None:
            return tune.PlacementGroupFactory([share])
        return tune.PlacementGroupFactory([share], bundle_label_selector=[{"ray.io/node-id": node}])

    return resources

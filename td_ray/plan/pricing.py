"""What is left to fit of a plan, in seconds: passes and fits at the prices of a calibration.

Passes of networks are counted on shapes; features that are in files are read. Fits take as many
iterations as those that are there already have taken; where there are none, a typical number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from td_ray.costs import Calibration, Device
from td_ray.errors import WorkError
from td_ray.features import FeatureStore, Pass
from td_ray.files import fingerprint
from td_ray.plan.units import HeadUnit, Plan, fits_of
from td_ray.plan.widths import WIDTH_IF_UNKNOWN, Widths
from td_ray.results.parts import Parts
from td_ray.tasks import DataSet
from td_ray.zoo import ArraySource, FeatureSource, NetworkSource, Representation

UNITS_LOOKED_AT = 5
"""Finished ones of a task and head, for how many iterations its fits take."""

if TYPE_CHECKING:
    from td_ray.extraction.counting import Forward


@dataclass(frozen=True)
class PricedPass:
    """One run of a model over a data set.

    Attributes:
        who: the model and the data set.
        cores: seconds of one core: of all of it, or with a GPU of preparing the inputs.
        gpu: seconds of a GPU.
        bytes: of the features that it keeps.
    """

    who: str
    cores: float
    gpu: float
    bytes: int


@dataclass(frozen=True)
class PricedBlock:
    """The missing heads of one representation on one data set.

    Attributes:
        passes: that it needs.
        heads: seconds of one core, or of a GPU where heads are fitted there.
        units: how many.
        is_trial: whether it is a trial of its own; models that have their predictions are not.
    """

    who: str
    passes: tuple[PricedPass, ...]
    heads: float
    units: int
    is_trial: bool = True


@dataclass
class Pricing:
    """Prices the work of one plan.

    Attributes:
        uncounted: passes that cannot be counted, and why; they cost nothing here.
        guessed: heads whose number of iterations is not known yet.
    """

    plan: Plan
    calibration: Calibration
    gpu: Device | None = None
    uncounted: dict[str, str] = field(default_factory=dict)
    guessed: set[str] = field(default_factory=set)
    _passes: dict[str, PricedPass] = field(default_factory=dict)
    _forwards: dict[str, Forward | str] = field(default_factory=dict)
    _widths: Widths = field(init=False)

    def __post_init__(self) -> None:
        self._widths = Widths(self.plan.problem.experiment)

    def blocks(self, parts: Parts, in_cache: bool) -> list[PricedBlock]:
        """What is left to fit, in the order in which it is begun.

        Args:
            in_cache: whether the work is where this machine's cache of features is.
        """
        store = FeatureStore.of(self.plan.problem.experiment)
        there = set(self._widths.in_cache) if in_cache else store.shared_keys()
        passes = [
            tuple(self._pass(each) for each in block.passes.values() if not _is_there(each, there))
            for block in self.plan.blocks
        ]  # they tell widths
        return [
            PricedBlock(
                block.representation.name, its_passes, seconds, len(block), not block.is_stored
            )
            for block, its_passes, seconds in zip(
                self.plan.blocks, passes, self.fits(parts), strict=True
            )
        ]

    def fits(self, parts: Parts) -> list[float]:
        """Seconds of the missing heads of each block."""
        iterations = _iterations(self.plan, parts)
        return [
            sum(self._fit(unit, iterations) for unit in block.units) for block in self.plan.blocks
        ]

    def _pass(self, wanted: Pass) -> PricedPass:
        layers = sorted(wanted.keys)
        key = fingerprint([wanted.who, layers])
        if key not in self._passes:
            self._passes[key] = self._priced(wanted, layers)
        return self._passes[key]

    def _priced(self, wanted: Pass, layers: list[str]) -> PricedPass:
        model, n = wanted.model, wanted.data.n
        if isinstance(model, ArraySource):
            width = sum(
                self._widths.of(
                    Representation(model, layer), {wanted.data.name: wanted.keys[layer]}
                )
                for layer in layers
            )
            size = n * width * np.dtype(model.storage).itemsize
            return PricedPass(wanted.who, self.calibration.array * size / 1e9, 0.0, size)
        assert isinstance(model, NetworkSource)  # there are no others that have features
        forward = self._forward(model, wanted.data, layers)
        if forward is None:
            return PricedPass(wanted.who, 0.0, 0.0, n * WIDTH_IF_UNKNOWN * 4 * len(layers))
        for layer, width in forward.widths.items():
            self._widths.tell(Representation(model, layer), width)
        size = n * sum(forward.widths.values()) * np.dtype(model.storage).itemsize
        work, precision = forward.work * n, getattr(model, "precision", "float32")
        preparing = forward.preparing * n
        if self.gpu is None:
            seconds = self.calibration.cpu.forward(work, precision)
            return PricedPass(wanted.who, preparing + seconds, 0.0, size)
        return PricedPass(wanted.who, preparing, self.gpu.forward(work, precision), size)

    def _forward(self, model: NetworkSource, data: DataSet, layers: list[str]) -> Forward | None:
        """Counts of a pass; None where they cannot be had."""
        from td_ray.extraction.counting import count_forward

        experiment = self.plan.problem.experiment
        key = fingerprint([model.source, model.architecture(), model.options(), data.name, layers])
        if key not in self._forwards:
            device = "cpu" if self.gpu is None else "cuda"
            folder, resources = experiment.folder, experiment.resources
            try:
                counted = count_forward(model, data, layers, folder, resources, device)
                self._forwards[key] = counted
            except WorkError as error:
                self._forwards[key] = str(error)
        found = self._forwards[key]
        if isinstance(found, str):
            self.uncounted[str(model.name)] = found
            return None
        return found

    def _fit(self, unit: HeadUnit, iterations: Mapping[tuple[str, str], float]) -> float:
        if not isinstance(unit.representation.model, FeatureSource):
            return 0.0  # it has its predictions
        line = (unit.task.spec.name, unit.head.name)
        if line not in iterations and unit.head.kind == "logistic":
            self.guessed.add(f"'{unit.head.name}' of task '{unit.task.spec.name}'")
        width = self._widths.of(unit.representation, unit.features)
        size = (unit.task.n_train, width, len(unit.task.classes) or 1)
        work = unit.head.counts(*size, fits_of(unit), iterations.get(line))
        on_gpu = self.gpu is not None and self.plan.problem.experiment.resources.gpus_per_trial > 0
        device = self.gpu if on_gpu and self.gpu is not None else self.calibration.cpu
        return device.fits(work, unit.head.kind)


def _is_there(wanted: Pass, keys: Collection[str]) -> bool:
    return all(key in keys for key in wanted.keys.values())


def _iterations(plan: Plan, parts: Parts) -> dict[tuple[str, str], float]:
    """By line of tasks and head: what finished fits have taken, on average."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for unit, state in zip(plan.units, plan.states, strict=True):
        line = (unit.task.spec.name, unit.head.name)
        if state == "finished" and not unit.is_stored and len(found[line]) < UNITS_LOOKED_AT:
            taken = parts.read_heads(str(unit.key), ["iterations"])["iterations"].to_pylist()
            found[line].append(float(np.mean(taken)))
    return {line: float(np.mean(each)) for line, each in found.items() if each}

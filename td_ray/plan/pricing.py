"""What is left to fit of a plan, in seconds: passes and fits at the prices of a calibration.

Passes of networks are counted on shapes; features that are in files are read. Fits take as many
iterations as those that are there already have taken; where there are none, a typical number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from td_ray.costs import Calibration, Device
from td_ray.errors import WorkError
from td_ray.features import FeatureStore, Pass
from td_ray.files import fingerprint
from td_ray.head_kinds import HeadKind
from td_ray.plan.units import Block, HeadUnit, Plan, fits_of
from td_ray.plan.widths import WIDTH_IF_UNKNOWN, Widths
from td_ray.results.parts import Parts
from td_ray.tasks import DataSet
from td_ray.zoo import ArraySource, FeatureSource, NetworkSource, Representation

if TYPE_CHECKING:
    from td_ray.extraction.counting import Forward

UNITS_LOOKED_AT = 5
"""Finished ones of a task and head, for how many iterations its fits take."""


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
    """What one trial does: the missing heads of one representation on one data set, or a candidate.

    Attributes:
        who: the representation.
        passes: that it needs.
        cores: seconds of one core, of fitting.
        gpu: seconds of a GPU, where heads are fitted there.
        units: how many it writes.
        is_trial: whether it is a trial of its own; models that have their predictions are not.
    """

    who: str
    passes: tuple[PricedPass, ...]
    cores: float
    gpu: float
    units: int
    is_trial: bool = True


@dataclass
class Pricing:
    """Prices what a plan has left to fit.

    Attributes:
        of_passes: the GPU on which networks run, if they do; ``of_fits`` likewise for heads.
        in_cache: whether the work is where this machine's cache of features is.
        uncounted: models whose passes cannot be counted, and why; they cost nothing here.
    """

    plan: Plan
    parts: Parts
    calibration: Calibration
    of_passes: Device | None = None
    of_fits: Device | None = None
    in_cache: bool = True
    uncounted: dict[str, str] = field(default_factory=dict)
    _unknown: dict[tuple[str, str], None] = field(default_factory=dict)
    _unmeasured: set[str] = field(default_factory=set)
    _passes: dict[str, PricedPass] = field(default_factory=dict)
    _forwards: dict[str, Forward | str] = field(default_factory=dict)
    _widths: Widths = field(init=False)

    def __post_init__(self) -> None:
        experiment = self.plan.problem.experiment
        self._widths = Widths(experiment)
        shared = FeatureStore.of(experiment).shared_keys()
        self._there = shared | (self._widths.in_cache.keys() if self.in_cache else set())
        self._iterations = _iterations(self.plan, self.parts)

    @property
    def guesses(self) -> set[str]:
        """What the prices take for granted, for people."""
        found = {f"that heads of kind '{x}' cost what logistic ones do" for x in self._unmeasured}
        if self._unknown:
            lines = ", ".join(f"'{head}' on '{task}'" for task, head in self._unknown)
            found.add(
                f"how many iterations heads take ({lines}): there are none yet; run a few models, "
                "and plan the rest again"
            )
        return found

    def searches(self) -> list[PricedBlock]:
        """A trial for each candidate that is to be trained; as if none was stopped early."""
        found = []
        for block in self.plan.searches:
            passes = self._passes_of(block)
            for unit in block.units:
                for candidate in unit.candidates:
                    seconds = self._fit(unit, candidate, 1)
                    found.append(self._block(block, passes, seconds, 0))
        return found

    def blocks(self) -> list[PricedBlock]:
        """What is left to fit, in the order in which it is begun."""
        passes = [self._passes_of(block) for block in self.plan.blocks]  # they tell widths
        fits = self.fits()
        return [
            self._block(block, its_passes, seconds, len(block))
            for block, its_passes, seconds in zip(self.plan.blocks, passes, fits, strict=True)
        ]

    def fits(self) -> list[float]:
        """Seconds of the missing heads of each block."""
        return [
            sum(self._fit(unit, unit.head, fits_of(unit)) for unit in block.units)
            for block in self.plan.blocks
        ]

    def _block(
        self, block: Block, passes: tuple[PricedPass, ...], seconds: float, units: int
    ) -> PricedBlock:
        on_cores, on_gpu = (seconds, 0.0) if self.of_fits is None else (0.0, seconds)
        who = block.representation.name
        return PricedBlock(who, passes, on_cores, on_gpu, units, not block.is_stored)

    def _passes_of(self, block: Block) -> tuple[PricedPass, ...]:
        """Those that the block opens, without the layers that are there."""
        names = {name for unit in block.units for name in unit.features}
        names |= {unit.data.name for unit in block.kept}
        found = []
        for name, wanted in block.passes.items():
            missing = {x: key for x, key in wanted.keys.items() if key not in self._there}
            if name in names and missing:
                found.append(self._pass(replace(wanted, keys=missing)))
        return tuple(found)

    def _pass(self, wanted: Pass) -> PricedPass:
        layers = sorted(wanted.keys)
        key = fingerprint([wanted.who, layers])
        if key not in self._passes:
            self._passes[key] = self._priced(wanted, layers)
        return self._passes[key]

    def _priced(self, wanted: Pass, layers: list[str]) -> PricedPass:
        model, n = wanted.model, wanted.data.n
        size = n * np.dtype(model.storage).itemsize
        if isinstance(model, ArraySource):
            keys = {layer: {wanted.data.name: wanted.keys[layer]} for layer in layers}
            size *= sum(self._widths.of(Representation(model, x), keys[x]) for x in layers)
            return PricedPass(wanted.who, self.calibration.array * size / 1e9, 0.0, size)
        assert isinstance(model, NetworkSource)  # there are no others that have features
        forward = self._forward(model, wanted.data, layers)
        if forward is None:
            return PricedPass(wanted.who, 0.0, 0.0, size * WIDTH_IF_UNKNOWN * len(layers))
        for layer, width in forward.widths.items():
            self._widths.tell(Representation(model, layer), width)
        size *= sum(forward.widths.values())
        work, precision = forward.work * n, getattr(model, "precision", "float32")
        preparing = forward.preparing * n + self.calibration.load
        if self.of_passes is None:
            seconds = self.calibration.cpu.forward(work, precision)
            return PricedPass(wanted.who, preparing + seconds, 0.0, size)
        return PricedPass(wanted.who, preparing, self.of_passes.forward(work, precision), size)

    def _forward(self, model: NetworkSource, data: DataSet, layers: list[str]) -> Forward | None:
        """Counts of a pass; None where they cannot be had."""
        from td_ray.extraction.counting import count_forward

        experiment = self.plan.problem.experiment
        key = fingerprint([model.source, model.architecture(), model.options(), data.name, layers])
        if key not in self._forwards:
            device = "cpu" if self.of_passes is None else "cuda"
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

    def _fit(self, unit: HeadUnit, head: HeadKind, fits: int) -> float:
        if not isinstance(unit.representation.model, FeatureSource):
            return 0.0  # it has its predictions
        line = (unit.task.spec.name, unit.head.name)
        if line not in self._iterations and head.iterations_vary:
            self._unknown[line] = None
        device = self.of_fits or self.calibration.cpu
        if head.kind not in device.heads:
            self._unmeasured.add(head.kind)
        width = self._widths.of(unit.representation, unit.features)
        size = (unit.task.n_train, width, len(unit.task.classes) or 1)
        return device.fits(head.counts(*size, fits, self._iterations.get(line)), head.kind)


def _iterations(plan: Plan, parts: Parts) -> Mapping[tuple[str, str], float]:
    """By line of tasks and head: what finished fits have taken, on average."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for unit in plan.units:
        line = (unit.task.spec.name, unit.head.name)
        if len(found[line]) == UNITS_LOOKED_AT or unit.is_stored or unit.key is None:
            continue
        if parts.head_files(unit.key):
            taken = parts.read_heads(str(unit.key), ["iterations"])["iterations"].to_pylist()
            found[line].append(float(np.mean(taken)))
    return {line: float(np.mean(each)) for line, each in found.items() if each}

"""A program of torch.export as a network: its steps run one after the other, any is a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from td_ray.errors import WorkError
from td_ray.registry import closest
from td_ray.tasks.inputs import Block
from td_ray.zoo.exported_archive import Program, read_program, reading_program
from td_ray.zoo.exported_steps import Name, Step, ready
from td_ray.zoo.graph_inputs import Axis, GraphInputs
from td_ray.zoo.network import Network
from td_ray.zoo.pooling import Pooler, Pooling

SHOWN = 8
"""How many nodes an error names."""

# The arguments of linear layers that hold their inputs and their weights.
_LINEAR = {
    "linear": ("input", "weight"),
    "addmm": ("mat1", "mat2"),
    "mm": ("self", "mat2"),
    "matmul": ("self", "other"),
}


@dataclass(frozen=True)
class Tap:
    """Where a layer is read: a value, before the step at a position runs."""

    position: int
    name: str


class ExportedNetwork(Network):
    """A program whose nodes are the layers that are asked for."""

    def __init__(
        self,
        path: Path,
        layers: Sequence[str],
        *,
        images: Mapping[str, Any],
        device: str,
        who: str,
        pooling: Pooling,
    ) -> None:
        """Load the program onto the device, whichever it was exported on.

        Args:
            images: how images are prepared, as ``GraphInputs`` takes it.
            device: ``cpu`` or ``cuda``.
            who: the model's name, for errors.

        Raises:
            WorkError: not a program of one input, in evaluation mode and of torch's own
                operators; or no such layer.
        """
        self._who, self._pool, self._place = who, Pooler(pooling, who), torch.device(device)
        self._program = read_program(path)
        with reading_program(path):
            steps = [ready(node, self._place, who) for node in self._program.nodes]
        self._taps = {layer: _tap(self._program, steps, layer, who) for layer in layers}
        self._steps = steps[: max(tap.position for tap in self._taps.values())]
        self._forgotten = _last_uses(self._steps, {tap.name for tap in self._taps.values()})
        weights = self._program.weights.items()
        self._weights = {name: tensor.to(self._place) for name, tensor in weights}
        axes, dtype = self._program.axes, self._program.dtype
        shape = [axis.smallest if axis.smallest == axis.largest else None for axis in axes]
        self._inputs = GraphInputs(shape, _in_numpy(dtype), **images, who=who)

    def prepare(self, block: Block) -> NDArray[Any]:
        """See ``Network``: images for an input of four axes, else the arrays as they are."""
        batch = self._inputs(block)
        self._require_shape(batch.shape)
        return batch

    def forward(self, batch: NDArray[Any]) -> dict[str, Tensor]:
        """See ``Network``; it runs as often as the batch sizes that it takes make it."""
        found: dict[str, list[Tensor]] = {layer: [] for layer in self._taps}
        for piece in self._program.axes[0].pieces(batch):
            inputs = torch.from_numpy(piece).to(self._place, self._program.dtype)
            for layer, values in self._run(inputs).items():
                found[layer].append(self._pool(values, layer))
        return {layer: torch.cat(parts)[: len(batch)] for layer, parts in found.items()}

    def _run(self, inputs: Tensor) -> dict[str, Tensor]:
        values = {**self._program.constants, **self._weights, self._program.input: inputs}
        found: dict[str, Tensor] = {}
        for position in range(len(self._steps) + 1):
            for layer, tap in self._taps.items():
                if tap.position == position:
                    found[layer] = self._copy(values[tap.name], layer, len(inputs))
            if position < len(self._steps):
                self._steps[position].run(values)
                for name in self._forgotten[position]:
                    del values[name]
        return found

    def _copy(self, value: Any, layer: str, rows: int) -> Tensor:
        """What a later step may change in place must be copied."""
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != rows:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise WorkError(
                f"model '{self._who}' gives {shape} at layer '{layer}' for a batch of {rows}; "
                "name another layer"
            )
        return value.clone()

    def _require_shape(self, shape: Sequence[int]) -> None:
        axes = self._program.axes
        fits = len(shape) == len(axes)
        fits = fits and all(map(Axis.takes, axes[1:], shape[1:]))
        if not fits or any(len({shape[axis] for axis in same}) > 1 for same in self._program.same):
            wanted = ", ".join(["n", *map(str, axes[1:])])
            raise WorkError(
                f"model '{self._who}' takes inputs of shape ({wanted}); prepared, these have "
                f"{tuple(shape)}"
            )


def _tap(program: Program, steps: Sequence[Step], layer: str, who: str) -> Tap:
    """Where a layer is read."""
    if layer == "output":
        return Tap(len(steps), program.output)
    if layer == "penultimate":
        return _before_the_last_linear(program, steps, who)
    names = [name for step in steps for name in step.outputs if name in program.tensors]
    for position, step in enumerate(steps):
        if layer in step.outputs and layer in names:
            return Tap(position + 1, layer)
    hint = closest(layer, [*map(str, names), "output", "penultimate"])
    if hint.startswith("known"):  # nothing is near, and a program has hundreds of nodes
        hint = _some(names)
    raise WorkError(f"model '{who}' has no layer '{layer}': {hint}")


def _before_the_last_linear(program: Program, steps: Sequence[Step], who: str) -> Tap:
    """What goes into it; products inside attention have no weights."""
    fixed = {*program.weights, *program.constants}
    found = None
    for position, step in enumerate(steps):
        uses = step.uses()
        if uses and uses <= fixed:
            fixed.update(name for name in step.outputs if name)
        elif step.target in _LINEAR:
            value, weight = (step.named[name] for name in _LINEAR[step.target])
            if isinstance(value, Name) and weight in [Name(name) for name in fixed]:
                found = Tap(position, value.text)
    if found is None:
        names = [name for step in steps for name in step.outputs if name in program.tensors]
        raise WorkError(
            f"model '{who}' has no linear layer, so 'penultimate' means nothing: name a node; "
            f"{_some(names)}"
        )
    return found


def _some(names: Sequence[str | None]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[-SHOWN:])
    return f"there are {len(names)}, the last of them {shown}; 'output' is what it returns"


def _last_uses(steps: Sequence[Step], kept: set[str]) -> list[list[str]]:
    """Names to forget after each step, so that memory holds no more than what is needed."""
    last: dict[str, int] = {}
    for position, step in enumerate(steps):
        for name in {*step.uses(), *(name for name in step.outputs if name)} - kept:
            last[name] = position
    return [[name for name, at in last.items() if at == position] for position in range(len(steps))]


def _in_numpy(dtype: torch.dtype) -> Any:
    """NumPy's type for inputs; it has no bfloat16."""
    return np.float32 if dtype == torch.bfloat16 else torch.empty(0, dtype=dtype).numpy().dtype

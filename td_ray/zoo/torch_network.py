"""Torch modules as networks: hooks on layers, positions pooled.

A layer is ``output`` (what the module returns), ``penultimate`` (what goes into the last linear
layer that runs), or the name of any submodule as ``named_modules`` has it. Spatial maps
(n, c, h, w) and token sequences (n, t, d) are averaged over positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from td_ray.errors import WorkError
from td_ray.registry import closest
from td_ray.tasks.inputs import Block
from td_ray.zoo.network import Network

Prepare = Callable[[Block], Any]


class TorchNetwork(Network):
    """A module, how its inputs are prepared, and hooks on the layers that are asked for."""

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        *,
        prepare: Prepare,
        device: str,
        who: str,
    ) -> None:
        """Put hooks on the module's layers.

        Args:
            prepare: turns a block of inputs into what the module takes.
            device: ``cpu`` or ``cuda``.
            who: the model's name, for errors.

        Raises:
            WorkError: no such layer.
        """
        self._place = torch.device(device)
        self._module = module.to(self._place).eval()
        self._layers, self._prepare, self._who = tuple(layers), prepare, who
        self._seen: dict[str, Any] = {}
        self._hooks: list[RemovableHandle] = []
        for layer in self._layers:
            self._watch(layer)

    def prepare(self, block: Block) -> Any:
        """See ``Network``."""
        return self._prepare(block)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """See ``Network``."""
        self._seen.clear()
        with torch.inference_mode():
            self._seen["output"] = self._module(batch.to(self._place))
        return {layer: self._features(layer) for layer in self._layers}

    def close(self) -> None:
        """Take the hooks off; the module is as it was."""
        for hook in self._hooks:
            hook.remove()

    def _features(self, layer: str) -> Tensor:
        if layer not in self._seen:
            raise WorkError(
                f"model '{self._who}' does not use its layer '{layer}'; name another layer"
            )
        return _pool(self._seen[layer], self._who, layer)

    def _watch(self, layer: str) -> None:
        if layer == "output":
            return
        if layer == "penultimate":
            # the last one that runs: others may be defined after it
            for linear in _linears(self._module, self._who):
                hook = linear.register_forward_pre_hook(self._keep_input, with_kwargs=True)
                self._hooks.append(hook)
            return
        modules = dict(self._module.named_modules())
        if layer not in modules or not layer:
            names = [*(name for name in modules if name), "output", "penultimate"]
            raise WorkError(f"model '{self._who}' has no layer '{layer}': {closest(layer, names)}")

        def keep_output(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            self._seen[layer] = _copy(output)

        self._hooks.append(modules[layer].register_forward_hook(keep_output))

    def _keep_input(self, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._seen["penultimate"] = _copy(arguments[0] if arguments else named["input"])


def _copy(value: Any) -> Any:
    """What the next layer may change in place must be copied."""
    return value.clone() if isinstance(value, Tensor) else value


def _linears(module: nn.Module, who: str) -> list[nn.Module]:
    linear: list[nn.Module] = [child for child in module.modules() if isinstance(child, nn.Linear)]
    if not linear:
        raise WorkError(
            f"model '{who}' has no linear layer, so 'penultimate' means nothing: "
            "name a layer, or say layers: output"
        )
    return linear


def _pool(features: Any, who: str, layer: str) -> Tensor:
    if not isinstance(features, Tensor):
        kind = type(features).__name__
        raise WorkError(f"model '{who}' gives a {kind} at layer '{layer}'; a tensor is needed")
    values: Tensor = features.float()
    if values.ndim == 4:
        values = values.mean((2, 3))
    elif values.ndim == 3:
        values = values.mean(1)
    if values.ndim != 2:
        shape = tuple(values.shape)
        raise WorkError(f"model '{who}' gives shape {shape} at layer '{layer}'; name another layer")
    return values

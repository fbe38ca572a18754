"""Torch modules as networks: hooks on layers, positions pooled.

A layer is ``output`` (what the module returns), ``penultimate`` (what goes into the last linear
layer that runs), or the name of any submodule as ``named_modules`` has it. Positions are pooled
as ``td_ray.zoo.pooling`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from td_ray.errors import WorkError
from td_ray.registry import closest
from td_ray.tasks.inputs import Block
from td_ray.zoo.network import Network
from td_ray.zoo.pooling import Pooler, Pooling
from td_ray.zoo.source import Precision

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
        pooling: Pooling = "mean",
        precision: Precision = "float32",
        classifier: Sequence[nn.Module] | None = None,
        unwrap: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        """Put hooks on the module's layers.

        Args:
            prepare: turns a block of inputs into a tensor, or into a mapping of tensors which
                the module takes by name (its ``attention_mask`` says what is padding).
            device: ``cpu``, ``cuda`` or ``meta``.
            who: the model's name, for errors.
            pooling: how positions become one row.
            precision: of the forward pass.
            classifier: the modules whose input is ``penultimate``; by default all linear ones.
            unwrap: finds the tensor in what a layer gives.

        Raises:
            WorkError: no such layer.
        """
        self._place = torch.device(device)
        self._module = module.to(self._place).eval()
        self._layers, self._prepare, self._who = tuple(layers), prepare, who
        self._classifier, self._unwrap = classifier, unwrap
        self._pool, self._precision = Pooler(pooling, who), precision
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
        with torch.inference_mode(), self._in_precision():
            if isinstance(batch, Mapping):
                named = {name: tensor.to(self._place) for name, tensor in batch.items()}
                self._seen["output"] = self._unwrap(self._module(**named))
                mask = named.get("attention_mask")
            else:
                self._seen["output"] = self._unwrap(self._module(batch.to(self._place)))
                mask = None
            return {layer: self._features(layer, mask) for layer in self._layers}

    def _in_precision(self) -> AbstractContextManager[Any]:
        if self._precision != "float32" and self._place.type != "meta":
            return torch.autocast(self._place.type, getattr(torch, self._precision))
        if self._place.type == "cuda":
            # cuDNN's default, TF32, keeps ten bits of what a convolution takes
            return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        return nullcontext()

    def close(self) -> None:
        """Take the hooks off; the module is as it was."""
        for hook in self._hooks:
            hook.remove()

    def _features(self, layer: str, mask: Tensor | None) -> Tensor:
        if layer not in self._seen:
            raise WorkError(
                f"model '{self._who}' does not use its layer '{layer}'; name another layer"
            )
        return self._pool(self._seen[layer], layer, mask)

    def _watch(self, layer: str) -> None:
        if layer == "output":
            return
        if layer == "penultimate":
            # the last one that runs: others may be defined after it
            for module in self._classifier or _linears(self._module, self._who):
                hook = module.register_forward_pre_hook(self._keep_input, with_kwargs=True)
                self._hooks.append(hook)
            return
        modules = dict(self._module.named_modules())
        if layer not in modules or not layer:
            names = [*(name for name in modules if name), "output", "penultimate"]
            raise WorkError(f"model '{self._who}' has no layer '{layer}': {closest(layer, names)}")

        def keep_output(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            self._seen[layer] = _copy(self._unwrap(output))

        self._hooks.append(modules[layer].register_forward_hook(keep_output))

    def _keep_input(self, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._seen["penultimate"] = _copy(arguments[0] if arguments else named["input"])


def without_weights(build: Callable[[], nn.Module]) -> nn.Module:
    """What a function builds, with shapes and no numbers, where it does not compute with numbers.

    Where it does, the module is built as it is; ``to("meta")`` then drops the numbers.
    """
    try:
        with torch.device("meta"):
            return build()
    except Exception:  # what computes with nothing may raise anything; the next line says what else
        return build()


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

"""Features from a torch module: batches in, the output of a layer out.

A layer is ``output`` (what the module returns), ``penultimate`` (what goes into the last linear
layer that runs), or the name of any submodule as ``named_modules`` has it. Spatial maps
(n, c, h, w) and token sequences (n, t, d) are averaged over positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from td_ray.errors import MachineError, WorkError
from td_ray.files import one_line
from td_ray.registry import closest

Prepare = Callable[[NDArray[Any]], Tensor]


def features_of(
    module: nn.Module,
    inputs: NDArray[Any],
    layer: str,
    *,
    prepare: Prepare,
    device: str,
    batch_size: int,
    who: str,
) -> Iterator[NDArray[np.float32]]:
    """Yield the features of all inputs, batch by batch, in float32.

    Args:
        inputs: (n, ...) array.
        prepare: turns a block of inputs into what the module takes.
        device: ``auto``, ``cpu`` or ``cuda``.
        who: the model's name, for errors.

    Raises:
        WorkError: no such layer, or the module raises on the data.
    """
    place = torch.device(find_device(device))
    module = module.to(place).eval()
    with torch.inference_mode(), _watch(module, layer, who) as seen:
        for start in range(0, len(inputs), batch_size):
            block = np.array(inputs[start : start + batch_size])
            yield _run(module, block, prepare, layer, seen, place, who)


def _run(
    module: nn.Module,
    block: NDArray[Any],
    prepare: Prepare,
    layer: str,
    seen: dict[str, Any],
    place: torch.device,
    who: str,
) -> NDArray[np.float32]:
    """The features of one batch."""
    seen.clear()
    try:
        output = module(prepare(block).to(place))
    except WorkError:
        raise
    except Exception as error:  # the module is somebody's code: it can raise anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise WorkError(f"model '{who}' fails on inputs of shape {block.shape}: {reason}") from None
    if layer == "output":
        seen["features"] = output
    elif "features" not in seen:
        raise WorkError(f"model '{who}' does not use its layer '{layer}'; name another layer")
    features = _pool(seen["features"], who, layer).cpu().numpy()
    if len(features) != len(block):
        raise WorkError(
            f"model '{who}' gives {len(features)} rows at layer '{layer}' for {len(block)} samples"
        )
    return features


def find_device(name: str) -> str:
    """Return ``cpu`` or ``cuda`` for the ``device`` of an experiment.

    Raises:
        MachineError: ``cuda`` where there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError("resources.device is 'cuda', and torch sees no CUDA device; say 'auto'")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


@contextmanager
def _watch(module: nn.Module, layer: str, who: str) -> Iterator[dict[str, Any]]:
    """Catch what a layer gives during a forward pass."""
    seen: dict[str, Any] = {}
    if layer == "output":
        yield seen
        return
    if layer == "penultimate":
        # the last one that runs: others may be defined after it
        hooks = [
            linear.register_forward_pre_hook(_keep_input(seen), with_kwargs=True)
            for linear in _linears(module, who)
        ]
    else:
        modules = dict(module.named_modules())
        if layer not in modules or not layer:
            names = [*(name for name in modules if name), "output", "penultimate"]
            raise WorkError(f"model '{who}' has no layer '{layer}': {closest(layer, names)}")
        hooks = [modules[layer].register_forward_hook(_keep_output(seen))]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _keep_input(seen: dict[str, Any]) -> Callable[..., None]:
    def keep(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen["features"] = _copy(arguments[0] if arguments else named["input"])

    return keep


def _keep_output(seen: dict[str, Any]) -> Callable[..., None]:
    def keep(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        seen["features"] = _copy(output)

    return keep


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

"""What a forward pass consists of, counted on shapes alone: nothing is computed with weights.

Floating-point operations are those that torch counts (products, convolutions, attention). Bytes are
those of every operation's arguments and results, views apart, as if nothing stayed in a cache.
Attention is one operation, as kernels do it that never write its matrix down.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from td_ray.costs import Counts
from td_ray.errors import WorkError
from td_ray.extraction.networks import rows_of_batch
from td_ray.files import one_line
from td_ray.spec import Resources
from td_ray.tasks import DataSet
from td_ray.zoo import NetworkSource
from td_ray.zoo.network import Network

SAMPLES = 16
"""That are prepared to see how long that takes; the first of them are not timed."""


@dataclass(frozen=True)
class Forward:
    """What one sample takes.

    Attributes:
        work: of the pass.
        preparing: seconds on one core of this machine, such as decoding and resizing.
        widths: of the features, by layer.
    """

    work: Counts
    preparing: float
    widths: Mapping[str, int]


def count_forward(
    model: NetworkSource,
    data: DataSet,
    layers: Sequence[str],
    folder: Path,
    resources: Resources,
    device: str,
) -> Forward:
    """Count one sample of a pass in the batches in which samples go through.

    Args:
        folder: where relative paths start.
        device: ``cpu`` or ``cuda``, which decides the size of a batch.

    Raises:
        WorkError: the network cannot be built without weights, or run without numbers.
    """
    try:
        network = model.load(folder, data, layers, "meta")
        rows = rows_of_batch(network, data.inputs, resources, device)
        prepared, preparing = _prepared(network, data)
        work, widths = count_network(network, prepared, rows)
    except Exception as error:  # a network may do what shapes alone do not suffice for
        who = f"model '{model.name}' on data set '{data.name}'"
        raise WorkError(f"{who} cannot be counted: {one_line(error)}") from None
    return Forward(work, preparing, widths)


def count_network(network: Network, prepared: Any, rows: int) -> tuple[Counts, dict[str, int]]:
    """What one sample consists of when so many go through at once, and the widths of the layers.

    Args:
        network: on ``meta``.
        prepared: some samples, of which the shapes count.
    """
    # beside "meta", libraries know these by their type, and ask them for no numbers
    with FakeTensorMode(allow_non_fake_inputs=True):
        batch = _of_rows(prepared, rows)
        with _Counting() as counting:
            features = network.forward(batch)
    work = Counts(counting.flops, counting.bytes, counting.calls, counting.convolved)
    widths = {layer: int(values.shape[1]) for layer, values in features.items()}
    return work * (1 / rows), widths


def _prepared(network: Network, data: DataSet) -> tuple[Any, float]:
    """Some prepared samples, and the seconds that one of them took."""
    half = max(1, min(SAMPLES, data.n) // 2)
    first, second = data.inputs[0:half], data.inputs[half : 2 * half]
    network.prepare(first)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        started = time.perf_counter()
        prepared = network.prepare(second if len(second) == half else first)
        return prepared, (time.perf_counter() - started) / half
    finally:
        torch.set_num_threads(threads)


def _of_rows(prepared: Any, rows: int) -> Any:
    """As many rows as a batch has, with the shapes of what was prepared."""
    if isinstance(prepared, Mapping):
        return {name: _of_rows(values, rows) for name, values in prepared.items()}
    if isinstance(prepared, np.ndarray):
        return np.zeros((rows, *prepared.shape[1:]), prepared.dtype)
    return torch.empty((rows, *prepared.shape[1:]), dtype=prepared.dtype, device="meta")


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, what is computed in them, and the bytes of what they take and give."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.bytes = 0
        self.calls = 0
        self.convolved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # what a tensor is, and nothing that is done with it
            return NotImplemented
        if func is torch.ops.aten.detach_.default:  # of constants, which are not yet of their type
            return args[0]
        if func is torch.ops.aten.scaled_dot_product_attention.default:
            query, key, value = args[:3]
            result = query.new_empty((*query.shape[:-1], value.shape[-1]))
            shapes = (query.shape, key.shape, value.shape)
            self.flops += sdpa_flop_count(*shapes)  # type: ignore[no-untyped-call]
            self._count((args, kwargs, result))
            return result
        with self:  # one that consists of others is counted as those
            result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=result)
            if packet is torch.ops.aten.convolution:
                self.convolved += flops
            else:
                self.flops += flops
        if not func.is_view:
            self._count((args, kwargs, result))
        return result

    def _count(self, touched: Any) -> None:
        tensors = (each for each in tree_leaves(touched) if isinstance(each, Tensor))
        self.bytes += sum(map(_bytes, tensors))
        self.calls += 1


def _bytes(tensor: Tensor) -> int:
    """Of what lies in memory: what is expanded lies there once."""
    axes = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.itemsize * math.prod(size for size, step in axes if step)

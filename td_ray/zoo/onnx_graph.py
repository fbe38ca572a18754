"""An ONNX graph as a network: any node's output as a layer, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from td_ray.errors import MachineError, WorkError
from td_ray.files import one_line
from td_ray.registry import closest
from td_ray.tasks.inputs import Block
from td_ray.zoo.graph_inputs import Axis, GraphInputs
from td_ray.zoo.network import Network
from td_ray.zoo.pooling import Pooler, Pooling

SHOWN = 8
"""How many node outputs an error names."""


class OnnxNetwork(Network):
    """A session whose outputs are the layers that are asked for."""

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
        """Load the graph and make each layer one of its outputs.

        Args:
            images: how images are prepared, as ``GraphInputs`` takes it.
            device: ``cpu`` or ``cuda``.
            who: the model's name, for errors.

        Raises:
            WorkError: not an ONNX graph of one input, or no such layer.
            MachineError: ``cuda`` where onnxruntime has none.
        """
        if device == "meta":
            raise WorkError("onnxruntime does not tell what a graph consists of")
        self._who, self._pool = who, Pooler(pooling, who)
        graph = _read(path)
        self._names = {layer: _output_name(graph.graph, layer, who) for layer in layers}
        self._session = _session(graph, list(self._names.values()), device, path)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(item.name for item in inputs)
            raise WorkError(f"model '{who}' has {len(inputs)} inputs ({names}); it must have one")
        self._input = inputs[0]
        shape, dtype = self._input.shape, _dtype(self._input.type, who)
        self._inputs = GraphInputs(shape, dtype, **images, who=who)
        self._batches = Axis(shape[0], shape[0]) if isinstance(shape[0], int) else Axis()

    def prepare(self, block: Block) -> NDArray[Any]:
        """See ``Network``: images for an input of four axes, else the arrays as they are."""
        return self._inputs(block)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """See ``Network``; a graph for a fixed number of samples runs as often as it must."""
        parts = [self._run(piece) for piece in self._batches.pieces(batch)]
        found = {}
        for position, layer in enumerate(self._names):
            values = [torch.from_numpy(np.asarray(part[position])) for part in parts]
            found[layer] = self._pool(torch.cat(values)[: len(batch)], layer)
        return found

    def _run(self, batch: NDArray[Any]) -> list[Any]:
        names = list(dict.fromkeys(self._names.values()))
        values = dict(zip(names, self._session.run(names, {self._input.name: batch}), strict=True))
        return [values[name] for name in self._names.values()]


def _read(path: Path) -> Any:
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False)
        stray = _stray_weights(graph, path)
        if not stray:
            onnx.load_external_data_for_model(graph, str(path.parent))
    except Exception as error:  # protobuf, the checker and the file system all have their own
        raise WorkError(f"{path} cannot be read as an ONNX graph: {one_line(error)}") from None
    if stray:
        raise WorkError(
            f"{path} has weights in '{stray}'; they must lie in the graph itself or in one file "
            f"called {path.name}.data beside it"
        )
    return graph


def _stray_weights(graph: Any, path: Path) -> str | None:
    """A file of weights that the model's identity does not cover."""
    for tensor in _tensors(graph):
        for entry in tensor.external_data:
            known = (f"{path.name}.data", f"{path.name}_data")
            if entry.key == "location" and entry.value not in known:
                return str(entry.value)
    return None


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors in a message: weights, constants of nodes, those of subgraphs and functions."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(inner)


def _output_name(graph: Any, layer: str, who: str) -> str:
    """The name, in the graph, of what a layer gives."""
    if layer == "output":
        return str(graph.output[0].name)
    outputs = [name for node in graph.node for name in node.output if name]
    if layer == "penultimate":
        return _classifier_input(graph, who)
    if layer in outputs:
        return layer
    hint = closest(layer, [*outputs, "output", "penultimate"])
    if hint.startswith("known"):  # nothing is near, and a graph has hundreds of nodes
        hint = _some(graph)
    raise WorkError(f"model '{who}' has no layer '{layer}': {hint}")


def _classifier_input(graph: Any, who: str) -> str:
    """What goes into the last Gemm, or MatMul by weights: MatMul inside attention has none."""
    weights = {item.name for item in graph.initializer}
    weights |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    for node in reversed(graph.node):
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in weights:
            return str(node.input[0])
    raise WorkError(
        f"model '{who}' has no Gemm or MatMul by weights, so 'penultimate' means nothing: name a "
        f"node's output; {_some(graph)}"
    )


def _some(graph: Any) -> str:
    """The last node outputs, without those that only pass on what they get."""
    passing = ("Identity", "Constant", "Cast")
    names = [node.output[0] for node in graph.node if node.op_type not in passing]
    shown = ", ".join(f"'{name}'" for name in names[-SHOWN:])
    return f"there are {len(names)}, the last of them {shown}; 'output' is what it returns"


def _session(graph: Any, wanted: list[str], device: str, path: Path) -> Any:
    import onnx
    import onnxruntime

    known = {item.name for item in graph.graph.output}
    for name in dict.fromkeys(wanted):
        if name not in known:
            graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise MachineError(
            f"{path} is to run on a GPU, and onnxruntime has no CUDA here: pip install "
            "onnxruntime-gpu, or say resources.device: cpu"
        )
    content = graph.SerializeToString()
    try:
        return onnxruntime.InferenceSession(content, options, providers=[provider])
    except Exception as error:  # onnxruntime's errors share no base but this
        raise WorkError(f"{path} cannot be run by onnxruntime: {one_line(error)}") from None


def _dtype(kind: str, who: str) -> Any:
    found = {
        "tensor(float)": np.float32,
        "tensor(float16)": np.float16,
        "tensor(double)": np.float64,
        "tensor(uint8)": np.uint8,
        "tensor(int64)": np.int64,
        "tensor(int32)": np.int32,
    }
    if kind not in found:
        raise WorkError(f"model '{who}' takes {kind}; one of {', '.join(found)} is needed")
    return found[kind]

"""Programs of torch.export, read as data: JSON and raw tensors, and no code.

``torch.export.load`` (torch 2.14) runs what a file says: it unpickles sample inputs, opaque
constants and some weights with ``weights_only=False``, evaluates the text of sizes, and loads
compiled libraries. Here none of those is read. A file that cannot do without is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch import Tensor

from td_ray.errors import WorkError
from td_ray.files import one_line
from td_ray.zoo.graph_inputs import Axis

# The numbers of torch._export.serde.schema: of types, layouts and memory formats.
DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    9: torch.complex32,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}
LAYOUTS = {7: torch.strided}
MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_SCHEMA = 8
"""The major version of the schema that is read here."""

_SYMBOL = re.compile(r"Symbol\('(\w+)'[\w, =]*\)")
_MULTIPLE = re.compile(r"Mul\(Integer\((\d+)\), Symbol\('(\w+)'[\w, =]*\)\)")


@dataclass(frozen=True)
class Program:
    """A program, as its file says it.

    Attributes:
        nodes: in the order in which they run, as the schema has them.
        tensors: names of all tensors of the graph.
        weights: parameters, buffers and constants, by their names in the graph.
        constants: inputs that are always the same, by their names in the graph.
        input: the name of the only tensor that goes in.
        dtype: of that tensor.
        axes: the sizes that its axes may have.
        same: groups of axes, without the first, that must have one size.
        output: the name of the first tensor that comes out.
    """

    nodes: Sequence[dict[str, Any]]
    tensors: frozenset[str]
    weights: dict[str, Tensor]
    constants: dict[str, Any]
    input: str
    dtype: torch.dtype
    axes: Sequence[Axis]
    same: Sequence[Sequence[int]]
    output: str


@contextmanager
def reading_program(path: Path) -> Iterator[None]:
    """Turn whatever a damaged program raises into one line.

    Raises:
        WorkError: it cannot be read.
    """
    try:
        yield
    except WorkError:
        raise
    except Exception as error:  # a damaged archive may say anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise WorkError(f"{path} cannot be read as a program of torch.export: {reason}") from None


def read_program(path: Path) -> Program:
    """Read a ``.pt2`` file.

    Raises:
        WorkError: it is none, it is damaged, or it holds pickled or compiled parts that it needs.
    """
    with reading_program(path), ZipFile(path) as archive:
        return _program(archive, path)


def _program(archive: ZipFile, path: Path) -> Program:
    root = archive.namelist()[0].partition("/")[0]
    _refuse_what_is_no_data(archive, root, path)
    content = json.loads(archive.read(f"{root}/models/model.json"))
    if content["schema_version"]["major"] != _SCHEMA:
        version = content["schema_version"]["major"]
        raise WorkError(
            f"{path} has version {version} of torch.export's schema, and {_SCHEMA} can be read; "
            "export it anew with another torch"
        )
    graph, signature = content["graph_module"]["graph"], content["graph_module"]["signature"]
    inputs = [next(iter(spec.items())) for spec in signature["input_specs"]]
    name = _only_input(inputs, path)
    meta = graph["tensor_values"][name]
    sizes = meta["sizes"]
    texts = [size.get("as_expr", {}).get("expr_str") for size in sizes]
    return Program(
        nodes=graph["nodes"],
        tensors=frozenset(graph["tensor_values"]),
        weights=_weights(archive, root, inputs, path),
        constants={
            item["name"]: next(iter(item["value"].values()))
            for item in _of(inputs, "constant_input")
        },
        input=name,
        dtype=DTYPES[meta["dtype"]],
        axes=[_axis(size, content["range_constraints"], path) for size in sizes],
        same=[
            [axis for axis, other in enumerate(texts) if axis and other == text]
            for text in {text for text in texts[1:] if text}
        ],
        output=_first_output(signature, path),
    )


def _refuse_what_is_no_data(archive: ZipFile, root: str, path: Path) -> None:
    names = {name.removeprefix(f"{root}/") for name in archive.namelist()}
    if any(name.startswith("data/aotinductor/") for name in names):
        raise WorkError(
            f"{path} holds compiled code, which is not run; save the program with torch.export.save"
        )
    if {"data/weights/model.pt", "serialized_state_dict.pt"} & names:
        raise WorkError(
            f"{path} holds pickled weights, as an older torch wrote them; export it anew with "
            "torch 2.9 or later"
        )
    if "models/model.json" not in names:
        raise WorkError(f"{path} is not a program that torch.export.save has written")


def _of(inputs: Sequence[tuple[str, Any]], kind: str) -> list[Any]:
    return [item for found, item in inputs if found == kind]


def _only_input(inputs: Sequence[tuple[str, Any]], path: Path) -> str:
    arguments = [item["arg"] for item in _of(inputs, "user_input")]
    tensors = [str(item["as_tensor"]["name"]) for item in arguments if "as_tensor" in item]
    if len(tensors) != 1 or len(arguments) != 1:
        names = ", ".join(tensors) or "no tensor"
        raise WorkError(f"{path} has {len(arguments)} inputs ({names}); it must have one tensor")
    return tensors[0]


def _first_output(signature: dict[str, Any], path: Path) -> str:
    specs = [next(iter(spec.items())) for spec in signature["output_specs"]]
    if any(kind.endswith("_mutation") for kind, _ in specs):
        raise WorkError(
            f"{path} changes its own buffers whenever it runs; export it after model.eval()"
        )
    for kind, item in specs:
        if kind == "user_output" and "as_tensor" in item["arg"]:
            return str(item["arg"]["as_tensor"]["name"])
    raise WorkError(f"{path} returns no tensor")


def _axis(size: dict[str, Any], ranges: dict[str, Any], path: Path) -> Axis:
    if "as_int" in size:
        return Axis(size["as_int"], size["as_int"])
    text = size["as_expr"]["expr_str"]
    factor, symbol = 1, _SYMBOL.fullmatch(text)
    multiple = _MULTIPLE.fullmatch(text)
    if multiple:
        factor, name = int(multiple[1]), multiple[2]
    elif symbol:
        name = symbol[1]
    else:
        raise WorkError(
            f"{path} takes inputs with an axis of size {text}; export it with an axis that is "
            "fixed, free, or a multiple of a number"
        )
    bounds = ranges.get(name) or {}
    least, most = max(1, bounds.get("min_val") or 1), bounds.get("max_val")
    # torch writes "no bound" as None, as 2**63 - 1, or as one less
    largest = None if most is None or most >= 2**62 else most * factor
    return Axis(least * factor, largest, factor)


def _weights(
    archive: ZipFile, root: str, inputs: Sequence[tuple[str, Any]], path: Path
) -> dict[str, Tensor]:
    if _of(inputs, "custom_obj") or _of(inputs, "token"):
        raise WorkError(f"{path} uses objects of somebody's own classes, which are not loaded")
    found = _payloads(archive, f"{root}/data/constants", "model_constants_config.json", path)
    found |= _payloads(archive, f"{root}/data/weights", "model_weights_config.json", path)
    names = {"parameter": "parameter_name", "buffer": "buffer_name"}
    names["tensor_constant"] = "tensor_constant_name"
    return {item["arg"]["name"]: found[item[names[kind]]] for kind, item in inputs if kind in names}


def _payloads(archive: ZipFile, folder: str, config: str, path: Path) -> dict[str, Tensor]:
    """Tensors by the names that they had in the module; those that share bytes share them here."""
    entries = json.loads(archive.read(f"{folder}/{config}"))["config"]
    flat: dict[tuple[str, int], Tensor] = {}
    found = {}
    for name, entry in entries.items():
        meta, file = entry["tensor_meta"], entry["path_name"]
        if entry["use_pickle"] or meta is None:
            raise WorkError(
                f"{path} holds '{name}' pickled, which could run code and is not loaded; export "
                "the model with weights that are plain tensors"
            )
        if (file, meta["dtype"]) not in flat:
            content = bytearray(archive.read(f"{folder}/{file}"))
            dtype = DTYPES[meta["dtype"]]
            values = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0).to(dtype)
            flat[file, meta["dtype"]] = values
        found[name] = _strided(flat[file, meta["dtype"]], meta)
    return found


def _strided(values: Tensor, meta: dict[str, Any]) -> Tensor:
    sizes, strides = ([item["as_int"] for item in meta[key]] for key in ("sizes", "strides"))
    if math.prod(sizes) == 0:
        return values.new_empty(sizes)
    return values.as_strided(sizes, strides, meta["storage_offset"]["as_int"])

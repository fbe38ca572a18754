"""Nodes of a program of torch.export, made ready to run.

Operators of torch (aten) and arithmetic on sizes are all that is called: a program that names
anything else is refused, so that a file runs no code but torch's.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from td_ray.errors import WorkError
from td_ray.zoo.exported_archive import DTYPES, LAYOUTS, MEMORY_FORMATS

_ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
_WITHOUT_GRADIENTS = "torch.ops.higher_order.wrap_with_set_grad_enabled"

# Arithmetic on sizes: torch._export.serde.serialize._SYM_OPS.
_OF_OPERATOR = "eq ne le ge lt gt neg pos mul add sub floordiv truediv mod pow and_ or_"
_OF_TORCH = "sym_not sym_int sym_float sym_ite sym_max sym_min sym_sqrt"
_ON_SIZES: dict[str, Callable[..., Any]] = {
    "math.trunc": math.trunc,
    **{f"_operator.{name}": getattr(operator, name) for name in _OF_OPERATOR.split()},
    **{f"torch.{name}": getattr(torch, name) for name in _OF_TORCH.split()},
}


@dataclass(frozen=True)
class Name:
    """Stands, among arguments, for what an earlier step gives."""

    text: str


@dataclass(frozen=True)
class Step:
    """A node that is ready to run.

    Attributes:
        target: the operator's name without its overload, such as ``linear``.
        outputs: names of what it gives, with None for what has no name.
        gives_one: whether its result is the value itself, not a sequence of values.
    """

    target: str
    call: Callable[..., Any]
    positional: Sequence[Any]
    named: Mapping[str, Any]
    outputs: Sequence[str | None]
    gives_one: bool

    def run(self, values: dict[str, Any]) -> None:
        """Run it on earlier values, and put its own beside them."""
        named = {name: _filled(item, values) for name, item in self.named.items()}
        result = self.call(*(_filled(item, values) for item in self.positional), **named)
        results = [result] if self.gives_one else result
        for name, value in zip(self.outputs, results, strict=True):
            if name is not None:
                values[name] = value

    def uses(self) -> set[str]:
        """Names of the values that it takes."""
        return _names([*self.positional, *self.named.values()])


def ready(node: Mapping[str, Any], place: torch.device, who: str) -> Step:
    """Find a node's operator and read its arguments.

    Args:
        node: as the schema has it.
        place: the device that takes the place of any that the node names.
        who: the model's name, for errors.

    Raises:
        WorkError: another operator than torch's own, or one in training mode.
    """
    target, outputs = str(node["target"]), node["outputs"]
    _refuse_training_mode(node, target, who)
    names = [name for output in outputs for name in _output_names(output)]
    arguments = [item["arg"] for item in node["inputs"]]
    if target == _WITHOUT_GRADIENTS:  # there are none here, so the block inside just runs
        call = _block(arguments[1]["as_graph"]["graph"], place, who)
        operands = [_argument(item, place, who) for item in arguments[2:]]
        return Step("", call, operands, {}, names, False)
    gives_one = len(outputs) < 2 and not any("as_tensors" in output for output in outputs)
    values = [_argument(item, place, who) for item in arguments]
    if target in _ON_SIZES:
        return Step("", _ON_SIZES[target], values, {}, names, True)
    name, call = _operator(target, who)
    named = dict(zip((item["name"] for item in node["inputs"]), values, strict=True))
    return Step(name, call, [], named, names or [None], gives_one)


def _refuse_training_mode(node: Mapping[str, Any], target: str, who: str) -> None:
    """Dropout and batch normalization say it; instance normalization looks like the latter."""
    if target.endswith("_batch_norm_legit.no_stats"):
        return
    for item in node["inputs"]:
        is_training = item["name"] in ("train", "training") and item["arg"].get("as_bool")
        if is_training or (item["name"] == "dropout_p" and item["arg"].get("as_float")):
            raise WorkError(
                f"model '{who}' was exported in training mode ('{target}' says so); export it "
                "after model.eval()"
            )


def _block(graph: Mapping[str, Any], place: torch.device, who: str) -> Callable[..., list[Any]]:
    """A graph inside the graph, as a function of its inputs."""
    steps = [ready(node, place, who) for node in graph["nodes"]]
    inputs = [name for item in graph["inputs"] for name in _output_names(item)]
    outputs = [_argument(item, place, who) for item in graph["outputs"]]

    def call(*operands: Any) -> list[Any]:
        values = {str(name): operand for name, operand in zip(inputs, operands, strict=True)}
        for step in steps:
            step.run(values)
        return [_filled(item, values) for item in outputs]

    return call


def _operator(target: str, who: str) -> tuple[str, torch._ops.OpOverload]:
    match = _ATEN.fullmatch(target)
    found = getattr(getattr(torch.ops.aten, match[1], None), match[2], None) if match else None
    if not match or not isinstance(found, torch._ops.OpOverload) or _may_touch_files(found):
        raise WorkError(
            f"model '{who}' calls '{target}', which is not run: only torch's own operators (aten) "
            "are; run_decompositions() before torch.export.save may do without it"
        )
    return match[1], found


def _may_touch_files(found: torch._ops.OpOverload) -> bool:
    """``from_file`` reads and writes them, and so does ``save``, which is TorchScript's."""
    schema = found._schema
    name = f"{schema.name}.{schema.overload_name}".rstrip(".")
    is_script = not torch._C._dispatch_has_kernel(name)
    return is_script or any(item.name == "filename" for item in schema.arguments)


def _argument(item: Mapping[str, Any], place: torch.device, who: str) -> Any:
    """An argument as the schema has it, with names in place of what earlier steps give."""
    ((kind, value),) = item.items()
    match kind:
        case "as_none":
            return None
        case "as_int" | "as_bool" | "as_string" | "as_ints" | "as_bools" | "as_strings":
            return value
        case "as_float":
            return float(value)  # infinity is a text
        case "as_floats":
            return [float(number) for number in value]
        case "as_tensor":
            return Name(value["name"])
        case "as_tensors":
            return [Name(tensor["name"]) for tensor in value]
        case "as_name":
            return Name(value)
        case "as_optional_tensor" | "as_sym_int" | "as_sym_float" | "as_sym_bool":
            return _argument(value, place, who)
        case "as_optional_tensors" | "as_sym_ints" | "as_sym_floats" | "as_sym_bools":
            return [_argument(inner, place, who) for inner in value]
        case "as_scalar_type":
            return DTYPES[value]
        case "as_layout":
            return LAYOUTS[value]
        case "as_memory_format":
            return MEMORY_FORMATS[value]
        case "as_device":
            return place
    raise WorkError(f"model '{who}' has an argument of a kind that cannot be read: {kind}")


def _output_names(item: Mapping[str, Any]) -> list[str | None]:
    ((kind, value),) = item.items()
    if kind == "as_tensor":
        return [value["name"]]
    if kind == "as_tensors":
        return [tensor["name"] for tensor in value]
    is_size = kind in ("as_sym_int", "as_sym_float", "as_sym_bool")
    return [value.get("as_name") if is_size else None]


def _filled(item: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(item, Name):
        return values[item.text]
    return [_filled(inner, values) for inner in item] if isinstance(item, list) else item


def _names(item: Any) -> set[str]:
    if isinstance(item, Name):
        return {item.text}
    return {name for inner in item for name in _names(inner)} if isinstance(item, list) else set()

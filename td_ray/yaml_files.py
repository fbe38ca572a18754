"""YAML as people expect it: duplicate keys refused, ``1e-3`` a number, ``a.b=c`` overrides."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from td_ray.errors import InputError
from td_ray.files import require_file
from td_ray.printable import is_line


class _Loader(yaml.SafeLoader):
    """The safe loader, with two of YAML 1.1's surprises taken out."""


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which quotes what ``_Loader`` would not read as text."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        written = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
        if written in seen and written != _MERGE:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key '{key.value}' is there twice", key.start_mark
            )
        seen.add(written)
    return loader.construct_mapping(node, deep=True)


def _read_text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    text.encode("utf-8")  # refuses halves of characters, which YAML can spell and no file can hold
    return text


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None if is_line(text) else '"'  # in other styles, PyYAML folds what it does not escape
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_MERGE = ("tag:yaml.org,2002:merge", "<<")
_FLOAT = re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$")

# YAML 1.1 takes 4:00 for a number of base 60.
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_WHOLE = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0[0-7_]+|0x[0-9a-fA-F_]+)$")
_REAL = re.compile(
    r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)

_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor("tag:yaml.org,2002:str", _read_text)
_Dumper.add_representer(str, _text)
for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag not in _NUMBERS]
        for first, known in _class.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE, list("-+0123456789"))
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _REAL, list("-+.0123456789"))
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read(path: Path) -> dict[str, Any]:
    """Read a file that holds one mapping.

    Raises:
        InputError: no such file, not YAML, or not a mapping.
    """
    require_file(path, "experiment")
    return parse(path.read_bytes(), str(path))


def parse(content: bytes, where: str) -> dict[str, Any]:
    """Read the bytes of such a file.

    Raises:
        InputError: not YAML, or not a mapping; starts with ``where``.
    """
    try:
        found = _parse(content.decode("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{where}: not readable as YAML: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{where}: an experiment is a mapping with the keys models, data, tasks")
    return found


def write(content: dict[str, Any]) -> str:
    """Return YAML text, keys in the given order."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


def override(content: dict[str, Any], text: str) -> None:
    """Apply one ``a.b=c`` to ``content`` in place; ``c`` is read as YAML.

    An item of a list is named by its ``name`` or its number: ``heads.logistic.l2=1e-2``.

    Raises:
        InputError: no ``=``, or a step that leads nowhere.
    """
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise InputError(f"--set {text}: expected a.b=value")
    try:
        parsed = _parse(value)
    except ValueError as error:
        raise InputError(f"--set {text}: the value is not YAML: {error}") from None
    *steps, last = path.split(".")
    here: Any = content
    for step in steps:
        if isinstance(here, dict):
            if here.get(step) is None:
                here[step] = {}
            here = here[step]
        else:
            here = here[_position(here, step, text)]
    if isinstance(here, dict):
        here[last] = parsed
    else:
        here[_position(here, last, text)] = parsed


def _position(items: Any, step: str, text: str) -> int:
    if isinstance(items, list):
        for number, item in enumerate(items):
            named = item.get("name", item.get("kind")) if isinstance(item, dict) else item
            if named == step:
                return number
        if step.isdigit() and int(step) < len(items):
            return int(step)
    raise InputError(f"--set {text}: nothing is called '{step}' there")


def _parse(text: str) -> Any:
    """Read YAML text; whatever is wrong with it is a ValueError of one line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # such as the date 2020-13-45
        raise ValueError(" ".join(str(error).split())) from None

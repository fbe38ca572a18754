"""Names of sources, heads and measures, with a hint when a name is misspelt.

A class or function joins a registry in two ways: its module is imported and a decorator
registers it, or its package declares an entry point whose name is the registered name and
whose value is that module. The built-in ones use entry points as well, so that naming one
imports its own libraries and no others.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from td_ray.errors import InputError

T = TypeVar("T")


def closest(name: str, names: Iterable[str]) -> str:
    """Return ``"did you mean 'x'?"`` for the nearest name, else the list of known names."""
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean '{near[0]}'?"
    return "known: " + ", ".join(known) if known else "none is known"


def split_options(text: str) -> tuple[str, dict[str, Any]]:
    """A name and the options behind it: ``gulp(l=0.1)`` is gulp with l of 0.1.

    Raises:
        InputError: not a name, or one with options that cannot be read.
    """
    name, bracket, rest = str(text).partition("(")
    if not bracket:
        return name, {}
    parts = [part.partition("=") for part in rest.removesuffix(")").split(",")]
    if not rest.endswith(")") or not all(key.strip() and equals for key, equals, _ in parts):
        raise InputError(f"'{text}' is no name with options, such as '{name}(option=1)'")
    return name, {key.strip(): _value(word.strip()) for key, _, word in parts}


def _value(word: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(word)
    return word


class Registry(Generic[T]):
    """Objects by name; entry points of ``group`` are imported when first asked for."""

    def __init__(self, what: str, group: str) -> None:
        self.what = what
        self._group = group
        self._found: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its object under ``name``.

        Raises:
            InputError: the name is another object's already.
        """

        def add(item: T) -> T:
            other = self._found.get(name, item)
            if _home(other) != _home(item):  # a module that is loaded again is not another one
                raise InputError(
                    f"two {self.what}s are called '{name}': {_home(other)} and {_home(item)}; "
                    "uninstall one, or rename it"
                )
            self._found[name] = item
            return item

        return add

    def names(self) -> list[str]:
        """Return all names, those of entry points not imported yet included."""
        return sorted({*self._found, *(point.name for point in entry_points(group=self._group))})

    def get(self, name: str) -> T:
        """Return what is registered under ``name``.

        Raises:
            InputError: no such name (the message carries the closest one), or its module fails.
        """
        if name not in self._found:
            for point in entry_points(group=self._group, name=name):
                self._import(point.value, name)
        if name not in self._found:
            raise InputError(f"unknown {self.what} '{name}': {closest(str(name), self.names())}")
        return self._found[name]

    def _import(self, module: str, name: str) -> None:
        try:
            importlib.import_module(module)
        except InputError:
            raise
        except Exception as error:  # somebody else's module can raise anything
            reason = f"{type(error).__name__}: {error}"
            raise InputError(
                f"{self.what} '{name}': its module '{module}' cannot be imported: {reason}"
            ) from error


def _home(item: object) -> str:
    """Where an object is defined."""
    owner = item if hasattr(item, "__qualname__") else type(item)
    return f"{owner.__module__}.{owner.__qualname__}"


MODEL_SOURCES: Registry[Any] = Registry("model source", "td_ray.model_sources")
DATA_SOURCES: Registry[Any] = Registry("data source", "td_ray.data_sources")
HEAD_KINDS: Registry[Any] = Registry("head", "td_ray.heads")
MEASURES: Registry[Any] = Registry("measure", "td_ray.measures")

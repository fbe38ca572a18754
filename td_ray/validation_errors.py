"""Validation errors in one line: pydantic's own are many lines, and name what users never wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from td_ray.registry import closest

Place = tuple[int | str, ...]
"""Keys and numbers that lead to a value."""
Found = tuple[ErrorDetails, Place]
"""An error, and where it is."""


def explain(
    error: ValidationError,
    content: Mapping[str, Any],
    keys_beside: Callable[[Place, Mapping[str, Any]], list[str]],
) -> str:
    """Return the error that says most as one line: where, what, and the closest known key.

    Args:
        content: what was validated.
        keys_beside: the keys that would have been allowed where an unknown one was found.
    """
    # pydantic does not call the default of 'heads' once something else is wrong, and says so
    details = [item for item in error.errors() if item["type"] != "default_factory_not_called"]
    found = [(item, _place(item, content)) for item in details]
    detail, place = min(
        (each for each in found if _is_about_the_same(each, found[0])),
        key=lambda each: _rank(*each),
    )
    message = detail["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    message = re.sub(r"^(Tuple|Value) should have at least 1 item.*", "this list is empty", message)
    message = re.sub(r"a valid dictionary or instance of \w+", "a mapping", message)
    if detail["type"] == "extra_forbidden":
        known = keys_beside(place, content)
        message = f"unknown key: {closest(str(place[-1]), known)}"
    elif detail["type"] == "missing":
        message = "this key is missing"
    elif detail["type"] != "value_error":
        message = f"{message} (got {_short(detail['input'])})"
    others = {other[1] for other in found if not _is_about_the_same(other, (detail, place))}
    more = f" ({len(others)} more after this one)" if others else ""
    where = ".".join(map(str, place))
    return f"{where}: {message}{more}" if where else f"{message}{more}"


def _place(detail: ErrorDetails, content: Any) -> Place:
    """Where an error is, without the names that pydantic gives to the members of a union."""
    place: list[int | str] = []
    for part in detail["loc"]:
        if isinstance(content, Mapping):
            inside = part in content
        else:
            inside = isinstance(content, list | tuple) and part in range(len(content))
        if inside:
            content = content[part]
        if inside or (detail["type"] == "missing" and part == detail["loc"][-1]):
            place.append(part)
    return tuple(place)


def _is_about_the_same(one: Found, other: Found) -> bool:
    """Whether one error is within the other's value, or both are about keys of one mapping.

    Of the whole experiment, these are a key that is missing and an unknown one: its misspelling.
    """
    (detail, place), (other_detail, other_place) = one, other
    n = min(len(place), len(other_place))
    if place[:n] == other_place[:n]:
        return True
    kinds = {detail["type"], other_detail["type"]}
    are_keys = len(place) > 1 or kinds == {"missing", "extra_forbidden"}
    return are_keys and len(place) == len(other_place) and place[:-1] == other_place[:-1]


def _rank(detail: ErrorDetails, place: Place) -> tuple[int, int, bool]:
    """Small for errors that say most: a misspelt key, a deep place, a value of the right type."""
    vague = detail["type"].endswith(("_type", "literal_error"))
    return (0 if detail["type"] == "extra_forbidden" else 1, -len(place), vague)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

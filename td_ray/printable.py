"""Text of others on its way to a terminal, which would obey some of it instead of showing it."""

from __future__ import annotations

import re

_CONTROLS = "\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
"""Control characters, ends of lines, and halves of characters, which no encoding has."""

_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""Marks that have text around them read in another order."""

_OBEYED = re.compile(f"[{_CONTROLS}{_DIRECTIONS}]")
_NO_LINE = re.compile(f"[{_CONTROLS}]")


def printable(text: object) -> str:
    r"""One line that a terminal shows as it is: an escape is ``\x1b``, an end of line ``\n``."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def is_line(text: str) -> bool:
    """Whether a text is one line that every file and table can hold."""
    return _NO_LINE.search(text) is None

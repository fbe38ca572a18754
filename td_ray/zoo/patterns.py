"""Path patterns: ``zoo/{strategy}-{seed}.pt`` matches files and reads metadata from their names.

``*`` and ``?`` match within one folder, ``**/`` across folders, and neither matches a leading
dot; everything else is itself, brackets included. ``{word}`` matches like ``*``, at least one
letter, and keeps what it matched as metadata. ``{data}`` stands for the name of a data set and
stays in the path; ``{layer}`` becomes the layer.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from td_ray.errors import InputError
from td_ray.registry import closest
from td_ray.spec import Scalar

DATA = "{data}"
_REDUNDANT = re.compile(r"/(?:\./|/)+")
_BRACES = re.compile(r"\{([^{}]*)\}")
_TOKEN = re.compile(r"(\*\*/|\*\*|\*|\?|\{[A-Za-z_]\w*\})", re.ASCII)
_WILDCARDS = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}


@dataclass(frozen=True)
class Match:
    """A path that a pattern found; ``{data}`` is still in it.

    Attributes:
        path: as the pattern wrote it, with its wildcards filled in.
        captures: what each ``{word}`` matched.
    """

    path: str
    captures: Mapping[str, str]

    def default_name(self) -> str:
        """The captured words joined by ``-``, or the file's stem where nothing was captured."""
        words = [value for key, value in self.captures.items() if key != "layer"]
        return "-".join(words) or self._stem()

    def metadata(self) -> dict[str, Scalar]:
        """Captured words, whole numbers as numbers."""
        return {key: _number(word) for key, word in self.captures.items() if key != "layer"}

    def fill(self, template: str, where: str) -> str:
        """Fill ``{stem}``, ``{parent}`` and captured words into a name.

        Raises:
            InputError: the template names something that was not captured.
        """
        path = Path(self.path)
        words = {**self.captures, "stem": self._stem(), "parent": path.parent.name}
        return fill(template, words, where)

    def _stem(self) -> str:
        """The file's stem without ``{data}``; the folder's name where nothing else is left."""
        path = Path(self.path)
        return path.stem.replace(DATA, "").strip("-_. ") or path.parent.name or path.stem


def fill(template: str, words: Mapping[str, object], where: str) -> str:
    """Fill ``{word}`` into a template.

    Raises:
        InputError: an unknown word.
    """
    unknown = [word for word in _BRACES.findall(template) if word not in words]
    if unknown:
        raise InputError(
            f"{where}: name '{template}' cannot be filled: nothing is called '{unknown[0]}': "
            f"{closest(unknown[0], words)}"
        )
    return _BRACES.sub(lambda found: str(words[found[1]]), template)


def find(patterns: Sequence[str], folder: Path, data: Sequence[str], where: str) -> list[Match]:
    """Return the matches of all patterns, sorted by path within each pattern.

    Raises:
        InputError: a pattern that matches no file.
    """
    found: list[Match] = []
    for pattern in patterns:
        matches: dict[str, Match] = {}
        for name in data if DATA in pattern else ("",):
            for match in _find_one(pattern, folder, name):
                matches.setdefault(match.path, match)
        if not matches:
            raise InputError(f"{where}: no file matches {folder / pattern}")
        found.extend(matches[path] for path in sorted(matches))
    return found


def _find_one(pattern: str, folder: Path, data: str) -> list[Match]:
    tokens = _TOKEN.split(_REDUNDANT.sub("/", f"/{pattern}")[0 if pattern[:1] == "/" else 1 :])
    globbed, expression = "", ""
    captured: list[str] = []
    for number, token in enumerate(tokens):
        is_wildcard = number % 2 == 1
        if not is_wildcard:
            globbed += glob.escape(token)
            expression += re.escape(token)
            continue
        if token == DATA:
            globbed += glob.escape(data)
            expression += re.escape(data)
            continue
        word = token[1:-1] if token.startswith("{") else ""
        globbed += "*" if word else token
        if word and word in captured:  # the same word again must match the same text
            expression += f"(?P={word})"
        elif word:
            expression += f"(?P<{word}>[^/]+)"
            captured.append(word)
        else:
            expression += f"({_WILDCARDS[token]})"
    start = os.path.join(folder, "") if not os.path.isabs(pattern) else ""
    matches = []
    for file in glob.glob(glob.escape(start) + globbed, recursive=True):
        fit = re.fullmatch(expression, file[len(start) :], re.DOTALL)
        if fit and os.path.islink(file) and not os.path.exists(file):
            raise InputError(f"{file} is a link to {os.readlink(file)}, which is not there")
        if fit and os.path.isfile(file):
            matches.append(Match(_refill(tokens, fit), fit.groupdict()))
    return matches


def _refill(tokens: Sequence[str], fit: re.Match[str]) -> str:
    """The pattern with its wildcards replaced by what they matched."""
    text, group = "", 0
    for number, token in enumerate(tokens):
        if number % 2 == 0 or token == DATA:
            text += token
        elif token.startswith("{") and f"{{{token[1:-1]}}}" in tokens[:number]:
            text += fit[token[1:-1]]
        else:
            group += 1
            text += fit[group]
    return text


def _number(word: str) -> Scalar:
    return int(word) if word.isdecimal() and str(int(word)) == word else word

"""Names of others reach the terminal as text, never as commands to it."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from td_ray.printable import is_line, printable
from td_ray.sweep.progress import Bar, Lines
from td_ray.terminal import failure_lines, matrix_text, nearest_text, print_rows, write_text

OBEYED = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "a\rb",
    "a\nb",
    "a\0b",
    "\x9b31m",  # an escape of one byte
    "a\u2028b",
    "\u202egnp.exe",  # read from right to left
    "\u2067x\u2069",
    "a\udc80b",  # a byte of a file name that is not UTF-8
]
MARKUP = ["[red]x[/red]", "[/]", "[/nothing]", "[link=http://example.invalid]x[/link]", ":smile:"]
HARMLESS = [
    *("größe", "模型", "\u0645\u062f\u0644\u200c\u0647\u0627", "e\u0301", "🧑\u200d🔬"),
    *("</script>", "=cmd()", "../..", "x" * 300),
]


@pytest.mark.parametrize("name", OBEYED)
def test_what_a_terminal_obeys_is_escaped(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert shown.encode().decode("unicode_escape") == name


@pytest.mark.parametrize("name", [*HARMLESS, *MARKUP])
def test_everything_else_stays(name: str) -> None:
    assert printable(name) == name
    assert is_line(name)


def test_a_name_is_a_line() -> None:
    turned = [name for name in OBEYED if is_line(name)]
    assert turned == ["\u202egnp.exe", "\u2067x\u2069"]  # text, whatever its direction


def shows(text: str, names: list[str]) -> None:
    """All names are there, and nothing that a terminal obeys."""
    assert all(printable(name) in text for name in names)
    assert all(line.isprintable() for line in text.split("\n"))


def test_tables_show_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    names = [*OBEYED[:-1], *MARKUP]  # no table holds half a character
    n = len(names)
    frame = pd.DataFrame(np.zeros((n, n)), index=names, columns=names).assign(floor=0.1)
    shows(matrix_text(frame, names[0], "value"), names)
    columns = {"model": names, "layer": names, "value": 0.5}
    found = pd.DataFrame(columns).assign(floor=None, tdx=None, excess=None, se=None)
    found.attrs = {"floor": None, "without_head": 0, "without_value": 0}
    shows(nearest_text(found, names[0]), names)
    for name in names:
        print_rows([{name: name, "other": name}])
        shows(capsys.readouterr().out, [name])


def test_what_is_printed_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    write_text(pd.DataFrame({name: [1] for name in OBEYED if is_line(name)}).to_csv(), None)
    shows(capsys.readouterr().out, [name for name in OBEYED if is_line(name)])
    failure = {"model": OBEYED[0], "task": "t", "stage": "heads", "error": MARKUP[1]}
    stream = io.StringIO()
    Lines(stream).say(failure_lines([failure])[0])
    shows(stream.getvalue(), [OBEYED[0], MARKUP[1]])
    terminal = io.StringIO()
    with Bar(Console(file=terminal, width=200)) as bar:
        for name in [*OBEYED, *MARKUP]:
            bar.say(name)
    shown = terminal.getvalue()
    assert all(printable(name) in shown for name in [*OBEYED, *MARKUP])

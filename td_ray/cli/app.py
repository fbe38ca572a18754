"""The application that commands are registered with, and the options that several share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from td_ray.printable import printable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # errors of usage in plain lines, not in boxes
    pretty_exceptions_enable=False,
    help="How different are these networks, really? All-pairs Transferred Discrepancy on Ray.",
)


class BackendName(StrEnum):
    """Where work is done."""

    ray = "ray"
    inline = "inline"


ExperimentPath = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="An experiment file, or an output folder.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a value.")
]
Json = Annotated[bool, typer.Option("--json", help="Speak to programs.")]
BackendOption = Annotated[
    BackendName, typer.Option("--backend", help="'inline' runs in this process, without Ray.")
]
Address = Annotated[
    str | None, typer.Option(help="A Ray cluster; by default RAY_ADDRESS, or one for this run.")
]


def say(text: object, err: bool = False) -> None:
    """Print one line, whatever names are in it."""
    typer.echo(printable(text), err=err)

"""Small pieces of HTML; all text is escaped here, and only here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def safe(text: object) -> Html:
    """Escape a text, unless it is HTML already."""
    return text if isinstance(text, Html) else Html(escape(str(text)))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """An element; a trailing underscore in an attribute's name is dropped (``class_``)."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{join(content)}</{name}>")


def join(parts: Iterable[object], between: str = "") -> Html:
    """One piece of HTML after another."""
    return Html(between.join(safe(part) for part in parts))


def table(
    caption: object, columns: Sequence[object], rows: Iterable[Sequence[object]], texts: int = 1
) -> Html:
    """A table that scrolls sideways by itself.

    Args:
        texts: the number of leading columns that hold text; numbers are set to the right. The
            first column heads its row.
    """

    def kind(place: int) -> str | None:
        return None if place < texts else "number"

    heads = [tag("th", name, scope="col", class_=kind(i)) for i, name in enumerate(columns)]
    lines = []
    for first, *others in rows:
        cells = [tag("td", cell, class_=kind(i)) for i, cell in enumerate(others, start=1)]
        lines.append(tag("tr", tag("th", first, scope="row"), *cells))
    return tag(
        "div",
        tag(
            "table",
            tag("caption", tag("span", caption)),
            tag("thead", tag("tr", *heads)),
            tag("tbody", join(lines, "\n")),
        ),
        class_="scroll",
        tabindex=0,
    )

"""How a number of a task is written: percent of predictions, or a distance."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

NOTHING = "\N{EN DASH}"
"""Stands where there is no number."""

THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"


@dataclass(frozen=True)
class Unit:
    """How values of one kind are written, in HTML and in the drawings.

    Attributes:
        title: of an axis or colour bar.
        factor: from the stored value to the one shown.
        digits: after the decimal point; None for three significant digits.
        suffix: after the number.
    """

    title: str
    factor: float = 1.0
    digits: int | None = 3
    suffix: str = ""

    def text(self, value: float | None) -> str:
        """The value with its unit, or a dash."""
        if value is None or math.isnan(value):
            return NOTHING
        shown = value * self.factor
        text = f"{shown:.3g}" if self.digits is None else f"{shown:.{self.digits}f}"
        return text.replace("-", "\N{MINUS SIGN}") + self.suffix

    def to_json(self) -> dict[str, Any]:
        """What the drawings need."""
        return asdict(self)


PERCENT = f"{THIN_SPACE}%"
DISAGREEMENT = Unit("% of held-out predictions that differ", 100, 2, PERCENT)
DISTANCES = {
    "cosine": Unit("2 \N{MINUS SIGN} 2 cos of the predictions, 0 to 4"),
    "mean": Unit("squared gap over mean squared norm, 0 to 4"),
    "none": Unit("mean squared gap, in squared units of the target", digits=None),
}
ACCURACY = Unit("accuracy", 100, 1, PERCENT)
R2 = Unit("R\N{SUPERSCRIPT TWO}")


def unit_of(kind: str, distance: str | None) -> Unit:
    """The unit of td for a kind of task and, for regression, a distance."""
    return DISAGREEMENT if kind == "classification" else DISTANCES[distance or "cosine"]


def score_unit(kind: str) -> Unit:
    """The unit of a head's score."""
    return ACCURACY if kind == "classification" else R2

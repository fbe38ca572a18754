"""What work consists of, and what a machine takes for it.

The time of a piece of work is taken to be a sum over what it consists of, its floating-point
operations, the bytes that it moves, and the calls that it makes, each at a price of the machine's
own,

    seconds = flops * f + convolved * v + bytes * b + calls * c

as in the roofline model (Williams, Waterman and Patterson 2009), with a sum in place of its
maximum, a price for calls, which small work consists of, and one for convolutions, which are slower
than products on some machines. The prices of one kind of work are fitted to measured times by least
squares of the logarithms' errors: twice as long is as wrong as half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

UNITS = np.array([1e-9, 1e-9, 1.0, 1e-9])
"""Of counts, in the order of the fields: of what they have their price."""

LEAST_SHARE = 1e-3
"""Of the time of any work, that a price stands for at first; a logarithm needs one."""


@dataclass(frozen=True)
class Counts:
    """What a piece of work consists of.

    Attributes:
        flops: floating-point operations; a multiplication and an addition are two.
        bytes: that are read and written between operations.
        calls: of operations, each of which takes some time whatever its size.
        convolved: floating-point operations of convolutions, which are not among ``flops``.
    """

    flops: float = 0.0
    bytes: float = 0.0
    calls: float = 0.0
    convolved: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> Counts:
        return Counts(*(times * each for each in astuple(self)))


class Prices(BaseModel):
    """What one kind of work takes of a machine.

    Attributes:
        gigaflop: seconds for 1e9 floating-point operations.
        gigabyte: seconds for 1e9 bytes.
        call: seconds.
        convolved: seconds for 1e9 floating-point operations of convolutions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gigaflop: float = Field(ge=0)
    gigabyte: float = Field(ge=0)
    call: float = Field(ge=0)
    convolved: float = Field(ge=0)

    def seconds(self, work: Counts) -> float:
        """What some work takes."""
        each = (self.gigaflop, self.gigabyte, self.call, self.convolved)
        return float(np.dot(UNITS * each, astuple(work)))


def fit_prices(works: Sequence[Counts], seconds: Sequence[float]) -> Prices:
    """The prices under which some works take what was measured, as nearly as may be.

    Args:
        seconds: of each work, greater than zero.
    """
    from scipy.optimize import least_squares, nnls  # most of a second, which plans need not wait

    rows = np.array([astuple(work) for work in works]) * UNITS
    relative = rows / np.asarray(seconds)[:, None]
    size = relative.max(0)
    used = size > 0
    relative = relative[:, used] / size[used]
    first = np.maximum(nnls(relative, np.ones(len(rows)))[0], LEAST_SHARE)
    fitted = least_squares(lambda logs: np.log(relative @ np.exp(logs)), np.log(first)).x
    found = np.zeros(len(used))
    found[used] = np.exp(fitted) / size[used]
    gigaflop, gigabyte, call, convolved = found.tolist()
    return Prices(gigaflop=gigaflop, gigabyte=gigabyte, call=call, convolved=convolved)

"""Stand-ins: heads on one representation that reproduce what heads on others predict.

    h''  = argmin over heads of  loss(h''(F'(x)), h(F(x)))       on the training split

h(F(x)) are hard labels for classification and values for regression. How far h''(F') is from h(F)
on held-out examples says how well F' can stand in for F.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from td_ray.heads import FittedHeads
from td_ray.heads.rows import Features
from td_ray.heads.targets import ClassTarget, Target

Fit = Callable[[Sequence[Target]], Iterable[FittedHeads]]
"""Fits a head to each target; gives those of the next targets, in their order."""


def predict_stand_ins(
    fit: Fit, targets: Sequence[Target], evaluated: Sequence[Features]
) -> list[Tensor]:
    """What heads that are fitted to each of T targets predict.

    A head that predicts one class on the whole training split is reproduced by one that always
    does: the optimum of every kind of head, and nothing to fit.

    Args:
        fit: fits heads on the features of the stand-in.
        targets: predictions of other heads for the training rows.
        evaluated: scaled features (m, d) of some data sets.

    Returns:
        (T, m) codes or float64 values for each of them, on the CPU.
    """
    constant = [_only_class(target) for target in targets]
    left = [number for number, code in enumerate(constant) if code is None]
    values = torch.float64 if not isinstance(targets[0], ClassTarget) else torch.int64
    found = [torch.empty(len(targets), len(rows), dtype=values) for rows in evaluated]
    for number, code in enumerate(constant):
        if code is not None:
            for predicted in found:
                predicted[number] = code
    start = 0
    for heads in fit([targets[number] for number in left]) if left else ():
        places = left[start : start + heads.parameters.shape[0]]
        start += len(places)
        for predicted, rows in zip(found, evaluated, strict=True):
            predicted[places] = heads.predict(rows).cpu()
    return found


def _only_class(target: Target) -> int | None:
    """The code of the class that all rows have, if it is one."""
    if not isinstance(target, ClassTarget):
        return None
    first = int(target.codes[0])
    return first if bool((target.codes == first).all()) else None

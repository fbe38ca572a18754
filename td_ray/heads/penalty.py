"""Choice of the penalty from a grid, once per representation and task.

The grid is fitted, with equal weights, on the training rows outside the validation part, and scored
on the validation part by the head's own loss (log loss or squared error; not accuracy, whose ties
flip). The smallest loss wins, and ties go to the larger penalty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from td_ray.errors import InputError, WorkError
from td_ray.heads.kinds import ClassTarget, HeadKind, RawHeads, Target

# Losses closer than this, relative to the smallest, are one: the solvers do not resolve them.
TIE = 1e-9


@dataclass(frozen=True)
class Penalty:
    """A penalty and where it comes from.

    Attributes:
        value: l2.
        source: "fixed" or "grid".
        at_edge: it is the smallest or largest of a grid of two or more, so the best may lie
            outside.
    """

    value: float
    source: str
    at_edge: bool


def choose_penalty(
    name: str,
    kind: HeadKind,
    features: Tensor,
    target: Target,
    grid: Sequence[float],
    validation: Tensor | None,
    memory_bytes: int,
) -> Penalty:
    """Choose l2 from a grid by the loss on the validation rows.

    Args:
        name: of the head kind, for messages.
        kind: the head kind.
        features: (n, d) scaled training features.
        target: n rows.
        grid: distinct penalties, in any order; a grid of one needs no validation rows.
        validation: (n,) bool, the validation part of the training split.
        memory_bytes: as for `fit_heads`.

    Validation rows of a class that the fitting part lacks are left out: their log loss is infinite
    for every penalty.

    Raises:
        InputError: an empty or repeated grid, or no usable validation rows.
        WorkError: a head of the grid did not converge.
    """
    if not grid or len(set(grid)) < len(grid):
        raise InputError(f"the penalty grid must hold distinct values, not {list(grid)}")
    if len(grid) == 1:
        return Penalty(float(grid[0]), "grid", False)
    if validation is None:
        raise InputError("a grid of penalties needs validation rows: give them, or one fixed l2")
    if validation.dtype != torch.bool or validation.shape != (len(target),):
        raise InputError(
            f"validation must be a bool per training row, ({len(target)},), "
            f"not {tuple(validation.shape)} {validation.dtype}"
        )
    if bool(validation.all()) or not bool(validation.any()):
        raise InputError("the validation part must hold some training rows, and not all of them")
    weights = torch.ones(1, int((~validation).sum()), dtype=torch.float64, device=features.device)
    heads = kind.fit(features[~validation], target.rows(~validation), weights, grid, memory_bytes)
    require_convergence(name, heads, grid)
    chosen = _scorable(target, validation)
    losses = kind.validation_loss(heads.scores(features[chosen]), target.rows(chosen)).mean(1)
    value = _pick(grid, losses.tolist())
    return Penalty(value, "grid", value in (min(grid), max(grid)))


def require_convergence(name: str, heads: RawHeads, l2: Sequence[float]) -> None:
    """Refuse heads that are not the optimum.

    Raises:
        WorkError: naming how many, the worst gradient norm, and the penalties.
    """
    failed = ~heads.converged
    if bool(failed.any()):
        penalties = ", ".join(f"{value:g}" for value in l2)
        worst = float(heads.gradient_norm[failed].max())
        raise WorkError(
            f"{int(failed.sum())} of {len(failed)} {name} heads did not converge (l2 {penalties}; "
            f"worst gradient norm {worst:.3g} after {int(heads.iterations.max())} iterations): "
            "use a larger l2, or scaled features"
        )


def _scorable(target: Target, validation: Tensor) -> Tensor:
    """(n,) bool: the validation rows whose class the fitting part knows."""
    if not isinstance(target, ClassTarget):
        return validation
    known = torch.zeros(target.n_classes, dtype=torch.bool, device=target.codes.device)
    known[target.codes[~validation]] = True
    chosen = validation & known[target.codes]
    if not bool(chosen.any()):
        raise InputError("no validation row has a class that occurs among the other training rows")
    return chosen


def _pick(grid: Sequence[float], losses: Sequence[float]) -> float:
    """The penalty of smallest loss; the largest one of those that tie."""
    best = min(losses)
    return float(
        max(l2 for l2, loss in zip(grid, losses, strict=True) if loss <= best + TIE * abs(best))
    )

"""Choice of the penalty from a grid, once per representation and task.

The grid is fitted on the training rows outside the validation part, and scored on the validation
part by the head's own loss (see `validation`). The smallest loss wins, and ties go to the larger
penalty.

All penalties of a grid are fitted in one stack. A path from large to small, each starting where the
last ended, saves a tenth of the iterations and loses the common matrix products: it took twice as
long (seven penalties from 1e-5 to 10, 8,000 rows, 256 features, 10 classes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from td_ray.errors import InputError, WorkError
from td_ray.heads.exact import ExactHeads, ExactKind
from td_ray.heads.rows import Features
from td_ray.heads.targets import Target
from td_ray.heads.validation import competing_weights, mean_losses, scorable_rows

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
    kind: ExactKind,
    features: Features,
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
    weights = competing_weights(target, validation)[None].to(features.device)
    heads = kind.fit(features, target, weights, grid, memory_bytes)
    require_convergence(name, heads, grid)
    chosen = scorable_rows(target, validation)
    losses = mean_losses(heads.parameters, features, target, chosen, kind.validation_loss)
    value = _pick(grid, losses.tolist())
    return Penalty(value, "grid", value in (min(grid), max(grid)))


def require_convergence(name: str, heads: ExactHeads, l2: Sequence[float]) -> None:
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


def _pick(grid: Sequence[float], losses: Sequence[float]) -> float:
    """The penalty of smallest loss; the largest one of those that tie."""
    best = min(losses)
    return float(
        max(l2 for l2, loss in zip(grid, losses, strict=True) if loss <= best + TIE * abs(best))
    )

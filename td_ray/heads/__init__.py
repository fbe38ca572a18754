"""Heads: predictors on one frozen representation. Tensors in, tensors out.

`fit_heads` fits K exact heads at once, one per vector of sample weights (the full training split,
halves), all with one penalty, given or chosen from a grid; `fit_targets` fits one head to each of
many targets. What an experiment calls a head is in
`td_ray.head_kinds`, which calls this room.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from td_ray.errors import InputError
from td_ray.heads.exact import ExactHeads, ExactKind, LinearParameters, find_exact_kind
from td_ray.heads.penalty import Penalty, choose_penalty, require_convergence
from td_ray.heads.rows import Features, ScaledRows
from td_ray.heads.scaling import SCALINGS, Scaling, fit_scaling
from td_ray.heads.targets import ClassTarget, Target, ValueTarget
from td_ray.heads.validation import Parameters, block_rows
from td_ray.memory import default_memory

__all__ = [
    "SCALINGS",
    "ClassTarget",
    "Features",
    "FittedHeads",
    "LinearParameters",
    "Parameters",
    "Penalty",
    "ScaledRows",
    "Scaling",
    "Target",
    "Training",
    "ValueTarget",
    "fit_heads",
    "fit_scaling",
    "fit_targets",
]


@dataclass(frozen=True)
class Training:
    """What K heads of one representation are fitted on.

    Attributes:
        features: (n, d) scaled training features, in memory or streamed.
        target: n labels or values.
        weights: (K, n) float64 sample weights >= 0, one row per head.
        seeds: K numbers in [0, 2^63) that decide all chance in the head of that row.
        validation: (n,) bool, the rows on which what is searched is compared.
        memory_bytes: bound on the temporaries that grow with the number of heads.
    """

    features: Features
    target: Target
    weights: Tensor
    seeds: tuple[int, ...]
    validation: Tensor
    memory_bytes: int


@dataclass(frozen=True)
class FittedHeads:
    """K heads with c scores each (C classes, or one value) on d features.

    Attributes:
        parameters: linear, or whatever the kind of head has; of shape (K, c).
        width: d.
        loss: (K,) training loss, with the penalty of exact heads.
        gradient_norm: (K,) max |gradient| of that loss.
        iterations: (K,) int64 iterations or steps; zero for direct solvers.
        present: (K, C) bool classes with training weight; None for values.
        penalty: of exact heads, l2 and where it comes from, the same for all.
        hyperparameters: of stochastic heads, JSON values by name, the same for all.
    """

    parameters: Parameters
    width: int
    loss: Tensor
    gradient_norm: Tensor
    iterations: Tensor
    present: Tensor | None
    penalty: Penalty | None = None
    hyperparameters: Mapping[str, Any] | None = None

    def scores(self, features: Tensor) -> Tensor:
        """(K, n, c) scores of scaled features (n, d): log odds up to a constant, or values.

        Raises:
            InputError: the features have another width than the training features.
        """
        self._check(features)
        return self.parameters.scores(features)

    def predict(self, features: Features) -> Tensor:
        """(K, n) predictions for scaled features (n, d): int64 class codes, or float64 values.

        Features are read in blocks of rows.

        Raises:
            InputError: as for `scores`.
        """
        if self.present is None:
            return torch.cat([block.squeeze(2) for block in self._blocks(features)], 1)
        return torch.cat([block.argmax(2) for block in self._blocks(features)], 1)

    def probabilities(self, features: Features) -> Tensor:
        """(K, n, C) float32 probabilities of the classes for scaled features (n, d).

        They are the softmax of the scores, taken in float64; a class without training weight has
        probability 0. They mean something for heads whose scores are log odds, not for ridge.

        Raises:
            InputError: as for `scores`.
        """
        blocks = self._blocks(features)
        return torch.cat([block.softmax(2).to(torch.float32) for block in blocks], 1)

    def _blocks(self, features: Features) -> Iterator[Tensor]:
        """Scores (K, m, c) of m rows at a time."""
        self._check(features)
        rows = block_rows(self.parameters, self.width)
        for start in range(0, len(features), rows):
            yield self.parameters.scores(features[start : start + rows])

    def _check(self, features: Features) -> None:
        if len(features.shape) != 2 or features.shape[1] != self.width:
            raise InputError(
                f"the heads were fitted on {self.width} features per row; "
                f"they cannot score {tuple(features.shape)}"
            )


def fit_heads(
    kind: str,
    features: Features,
    target: Target,
    weights: Tensor,
    l2: float | Sequence[float],
    validation: Tensor | None = None,
    *,
    memory_bytes: int | None = None,
) -> FittedHeads:
    """Fit K exact heads on one representation, all with the same penalty.

    Args:
        kind: "logistic" (class labels) or "ridge" (class labels or values).
        features: (n, d) scaled training features, in memory or streamed.
        target: n labels or values.
        weights: (K, n) sample weights >= 0, one row per head.
        l2: the penalty, or a grid from which one is chosen on the validation rows.
        validation: (n,) bool; used for a grid only. The heads are fitted on all rows with weight.
        memory_bytes: bound on the temporaries beside features and heads; by default
            `td_ray.memory.default_memory()`.

    Returns:
        The heads, on the features' device.

    Raises:
        InputError: bad arguments, unknown kind, or a target that the kind does not take.
        WorkError: a head did not converge.
    """
    head = _checked(kind, features, target, l2)
    memory = default_memory() if memory_bytes is None else memory_bytes
    if isinstance(l2, Sequence):
        grid = [float(value) for value in l2]
        penalty = choose_penalty(kind, head, features, target, grid, validation, memory)
    else:
        penalty = Penalty(float(l2), "fixed", False)
    fitted = head.fit(features, target, weights, [penalty.value], memory)
    return _converged(kind, fitted, features, penalty)


def fit_targets(
    kind: str,
    features: Features,
    targets: Sequence[Target],
    l2: float,
    *,
    memory_bytes: int | None = None,
) -> Iterator[FittedHeads]:
    """Fit one exact head to each of many targets, on the same rows, all with the same penalty.

    They are fitted side by side, as many as memory allows: for ridge they are columns of one
    factorisation, for logistic regression a stack that shares the features' axes.

    Args:
        kind: "logistic" or "ridge".
        features: (n, d) scaled training features, in memory or streamed.
        targets: each of n labels or values; all of one type. Labels of logistic regression have
            two classes or more.
        l2: the penalty.
        memory_bytes: as for `fit_heads`; half of it bounds the targets that are fitted at once.

    Yields:
        Heads of the next targets, in their order.

    Raises:
        InputError: bad arguments, unknown kind, or a target that the kind does not take.
        WorkError: a head did not converge.
    """
    memory = default_memory() if memory_bytes is None else memory_bytes
    for target in targets:
        head = _checked(kind, features, target, l2)
    outputs = max(x.n_classes if isinstance(x, ClassTarget) else 1 for x in targets)
    each = head.bytes_of_target(len(features), features.shape[1], outputs)
    size = max(1, memory // 2 // each)
    for start in range(0, len(targets), size):
        some = targets[start : start + size]
        fitted = head.fit_targets(features, some, float(l2), memory // 2)
        yield _converged(kind, fitted, features, Penalty(float(l2), "fixed", False))


def _checked(
    kind: str, features: Features, target: Target, l2: float | Sequence[float]
) -> ExactKind:
    """The kind of head, if features, target and penalties fit together."""
    head = find_exact_kind(kind, target)
    if len(target) != len(features):
        raise InputError(f"the target has {len(target)} rows but the features have {len(features)}")
    grid = l2 if isinstance(l2, Sequence) and not isinstance(l2, str) else [l2]
    if not all(isinstance(x, Real) for x in grid):
        raise InputError(f'l2 of head "{kind}" is a number, or a list of numbers, not {l2!r}')
    if not all(math.isfinite(x) and (x > 0 or (head.zero_penalty and x == 0)) for x in grid):
        least = ">= 0" if head.zero_penalty else "> 0"
        raise InputError(f'l2 of head "{kind}" must be finite and {least}, not {l2}')
    return head


def _converged(kind: str, fitted: ExactHeads, features: Features, penalty: Penalty) -> FittedHeads:
    require_convergence(kind, fitted, [penalty.value])
    return FittedHeads(
        parameters=fitted.parameters,
        width=features.shape[1],
        loss=fitted.loss,
        gradient_norm=fitted.gradient_norm,
        iterations=fitted.iterations,
        present=fitted.present,
        penalty=penalty,
    )

"""The kinds of head by name, and the targets they take.

A head kind is an object with the members of `HeadKind`, registered by the decorator
`head_kind(name)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from td_ray.errors import InputError
from td_ray.heads.logistic import fit_logistic
from td_ray.heads.ridge import fit_ridge
from td_ray.registry import HEAD_KINDS


@dataclass(frozen=True)
class ClassTarget:
    """Class labels.

    Attributes:
        codes: (n,) int64 in [0, n_classes).
        n_classes: the number of classes of the task, present in these rows or not.
    """

    codes: Tensor
    n_classes: int

    def rows(self, chosen: Tensor) -> ClassTarget:
        """The same for a subset of the rows."""
        return ClassTarget(self.codes[chosen], self.n_classes)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.codes)


@dataclass(frozen=True)
class ValueTarget:
    """Real values: `values` is (n,) float64."""

    values: Tensor

    def rows(self, chosen: Tensor) -> ValueTarget:
        """The same for a subset of the rows."""
        return ValueTarget(self.values[chosen])

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.values)


Target = ClassTarget | ValueTarget


@dataclass(frozen=True)
class RawHeads:
    """H heads with c scores each (C classes, or one value) on d features, from a solver.

    Attributes:
        weight: (H, c, d) float64.
        intercept: (H, c) float64; -inf for an absent class.
        present: (H, C) bool, or None for values.
        loss, gradient_norm, iterations, converged: (H,) each.
    """

    weight: Tensor
    intercept: Tensor
    present: Tensor | None
    loss: Tensor
    gradient_norm: Tensor
    iterations: Tensor
    converged: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """(H, m, c) scores of (m, d) features."""
        features = features.to(torch.float64)
        return (self.weight @ features.T + self.intercept[:, :, None]).mT


class HeadKind(Protocol):
    """What a kind of head must offer."""

    takes: tuple[type[Target], ...]
    """The target types that it can be fitted to."""

    zero_penalty: bool
    """Whether its optimum exists without a penalty."""

    def fit(
        self,
        features: Tensor,
        target: Target,
        weights: Tensor,
        l2: Sequence[float],
        memory_bytes: int,
    ) -> RawHeads:
        """Fit every row of the weights (K, n) with every penalty: K P heads, penalty innermost.

        `memory_bytes` bounds the temporaries that grow with the number of heads.
        """

    def validation_loss(self, scores: Tensor, target: Target) -> Tensor:
        """(H, m) loss of every head on every row, for scores (H, m, c), to choose penalties by."""


head_kind = HEAD_KINDS.register
"""Decorator: register a class without arguments whose instances are `HeadKind`s."""


def find_head_kind(name: str, target: Target) -> HeadKind:
    """The kind of that name, if it takes that target.

    Raises:
        InputError: no such kind, or it does not take the target; the message says which does.
    """
    kind: HeadKind = HEAD_KINDS.get(name)()
    if not isinstance(target, kind.takes):
        what, words = _words(type(target)), " and ".join(map(_words, kind.takes))
        others = [x for x in HEAD_KINDS.names() if isinstance(target, HEAD_KINDS.get(x).takes)]
        hint = " or ".join(f'"{other}"' for other in others)
        raise InputError(f'head "{name}" takes {words}, not {what}: use head {hint}')
    return kind


def _words(target: type[Target]) -> str:
    return "class labels" if target is ClassTarget else "real-valued targets"


@head_kind("logistic")
class Logistic:
    """Multinomial logistic regression on class labels; penalties are chosen by log loss."""

    takes = (ClassTarget,)
    zero_penalty = False

    def fit(
        self,
        features: Tensor,
        target: ClassTarget,
        weights: Tensor,
        l2: Sequence[float],
        memory_bytes: int,
    ) -> RawHeads:
        """Every weight vector with every penalty."""
        penalties = torch.tensor(l2, dtype=torch.float64, device=features.device)
        heads = fit_logistic(
            features,
            target.codes,
            weights.repeat_interleave(len(l2), 0),
            penalties.repeat(len(weights)),
            target.n_classes,
            memory_bytes=memory_bytes,
        )
        return RawHeads(
            heads.weight,
            heads.intercept,
            heads.present,
            heads.loss,
            heads.gradient_norm,
            heads.iterations,
            heads.converged,
        )

    def validation_loss(self, scores: Tensor, target: ClassTarget) -> Tensor:
        """(H, m) log loss, natural logarithm."""
        labelled = scores[:, torch.arange(len(target), device=scores.device), target.codes]
        return scores.logsumexp(2) - labelled


@head_kind("ridge")
class Ridge:
    """Ridge regression on values, or on the one-hot columns of class labels (argmax predicts)."""

    takes = (ClassTarget, ValueTarget)
    zero_penalty = True

    def fit(
        self,
        features: Tensor,
        target: Target,
        weights: Tensor,
        l2: Sequence[float],
        memory_bytes: int,
    ) -> RawHeads:
        """Every weight vector with every penalty, one weight vector at a time."""
        penalties = torch.tensor(l2, dtype=torch.float64, device=features.device)
        columns = self._columns(target).to(features.device)
        heads = fit_ridge(features, columns, weights, penalties)
        intercept, present = heads.intercept.flatten(0, 1), None
        if isinstance(target, ClassTarget):
            present = (weights.to(torch.float64) @ columns > 0).repeat_interleave(len(l2), 0)
            intercept = intercept.masked_fill(~present, -torch.inf)
        loss = heads.loss.flatten(0, 1).sum(1)
        return RawHeads(
            heads.weight.flatten(0, 1),
            intercept,
            present,
            loss,
            heads.gradient_norm.flatten(0, 1).amax(1),
            torch.zeros_like(loss, dtype=torch.int64),
            loss.isfinite(),
        )

    def validation_loss(self, scores: Tensor, target: Target) -> Tensor:
        """(H, m) squared error, summed over the one-hot columns of classes that the head knows."""
        error = scores - self._columns(target).to(scores.device)
        return torch.where(scores.isfinite(), error, 0.0).square().sum(2)

    @staticmethod
    def _columns(target: Target) -> Tensor:
        """(n, c) float64: the values, or one-hot columns."""
        if isinstance(target, ClassTarget):
            return one_hot(target.codes, target.n_classes).to(torch.float64)
        return target.values.to(torch.float64)[:, None]

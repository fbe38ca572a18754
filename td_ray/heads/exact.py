"""The kinds of head that have an exact optimum, by name: `logistic` and `ridge`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from td_ray.errors import InputError
from td_ray.heads.logistic import fit_logistic
from td_ray.heads.ridge import fit_ridge
from td_ray.heads.rows import Features
from td_ray.heads.targets import ClassTarget, Target, ValueTarget
from td_ray.heads.validation import log_loss
from td_ray.registry import closest


@dataclass(frozen=True)
class LinearParameters:
    """H linear heads with c scores each (C classes, or one value) on d features; float64.

    Attributes:
        weight: (H, c, d).
        intercept: (H, c); -inf for a class without training weight, which is never predicted.
    """

    weight: Tensor
    intercept: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(H, c)."""
        return self.intercept.shape[0], self.intercept.shape[1]

    def scores(self, features: Tensor) -> Tensor:
        """(H, m, c) scores of (m, d) features."""
        features = features.to(torch.float64)
        return (self.weight @ features.T + self.intercept[:, :, None]).mT


@dataclass(frozen=True)
class ExactHeads:
    """H heads from a solver.

    Attributes:
        parameters: of H heads.
        present: (H, C) bool, or None for values.
        loss, gradient_norm, iterations, converged: (H,) each.
    """

    parameters: LinearParameters
    present: Tensor | None
    loss: Tensor
    gradient_norm: Tensor
    iterations: Tensor
    converged: Tensor


class ExactKind(Protocol):
    """What a kind of exact head offers."""

    takes: ClassVar[tuple[type[Target], ...]]
    """The target types that it can be fitted to."""

    zero_penalty: ClassVar[bool]
    """Whether its optimum exists without a penalty."""

    def fit(
        self,
        features: Features,
        target: Target,
        weights: Tensor,
        l2: Sequence[float],
        memory_bytes: int,
    ) -> ExactHeads:
        """Fit every row of the weights (K, n) with every penalty: K P heads, penalty innermost.

        `memory_bytes` bounds the temporaries that grow with the number of heads.
        """

    def fit_targets(
        self, features: Features, targets: Sequence[Target], l2: float, memory_bytes: int
    ) -> ExactHeads:
        """Fit each of T targets of one type on all rows alike, with one penalty: T heads."""

    def bytes_of_target(self, rows: int, width: int, outputs: int) -> int:
        """What one more target takes in `fit_targets`, its head included."""

    def validation_loss(self, scores: Tensor, target: Target) -> Tensor:
        """(H, m) loss of every head on every row, for scores (H, m, c), to choose penalties by."""


def find_exact_kind(name: str, target: Target) -> ExactKind:
    """The kind of that name, if it takes that target.

    Raises:
        InputError: no such kind, or it does not take the target; the message says which does.
    """
    if name not in EXACT_KINDS:
        raise InputError(f"unknown head '{name}': {closest(str(name), EXACT_KINDS)}")
    kind = EXACT_KINDS[name]
    if not isinstance(target, kind.takes):
        what, words = _words(type(target)), " and ".join(map(_words, kind.takes))
        others = [x for x, other in EXACT_KINDS.items() if isinstance(target, other.takes)]
        hint = " or ".join(f'"{other}"' for other in others)
        raise InputError(f'head "{name}" takes {words}, not {what}: use head {hint}')
    return kind


def _words(target: type[Target]) -> str:
    return "class labels" if target is ClassTarget else "real-valued targets"


class Logistic:
    """Multinomial logistic regression on class labels; penalties are chosen by log loss."""

    takes: ClassVar[tuple[type[Target], ...]] = (ClassTarget,)
    zero_penalty: ClassVar[bool] = False

    def fit(
        self,
        features: Features,
        target: Target,
        weights: Tensor,
        l2: Sequence[float],
        memory_bytes: int,
    ) -> ExactHeads:
        """Every weight vector with every penalty."""
        assert isinstance(target, ClassTarget)
        penalties = torch.tensor(l2, dtype=torch.float64, device=features.device)
        weights, each = weights.repeat_interleave(len(l2), 0), penalties.repeat(len(weights))
        return self._fit(features, target.codes, weights, each, target.n_classes, memory_bytes)

    def fit_targets(
        self, features: Features, targets: Sequence[Target], l2: float, memory_bytes: int
    ) -> ExactHeads:
        """All in one stack: they share what only depends on the features."""
        codes = torch.stack([target.codes for target in targets if isinstance(target, ClassTarget)])
        weights = torch.ones(codes.shape, dtype=torch.float64)
        penalties = torch.full((len(codes),), l2, dtype=torch.float64, device=features.device)
        n_classes = max(target.n_classes for target in targets if isinstance(target, ClassTarget))
        return self._fit(features, codes, weights, penalties, n_classes, memory_bytes)

    def bytes_of_target(self, rows: int, width: int, outputs: int) -> int:
        """Codes, and weights with their copies; `fit_logistic` bounds the rest itself."""
        return 8 * (4 * rows + 2 * width * outputs)

    def _fit(
        self,
        features: Features,
        codes: Tensor,
        weights: Tensor,
        l2: Tensor,
        n_classes: int,
        memory_bytes: int,
    ) -> ExactHeads:
        heads = fit_logistic(features, codes, weights, l2, n_classes, memory_bytes=memory_bytes)
        return ExactHeads(
            LinearParameters(heads.weight, heads.intercept),
            heads.present,
            heads.loss,
            heads.gradient_norm,
            heads.iterations,
            heads.converged,
        )

    def validation_loss(self, scores: Tensor, target: Target) -> Tensor:
        """(H, m) log loss, natural logarithm."""
        return log_loss(scores, target)


class Ridge:
    """Ridge regression on values, or on the one-hot columns of class labels (argmax predicts)."""

    takes: ClassVar[tuple[type[Target], ...]] = (ClassTarget, ValueTarget)
    zero_penalty: ClassVar[bool] = True

    def fit(
        self,
        features: Features,
        target: Target,
        weights: Tensor,
        l2: Sequence[float],
        memory_bytes: int,
    ) -> ExactHeads:
        """Every weight vector with every penalty, one weight vector at a time."""
        penalties = torch.tensor(l2, dtype=torch.float64, device=features.device)
        columns = self._columns(target).to(features.device)
        heads = fit_ridge(features, columns, weights, penalties, memory_bytes=memory_bytes)
        intercept, present = heads.intercept.flatten(0, 1), None
        if isinstance(target, ClassTarget):
            present = (weights.to(torch.float64) @ columns > 0).repeat_interleave(len(l2), 0)
            intercept = intercept.masked_fill(~present, -torch.inf)
        loss = heads.loss.flatten(0, 1).sum(1)
        return ExactHeads(
            LinearParameters(heads.weight.flatten(0, 1), intercept),
            present,
            loss,
            heads.gradient_norm.flatten(0, 1).amax(1),
            torch.zeros_like(loss, dtype=torch.int64),
            loss.isfinite(),
        )

    def fit_targets(
        self, features: Features, targets: Sequence[Target], l2: float, memory_bytes: int
    ) -> ExactHeads:
        """Their columns side by side: one factorisation of the features serves all."""
        columns = torch.cat([self._columns(target) for target in targets], 1).to(features.device)
        weights = torch.ones(1, len(features), dtype=torch.float64, device=features.device)
        penalty = torch.tensor([l2], dtype=torch.float64, device=features.device)
        heads = fit_ridge(features, columns, weights, penalty, memory_bytes=memory_bytes)
        shape = (len(targets), -1)
        intercept, present = heads.intercept.view(shape), None
        if isinstance(targets[0], ClassTarget):
            present = (columns.sum(0) > 0).view(shape)
            intercept = intercept.masked_fill(~present, -torch.inf)
        loss = heads.loss.view(shape).sum(1)
        return ExactHeads(
            LinearParameters(heads.weight.view(*shape, features.shape[1]), intercept),
            present,
            loss,
            heads.gradient_norm.view(shape).amax(1),
            torch.zeros_like(loss, dtype=torch.int64),
            loss.isfinite(),
        )

    def bytes_of_target(self, rows: int, width: int, outputs: int) -> int:
        """Columns, centred ones where there are fewer rows than features, and weights."""
        return 8 * outputs * (3 * rows + 3 * width)

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


EXACT_KINDS: dict[str, ExactKind] = {"logistic": Logistic(), "ridge": Ridge()}

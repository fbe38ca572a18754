"""The Hessian that one head lends to those that resemble it."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from td_ray.heads import leading
from td_ray.heads.curvature import principal_axes
from td_ray.heads.logistic import LogisticHeads, fit_logistic
from td_ray.heads.softmax_loss import Stack

HALVES, L2 = 8, 1e-3


def digits(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    pixels, codes = load_digits(return_X_y=True)
    features = torch.from_numpy(pixels / 16).to(dtype)
    return features, torch.from_numpy(codes).to(torch.int64)


def halves(rows: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    kept = [torch.randperm(rows, generator=random) < rows // 2 for _ in range(HALVES - 1)]
    return torch.stack([torch.ones(rows, dtype=torch.bool), *kept]).to(torch.float64)


@pytest.mark.parametrize("missing", [False, True])
def test_factor_is_of_the_hessian_along_the_leading_axes(missing: bool) -> None:
    features, codes = digits(torch.float64)
    features, codes = features[:300], codes[:300]
    classes, count = 10, 5
    axes = principal_axes(features, torch.float64, 2**30)
    assert axes.axes is not None
    span = axes.axes[:, -(count - 1) :]
    weights = torch.rand(1, 300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    absent = torch.zeros(1, classes, dtype=torch.bool)
    if missing:
        absent[0, 3] = True
        weights[:, codes == 3] = 0
    weights /= weights.sum()
    number = torch.zeros(1, dtype=torch.int64)
    head = Stack(
        codes[None], weights, torch.tensor([L2], dtype=torch.float64), absent, number, number
    )
    point = torch.randn(
        classes, 65, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )

    def loss(move: Tensor) -> Tensor:
        weight = point[:, :-1] + move[:, :-1] @ span.T
        offset = point[:, -1] + move[:, -1] - move[:, :-1] @ span.T @ axes.mean
        logits = (features @ weight.T + offset).masked_fill(absent, -torch.inf)
        terms = torch.nn.functional.cross_entropy(logits, codes, reduction="none")
        losses = torch.where(weights[0] > 0, weights[0] * terms, 0.0)
        return losses.sum() + L2 / 2 * move[:, :-1].square().sum()

    start = torch.zeros(classes, count, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(loss, start).view(classes * count, classes * count)
    factor = leading._factor(features, axes.mean, span, head, point)
    assert factor is not None
    # The two may differ along the common shift of the present classes, where no softmax moves.
    present = (~absent[0]).to(torch.float64)
    inside = torch.diag(present) - torch.outer(present, present) / present.sum()
    project = torch.kron(inside, torch.eye(count, dtype=torch.float64))
    difference = project @ (factor @ factor.T - hessian) @ project
    assert float(difference.abs().max()) <= 1e-12 * float(hessian.abs().max())


def test_halves_take_fewer_evaluations_to_the_same_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    features, codes = digits(torch.float32)
    weights = halves(len(features))

    def fit() -> LogisticHeads:
        return fit_logistic(features, codes, weights, torch.full((HALVES,), L2), 10)

    lent = fit()
    monkeypatch.setattr(leading, "LEAST_AXES", 10**6)
    own = fit()
    assert bool(lent.converged.all())
    assert bool(own.converged.all())
    assert float(lent.iterations.double().mean()) <= 0.8 * float(own.iterations.double().mean())
    for head in range(HALVES):
        difference = features.double() @ (lent.weight[head] - own.weight[head]).T
        difference += lent.intercept[head] - own.intercept[head]
        assert float(difference.abs().max()) < 0.02


def test_a_block_costs_about_an_iteration_and_is_bounded() -> None:
    for heads, classes, width in ((32, 10, 1280), (1, 10, 256), (31, 8, 256), (500, 2, 64)):
        count = leading.leading_axes(heads, classes, width)
        assert 2 * (classes * count) ** 2 <= 4 * width * classes * heads
        assert classes * count <= leading.LARGEST_SIDE
        assert count <= width + 1
    assert leading.leading_axes(32, 1000, 256) < leading.LEAST_AXES

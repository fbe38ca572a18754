"""What a head must reach to be called converged, and what becomes of one that does not."""

from __future__ import annotations

import pytest
import torch

from td_ray.errors import WorkError
from td_ray.heads import ClassTarget, fit_heads
from td_ray.heads.logistic import fit_logistic


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    return features, torch.arange(60) % 3


@pytest.mark.parametrize("l2", [1e-5, 1e-3, 1.0])
def test_converged_means_the_stated_bound(l2: float, monkeypatch: pytest.MonkeyPatch) -> None:
    features, codes = problem()
    weights, penalty = torch.ones(1, 60), torch.tensor([l2])
    seen = set()
    for iterations in range(1, 40):
        monkeypatch.setattr("td_ray.heads.logistic.MAX_EVALUATIONS", iterations)
        head = fit_logistic(features, codes, weights, penalty, 3)
        within = bool(head.gradient_norm <= 1e-2 * min(l2, 1e-3))
        assert bool(head.converged) == within
        seen.add(within)
    assert seen == {False, True}


def test_a_head_that_did_not_converge_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("td_ray.heads.logistic.MAX_EVALUATIONS", 1)
    features, codes = problem()
    with pytest.raises(WorkError, match="1 of 1 logistic heads did not converge"):
        fit_heads("logistic", features, ClassTarget(codes, 3), torch.ones(1, 60), 1e-3)

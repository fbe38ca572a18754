"""What a kind of head from another package can rely on, and what is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
import pytest
from pydantic import Field
from small_zoo import content, experiment

from td_ray import registry
from td_ray.costs import Counts
from td_ray.errors import InputError
from td_ray.head_kinds import HeadKind
from td_ray.head_kinds.seeds import head_seed, search_seed
from td_ray.spec import Kind
from td_ray.sweep import run

if TYPE_CHECKING:
    from td_ray.heads import FittedHeads, Training


class NearestMean(HeadKind):
    """The class whose mean is nearest, by a squared distance less a margin for larger classes."""

    takes: ClassVar[tuple[Kind, ...]] = ("classification",)
    meant_for: ClassVar[tuple[Kind, ...]] = ("classification",)
    margin: float = Field(default=0.0, ge=0)

    def fit(self, training: Training) -> FittedHeads:
        import torch

        from td_ray.heads import ClassTarget, FittedHeads, LinearParameters

        assert isinstance(training.target, ClassTarget)
        member = torch.nn.functional.one_hot(training.target.codes).to(torch.float64)
        mass = training.weights[:, :, None] * member
        shares = mass / mass.sum(1, keepdim=True)
        means = shares.mT @ training.features.to(torch.float64)
        nothing = torch.zeros(len(means), dtype=torch.float64)
        return FittedHeads(
            parameters=LinearParameters(2 * means, self.margin - means.square().sum(2)),
            width=means.shape[2],
            loss=nothing,
            gradient_norm=nothing,
            iterations=nothing.to(torch.int64),
            present=mass.sum(1) > 0,
        )

    def counts(
        self, rows: int, width: int, outputs: int, fits: int, iterations: float | None = None
    ) -> Counts:
        return Counts(2.0 * rows * width * fits)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.HEAD_KINDS._found, "nearest-mean", NearestMean)


def test_a_head_of_another_package_runs_like_one_of_ours(zoo: Path) -> None:
    wanted = experiment(zoo, heads=["nearest-mean"], tasks=content()["tasks"][:1])
    results = run(wanted, backend="inline")
    table = pd.read_csv(zoo / "points.csv")
    train, codes = (table["split"] == "train").to_numpy(), pd.factorize(table["species"])[0]
    features = np.load(zoo / "features/net-1.npz")["features"].astype(float)
    features = (features - features[train].mean(0)) / features[train].std(0)
    means = np.stack([features[train & (codes == code)].mean(0) for code in range(3)])
    nearest = ((features[~train, None] - means) ** 2).sum(2).argmin(1)
    rows = results.predictions().query("model == 'net-1' and seed.isna()")
    stored = np.frombuffer(rows["predictions"].iloc[0], dtype=rows["encoding"].iloc[0])
    np.testing.assert_array_equal(stored, nearest)
    assert results.heads()["penalty"].isna().all()
    assert (results.pairs()["head"] == "nearest-mean").all()


def test_its_options_are_checked_like_ours(zoo: Path) -> None:
    with pytest.raises(InputError, match="unknown key: did you mean 'margin'"):
        experiment(zoo, heads=[{"kind": "nearest-mean", "margn": 1}])
    with pytest.raises(InputError, match=r"heads\.0\.margin: .*greater than or equal to 0"):
        experiment(zoo, heads=[{"kind": "nearest-mean", "margin": -1}, "ridge"])
    with pytest.raises(InputError, match="'nearest-mean' is nearest-mean and takes classification"):
        experiment(zoo, heads=[{"kind": "nearest-mean", "targets": "regression"}])


def test_its_options_survive_yaml(zoo: Path) -> None:
    wanted = experiment(zoo, heads=[{"kind": "nearest-mean", "margin": 0.5}, "ridge"])
    (zoo / "again.yaml").write_text(wanted.to_yaml())
    assert type(wanted).load(zoo / "again.yaml").heads == wanted.heads


def test_every_run_has_a_seed_of_its_own() -> None:
    runs = [(None, None), *((seed, half) for seed in range(500) for half in "ab")]
    seeds = [head_seed(*run) for run in runs] + [search_seed()]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)

"""Stochastic heads in a sweep: their options, their seeds, and what is written down with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_zoo import content, experiment, parts_of, planned

from td_ray.head_kinds.seeds import head_seed
from td_ray.head_kinds.stochastic import Linear, MultilayerPerceptron
from td_ray.heads import ClassTarget, Training, ValueTarget
from td_ray.heads.stochastic import Hyperparameters, fit_stochastic
from td_ray.sweep import run

TASKS = content()["tasks"]
LINEAR = {"kind": "linear", "epochs": 8, "batch_size": 16, "learning_rate": 0.05}


def linear(**options: Any) -> Linear:
    return Linear.model_validate({"kind": "linear", **options})


def training(heads: int, target: ClassTarget | ValueTarget | None = None) -> Training:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(90, 4, generator=generator)
    return Training(
        features,
        target or ClassTarget((features[:, 0] > 0).long() + (features[:, 1] > 0.5), 3),
        torch.ones(heads, 90, dtype=torch.float64),
        tuple(range(heads)),
        torch.arange(90) % 5 == 0,
        2**28,
    )


def test_candidates_are_all_combinations_in_order() -> None:
    head = MultilayerPerceptron.model_validate(
        {"kind": "mlp", "learning_rate": [1e-2, 1e-3], "weight_decay": [0.1], "hidden": [4, 8]}
    )
    found = [(each.learning_rate, each.weight_decay, each.hidden) for each in head.candidates()]
    assert found == [(1e-2, 0.1, 4), (1e-2, 0.1, 8), (1e-3, 0.1, 4), (1e-3, 0.1, 8)]
    assert linear(weight_decay=[0]).candidates() == (linear(weight_decay=0),)


def test_edges_are_the_ends_of_lists_but_not_a_decay_of_zero() -> None:
    head = linear(learning_rate=[1, 1e-3, 0.1], weight_decay=[0, 0.1])
    edges = {(x.learning_rate, x.weight_decay): head.at_edge(x) for x in head.candidates()}
    assert edges[0.1, 0] == []
    assert edges[0.1, 0.1] == ["weight_decay"]
    assert edges[1, 0] == edges[1e-3, 0] == ["learning_rate"]
    assert linear().at_edge(linear()) == []


def test_a_head_with_several_candidates_is_not_fitted() -> None:
    with pytest.raises(ValueError, match="choose first"):
        linear(learning_rate=[1, 2], weight_decay=0).fit(training(1))


def test_fit_hands_over_every_option() -> None:
    given = training(2)
    options = {"learning_rate": 0.03, "weight_decay": 0.2, "epochs": 3, "batch_size": 7}
    head = MultilayerPerceptron.model_validate(
        {"kind": "mlp", "optimizer": "sgd", "momentum": 0.5, "hidden": 5, **options}
    )
    fitted = head.fit(given)
    settings = Hyperparameters(optimizer="sgd", momentum=0.5, hidden=5, **options)  # type: ignore[arg-type]
    assert isinstance(given.target, ClassTarget)
    alone = fit_stochastic(
        given.features, given.target.codes, given.weights, torch.arange(2), [settings] * 2, 3
    )
    assert torch.equal(fitted.scores(given.features), alone.scores(given.features))
    assert fitted.hyperparameters == {"optimizer": "sgd", "momentum": 0.5, "hidden": 5, **options}
    assert torch.equal(fitted.iterations, torch.tensor([39, 39]))
    assert "momentum" not in linear().hyperparameters()


@pytest.mark.parametrize("regression", [False, True])
def test_a_race_watches_the_validation_loss_of_what_it_trains(regression: bool) -> None:
    given = training(1)
    values = ValueTarget((3 * given.features[:, 0] + 7).double())
    if regression:
        given = training(1, values)
    kept = Training(**{**vars(given), "weights": (~given.validation).double()[None]})
    pair = linear(learning_rate=[1e-2, 1e-1], epochs=4, batch_size=16).candidates()
    laps = list(pair[0].race(kept, pair))
    assert [[lap.epochs for lap in each] for each in laps] == [[n, n] for n in (1, 2, 3, 4)]
    for candidate, lap in zip(pair, laps[-1], strict=True):
        held = given.validation
        scores = candidate.fit(kept).scores(given.features[held])[0]
        if isinstance(given.target, ClassTarget):
            loss = torch.nn.functional.cross_entropy(scores, given.target.codes[held])
        else:
            loss = (scores[:, 0] - values.values[held]).square().mean()
        assert lap.loss == pytest.approx(float(loss), rel=1e-6)


def test_a_candidate_that_diverges_is_out_and_costs_the_others_nothing() -> None:
    target = ValueTarget(training(1).features[:, 0].double())
    given = training(1, target)
    kept = Training(**{**vars(given), "weights": (~given.validation).double()[None]})
    head = linear(optimizer="sgd", learning_rate=[1e-2, 1e5], weight_decay=0, epochs=5)
    good, bad = head.candidates()
    *_, (first, second) = good.race(kept, [good, bad])
    assert second.loss is None
    assert second.reason is not None
    assert "diverged in epoch" in second.reason
    assert "learning rate 100000" in second.reason
    *_, (alone,) = good.race(kept, [good])
    assert first.loss == pytest.approx(alone.loss, rel=1e-6)


def test_each_run_has_its_own_chance_and_models_share_it(zoo: Path) -> None:
    """The first unit's heads again, from the seeds that are documented."""
    wanted = experiment(zoo, heads=[LINEAR], tasks=TASKS[:1])
    results = run(wanted, backend="inline")
    heads = results.heads()
    assert heads[["penalty", "penalty_source", "penalty_at_edge"]].isna().all(axis=None)
    assert set(heads["hyperparameters"].map(json.loads).map(lambda x: x["learning_rate"])) == {0.05}
    full = heads[heads["seed"].isna()]
    assert (full["iterations"] == 8 * -(-72 // 16)).all()

    unit = planned(wanted).units[0]
    data = unit.task.data
    raw = np.load(zoo / "features/net-0.npz")["features"].astype(float)
    scaled = (raw - raw[data.training].mean(0)) / raw[data.training].std(0)
    given = Training(
        torch.from_numpy(scaled[data.training].astype(np.float32)),
        ClassTarget(torch.from_numpy(unit.task.train_target), 3),
        torch.ones(1, 72, dtype=torch.float64),
        (head_seed(None, None),),
        torch.from_numpy(data.validation),
        2**28,
    )
    again = linear(**{k: v for k, v in LINEAR.items() if k != "kind"}).fit(given)
    predicted = again.predict(torch.from_numpy(scaled[data.evaluation]).float())[0].numpy()
    row = results.predictions().query("model == 'net-0' and seed.isna()").iloc[0]
    np.testing.assert_array_equal(np.frombuffer(row["predictions"], row["encoding"]), predicted)


def test_every_kind_serves_both_kinds_of_task_and_learns(zoo: Path) -> None:
    mlp = {**LINEAR, "kind": "mlp", "hidden": 16, "epochs": 30}
    heads = run(experiment(zoo, heads=[{**LINEAR, "epochs": 30}, mlp]), backend="inline").heads()
    assert (heads.groupby(["task", "head"]).size() == 4 * 5).all()
    assert heads["score"].min() > 0.5


def test_a_run_that_is_repeated_gives_the_same_bytes(zoo: Path) -> None:
    wanted = experiment(zoo, heads=[LINEAR])
    run(wanted, backend="inline")
    before = [content for _, content in parts_of(zoo).values()]
    shutil.rmtree(zoo / "output")
    run(wanted, backend="inline")
    assert [content for _, content in parts_of(zoo).values()] == before


def test_chance_adds_to_the_noise_floor(zoo: Path) -> None:
    """Heads that stop early, in different places, disagree more than two optima do."""
    rough = {**LINEAR, "epochs": 1, "batch_size": 8, "learning_rate": 0.02}
    wanted = experiment(zoo, heads=["logistic", rough], tasks=TASKS[:1], seeds=5)
    floors = run(wanted, backend="inline").pairs().groupby("head")[["floor_a", "floor_b"]].mean()
    assert (floors.loc["linear"] > floors.loc["logistic"]).all()

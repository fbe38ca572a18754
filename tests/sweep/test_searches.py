"""Searches: one choice per unit, on the validation rows, made once and held."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from small_zoo import content, described, experiment, parts_of, planned, write_zoo

from td_ray.errors import InputError
from td_ray.head_kinds import Lap
from td_ray.head_kinds.seeds import search_seed
from td_ray.heads.stochastic import Hyperparameters, fit_stochastic
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.storage import open_folder
from td_ray.sweep import run
from td_ray.terminal import warning_lines
from td_ray.work.search import choose

TASKS = content()["tasks"]
RATES = [1e-1, 1e-2, 1e-5]
SEARCHED: dict[str, Any] = {
    "kind": "linear",
    "learning_rate": RATES,
    "epochs": 9,
    "batch_size": 16,
}


def wanted(zoo: Path, **changes: Any) -> Experiment:
    return experiment(zoo, **{"heads": [SEARCHED], **changes})


def choices(zoo: Path) -> dict[str, bytes]:
    return {
        path.name: content
        for path, (_, content) in parts_of(zoo).items()
        if path.parent.name == "choices"
    }


def test_the_choice_is_the_best_on_the_validation_rows(zoo: Path) -> None:
    """Against a search written out: scaling, seed, rows, and log loss."""
    results = run(wanted(zoo, tasks=TASKS[:1]), backend="inline")
    unit = planned(wanted(zoo, tasks=TASKS[:1])).units[1]
    data = unit.task.data
    raw = np.load(zoo / "features/net-1.npz")["features"][data.training].astype(float)
    features = torch.from_numpy(((raw - raw.mean(0)) / raw.std(0)).astype(np.float32))
    codes, held = torch.from_numpy(unit.task.train_target), torch.from_numpy(data.validation)
    losses = []
    for rate in RATES:
        head = fit_stochastic(
            features[~held],
            codes[~held],
            torch.ones(1, int((~held).sum())),
            torch.tensor([search_seed()]),
            [
                Hyperparameters(
                    optimizer="adamw",
                    learning_rate=rate,
                    weight_decay=1e-4,
                    epochs=9,
                    batch_size=16,
                )
            ],
            3,
        )
        scores = head.scores(features[held])[0]
        losses.append(float(torch.nn.functional.cross_entropy(scores, codes[held])))
    found = results.searches().query("model == 'net-1'")
    np.testing.assert_allclose(found["loss"], losses, rtol=1e-5)
    assert found["chosen"].tolist() == [loss == min(losses) for loss in losses]
    assert (found["epochs"] == 9).all()
    rates = found["hyperparameters"].map(json.loads).map(lambda x: x["learning_rate"])
    assert rates.tolist() == RATES


def test_all_runs_of_a_unit_take_its_choice(zoo: Path) -> None:
    results = run(wanted(zoo), backend="inline")
    searches = results.searches()
    assert (searches.groupby(["model", "task"])["chosen"].sum() == 1).all()
    assert len(searches) == 4 * 2 * 3
    chosen = searches[searches["chosen"]].set_index(["model", "task"])["hyperparameters"]
    heads = results.heads()
    assert len(heads) == 4 * 2 * 5
    for (model, task), used in heads.groupby(["model", "task"])["hyperparameters"]:
        assert set(used) == {chosen[model, task]}


def test_a_choice_is_held_when_seeds_models_and_names_are_added(zoo: Path) -> None:
    run(wanted(zoo), backend="inline")
    before = parts_of(zoo)
    write_zoo(zoo, models=5)
    renamed = {**SEARCHED, "name": "probe"}
    assert sum(len(block.units) for block in planned(wanted(zoo, seeds=3)).searches) == 2
    run(wanted(zoo, heads=[renamed], seeds=3), backend="inline")
    after = parts_of(zoo)
    assert before.items() <= after.items()
    assert len(choices(zoo)) == 4 * 2 + 2


def test_a_single_candidate_is_no_search(zoo: Path) -> None:
    plan = planned(wanted(zoo, heads=[{**SEARCHED, "learning_rate": [1e-2]}]))
    assert plan.blocks
    assert not plan.searches


def test_a_search_that_is_lost_is_made_again_the_same(zoo: Path) -> None:
    run(wanted(zoo), backend="inline")
    before = choices(zoo)
    for path in (zoo / "output/parts/choices").iterdir():
        path.unlink()
    for path in (zoo / "output/parts/heads").rglob("*.parquet"):
        path.unlink()
    run(wanted(zoo), backend="inline")
    assert choices(zoo) == before


def test_a_diverging_candidate_loses_and_says_why(zoo: Path) -> None:
    rates = {"optimizer": "sgd", "learning_rate": [1e6, 1e-2], "weight_decay": 0}
    heads = [{**SEARCHED, **rates}]
    results = run(wanted(zoo, heads=heads, tasks=TASKS[1:]), backend="inline")
    assert results.failures().empty
    searches = results.searches()
    lost, kept = searches[~searches["chosen"]], searches[searches["chosen"]]
    assert lost["loss"].isna().all()
    assert lost["reason"].str.contains(r"diverged in epoch \d+ at learning rate 1e\+06").all()
    assert kept["reason"].isna().all()
    assert kept["hyperparameters"].str.contains('"learning_rate": 0.01').all()


def test_a_unit_whose_candidates_all_diverge_fails_at_its_search(zoo: Path) -> None:
    rates = {"optimizer": "sgd", "learning_rate": [1e6, 1e7], "weight_decay": 0}
    heads = ["ridge", {**SEARCHED, **rates}]
    results = run(wanted(zoo, heads=heads, tasks=TASKS[1:]), backend="inline")
    failures = results.failures()
    assert set(failures["head"]) == {"linear"}
    assert set(failures["stage"]) == {"search"}
    first = failures["error"].iloc[0]
    assert first.startswith("model 'net-0' at 'output', task 'size', head 'linear': all 2 candid")
    assert "diverged" in first
    assert results.searches().empty
    assert set(results.heads()["head"]) == {"ridge"}


def test_ties_go_to_the_earlier_candidate_and_longer_training_wins(zoo: Path) -> None:
    unit = planned(wanted(zoo)).units[0]

    def chosen(*laps: Lap) -> int:
        found: list[bool] = choose(unit, laps)["chosen"].to_pylist()
        return found.index(True)

    assert chosen(Lap(9, 0.5), Lap(9, 0.5), Lap(9, 0.6)) == 0
    assert chosen(Lap(1, 0.1), Lap(9, 0.6), Lap(9, 0.5)) == 2
    assert chosen(Lap(9, None, "diverged"), Lap(1, 0.2), Lap(1, 0.1)) == 2


def test_a_choice_at_the_end_of_a_list_is_a_warning(zoo: Path) -> None:
    results = run(wanted(zoo), backend="inline")
    found = results.searches()
    edges = found[found["chosen"] & found["at_edge"].map(list).map(bool)]
    assert len(edges) > 0
    (line,) = warning_lines(results.heads(), found)
    assert line.startswith(f"warning: {len(edges)} searches chose at the edge of a list")
    assert line.endswith("widen 'learning_rate'")
    inner = found.assign(chosen=found["at_edge"].map(len).eq(0))
    assert warning_lines(results.heads(), inner) == []


def test_the_plan_counts_searches(zoo: Path) -> None:
    before = wanted(zoo, heads=["ridge", SEARCHED])
    content = described(before)
    assert (content["searches"], content["candidates"]) == (4 * 2, 4 * 2 * 3)
    run(before, backend="inline")
    after = described(before)
    assert (after["searches"], after["candidates"]) == (0, 0)


@pytest.mark.parametrize("damage", [b"", b"PAR1 and no more"])
def test_a_damaged_choice_is_no_choice(zoo: Path, damage: bytes) -> None:
    run(wanted(zoo), backend="inline")
    before = choices(zoo)
    for path in (zoo / "output/parts/choices").iterdir():
        path.write_bytes(damage)
    assert not Parts(open_folder(zoo / "output")).has_choice(
        next(iter(before)).removesuffix(".parquet")
    )
    run(wanted(zoo, seeds=3), backend="inline")
    assert choices(zoo) == before


def test_a_choice_of_another_unit_is_refused(zoo: Path) -> None:
    parts = Parts(open_folder(zoo / "output"))
    parts.write_choice("one", pa.table({"chosen": [True]}))
    (zoo / "output/parts/choices/one.parquet").rename(zoo / "output/parts/choices/two.parquet")
    with pytest.raises(InputError, match=r"two\.parquet is a part of another unit"):
        parts.has_choice("two")


def test_heads_of_two_choices_are_not_mixed(zoo: Path) -> None:
    """A lost choice may come out differently where candidates race."""
    run(wanted(zoo), backend="inline")
    parts, (unit, *_) = Parts(open_folder(zoo / "output")), planned(wanted(zoo)).units
    table = parts.read_choice(str(unit.key))
    turned = table.set_column(4, "chosen", pc.equal(table["candidate"], 2))
    parts.write_choice(str(unit.key), turned)
    failures = run(wanted(zoo, seeds=3), backend="inline").failures()
    assert failures["model"].tolist() == ["net-0"]
    assert "its other heads have hyperparameters" in failures["error"].iloc[0]
    assert f"remove {zoo / 'output/parts/heads' / str(unit.key)}" in failures["error"].iloc[0]

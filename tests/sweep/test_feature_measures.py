"""Measures of features in runs: on kept samples, without tasks, each at its own price."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_zoo import (
    SAMPLES,
    content,
    experiment,
    parts_of,
    planned,
    write_features,
    write_shift,
    write_zoo,
)

from td_ray import pairwise_measure
from td_ray.errors import InputError
from td_ray.measures.features import find_feature_measure
from td_ray.plan.estimate import count_pairs, estimate
from td_ray.plan.resolve import resolve
from td_ray.plan.tiles import plan_tiles
from td_ray.results.parts import Parts
from td_ray.sweep import run
from td_ray.tasks import dataset
from td_ray.work.feature_pairs import compare_features
from td_ray.work.kept_features import PreparedFeatures, feature_part, features_of_part

NAMES = ["cka", "cka_debiased", "cca", "procrustes", "gulp", "rsa", "knn"]


def evaluated(folder: Path, rows: Any = None) -> dict[str, Any]:
    """Features of all models on the evaluation split, or on some rows of all samples."""
    split = pd.read_csv(folder / "points.csv")["split"]
    rows = (split == "test").to_numpy() if rows is None else rows
    files = sorted((folder / "features").glob("*.npz"))
    return {file.stem: np.load(file)["features"][rows] for file in files}


def kept(folder: Path) -> dict[Path, Any]:
    return {path: file for path, file in parts_of(folder).items() if "features" in path.parts}


@pytest.mark.parametrize("tile", [1, 3, None])
def test_a_run_gives_what_the_arrays_give(zoo: Path, tile: int | None) -> None:
    wanted = experiment(zoo, measures=["td", *NAMES], resources={"tile": tile})
    results = run(wanted, backend="inline")
    assert results.failures().empty
    for name in NAMES:
        matrix = results.matrix(measure=name)
        expected = pairwise_measure(evaluated(zoo), name)
        pd.testing.assert_frame_equal(matrix.to_pandas(), expected, atol=1e-12)
        assert matrix.scale.is_similarity == (
            expected.attrs["direction"] == "higher is more similar"
        )
        assert matrix.scale.is_squared == expected.attrs["squared"]
    pairs = results.pairs()
    own = pairs[pairs["measure"].isin(NAMES)]
    assert len(own) == 6 * len(NAMES)
    nothing = ["task", "head", "floor_a", "floor_b", "tdx", "excess", "se", "reason"]
    assert own[nothing].isna().all(axis=None)
    assert set(own["n_examples"]) == {48}
    assert set(own["n_seeds"]) == {0}
    known = results.comparisons()
    assert (known[known["measure"].isin(NAMES)]["pairs"] == 6).all()


def test_options_stand_behind_the_name(zoo: Path) -> None:
    names = ["gulp", "gulp(l=0.5)", "rsa(dissimilarity=cosine, correlation=pearson)", "knn(k=3)"]
    results = run(experiment(zoo, measures=["td", *names]), backend="inline")
    options = [{}, {"l": 0.5}, {"dissimilarity": "cosine", "correlation": "pearson"}, {"k": 3}]
    for name, given in zip(names, options, strict=True):
        found = results.matrix(measure=name).to_pandas()
        plain = name.partition("(")[0]
        expected = pairwise_measure(evaluated(zoo), plain, **given)
        pd.testing.assert_frame_equal(found, expected, atol=1e-12)
        pd.testing.assert_frame_equal(pairwise_measure(evaluated(zoo), name), expected)
    gulps = [results.matrix(measure=name).values[0, 1] for name in names[:2]]
    assert gulps[0] != pytest.approx(gulps[1], rel=0.01)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gulp(m=0.5)", "measures: measure 'gulp' has no option 'm'"),
        ("gulp(l=-1)", "measures: option 'l' of measure 'gulp' must be a number greater than 0"),
        ("knn(k=2.5)", "measures: option 'k' of measure 'knn' must be a whole number"),
        ("gulp(l=0.5", r"no name with options, such as 'gulp\(option=1\)'"),
        ("gulp(0.5)", "no name with options"),
        ("td(k=1)", r"measures: measure 'td' has no options; found 'td\(k=1\)'"),
        ("gulb(l=0.5)", "unknown measure 'gulb': did you mean 'gulp'"),
    ],
)
def test_options_that_do_not_fit_are_refused(zoo: Path, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        resolve(experiment(zoo, measures=["td", name]))


def test_a_measure_is_asked_for_once(zoo: Path) -> None:
    with pytest.raises(InputError, match="measure 'cka' is there twice"):
        experiment(zoo, measures=["cka", "cka"])


def test_equal_models_have_the_value_that_is_declared(zoo: Path) -> None:
    features = np.load(zoo / "features/net-0.npz")
    write_features(zoo / "features/net-9.npz", features["id"], features["features"])
    results = run(experiment(zoo, measures=NAMES), backend="inline")
    for name in NAMES:
        frame = results.matrix(measure=name).to_pandas()
        itself = find_feature_measure(name).itself
        assert frame.loc["net-0", "net-9"] == pytest.approx(itself, abs=1e-9)
        assert frame.loc["net-0", "net-0"] == itself


def test_what_a_model_is_to_itself_may_depend_on_an_option() -> None:
    assert find_feature_measure("cca", {"ridge": 0.1}).itself is None


def test_a_measure_more_costs_its_own_pairs_alone(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    heads = parts_of(zoo)
    run(experiment(zoo, measures=["td", "cka"]), backend="inline")
    first = parts_of(zoo)
    assert heads.items() <= first.items()
    assert len(first) == len(heads) + 4 + 1
    run(experiment(zoo, measures=["td", "cka", "knn"]), backend="inline")
    second = parts_of(zoo)
    assert first.items() <= second.items()
    assert len(second) == len(first) + 1


def test_a_model_more_costs_its_own_row_alone(zoo: Path) -> None:
    resources = {"tile": 2}
    run(experiment(zoo, measures=["cka"], resources=resources), backend="inline")
    before = parts_of(zoo)
    write_zoo(zoo, models=5)
    grown = run(experiment(zoo, measures=["cka"], resources=resources), backend="inline")
    assert before.items() <= parts_of(zoo).items()
    frame = grown.matrix(measure="cka").to_pandas()
    pd.testing.assert_frame_equal(frame, pairwise_measure(evaluated(zoo), "cka"), atol=1e-12)


def test_fewer_examples_are_the_first_that_were_drawn(zoo: Path) -> None:
    wanted = experiment(zoo, measures=["cka"])
    run(wanted, backend="inline")
    features = kept(zoo)
    drawn = resolve(wanted).data["points"].drawn
    fewer = run(experiment(zoo, measures=["cka"], examples=20), backend="inline")
    assert kept(zoo) == features
    expected = pairwise_measure(evaluated(zoo, drawn[:20]), "cka")
    found = fewer.matrix(measure="cka").to_pandas()
    pd.testing.assert_frame_equal(found, expected, atol=1e-12)
    assert set(fewer.pairs()["n_examples"]) == {20}


def test_no_more_samples_are_kept_than_are_compared(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "FEATURE_EXAMPLES", 30)
    wanted = experiment(zoo, measures=["cka"])
    run(wanted, backend="inline")
    drawn = resolve(wanted).data["points"].drawn
    assert len(drawn) == 30
    parts = Parts(wanted.output_folder)
    for unit in planned(wanted).kept:
        found = features_of_part(parts.read_features(str(unit.key)))
        own = evaluated(zoo, drawn)[unit.representation.model_name]
        np.testing.assert_array_equal(found, own)


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_a_part_holds_features_as_they_are(kind: str) -> None:
    features = np.random.default_rng(0).normal(size=(7, 5)).astype(kind)
    found = features_of_part(feature_part(features))
    assert found.dtype == kind
    np.testing.assert_array_equal(found, features)


def test_memory_bounds_what_is_held_and_changes_no_value(zoo: Path) -> None:
    wanted = experiment(zoo, measures=["rsa"])
    run(wanted, backend="inline")
    parts = Parts(wanted.output_folder)
    (tile,) = (x for x in plan_tiles(planned(wanted), parts) if x.measure == "rsa")
    tables = []
    for memory in (1, 2**30):
        prepared = PreparedFeatures(parts, memory)
        tables.append(compare_features(tile, 48, prepared))
        assert len(prepared._held) == (1 if memory == 1 else 4)
    np.testing.assert_allclose(tables[0]["value"], tables[1]["value"], rtol=1e-14)


def test_a_model_that_cannot_be_compared_costs_its_own_pairs(zoo: Path) -> None:
    ids = pd.read_csv(zoo / "points.csv")["id"]
    features = np.random.default_rng(0).normal(size=(SAMPLES, 3))
    features[(pd.read_csv(zoo / "points.csv")["split"] == "test").to_numpy()] = 1.0
    write_features(zoo / "features/flat-0.npz", ids, features)
    results = run(experiment(zoo, measures=["cka"]), backend="inline")
    pairs = results.pairs()
    flat = (pairs["model_a"] == "flat-0") | (pairs["model_b"] == "flat-0")
    assert pairs[~flat]["value"].notna().all()
    assert pairs[flat]["value"].isna().all()
    for row in pairs[flat].itertuples():
        side = "model_a" if row.model_a == "flat-0" else "model_b"
        assert row.reason.startswith(f"{side}: the features are constant")
    assert int(results.comparisons()["without_value"].sum()) == 4


def test_a_model_that_fails_is_recorded_and_the_others_are_compared(zoo: Path) -> None:
    ids = pd.read_csv(zoo / "points.csv")["id"]
    write_features(zoo / "features/bad-0.npz", ids, np.full((SAMPLES, 3), np.nan))
    wanted = experiment(zoo, measures=["td", "cka"])
    results = run(wanted, backend="inline")
    failures = results.failures()
    assert set(failures["model"]) == {"bad-0"}
    own = failures[failures["task"].isna()]
    assert own["stage"].tolist() == ["features"]
    assert "NaN" in own["error"].item()
    assert len(results.pairs().query("measure == 'cka'")) == 6
    assert planned(wanted).count("failed") == 3


def test_a_part_that_is_cut_short_is_kept_anew(zoo: Path) -> None:
    wanted = experiment(zoo, measures=["cka"])
    run(wanted, backend="inline")
    path, (_, content_of) = next(iter(kept(zoo).items()))
    path.write_bytes(content_of[:-20])
    assert planned(wanted).count("missing") == 1
    run(wanted, backend="inline")
    assert path.read_bytes() == content_of


def test_every_data_set_that_is_predicted_is_compared(zoo: Path) -> None:
    wanted = experiment(zoo, measures=["cka"], **write_shift(zoo))
    results = run(wanted, backend="inline")
    assert count_pairs(planned(wanted)) == 12
    assert results.comparisons()["data"].tolist() == ["points", "moved"]
    with pytest.raises(InputError, match="name one of moved, points"):
        results.matrix(measure="cka")
    assert results.matrix(measure="cka", data="moved").n_missing == 0
    assert results.pairs().groupby("data")["n_examples"].first().to_dict() == {
        "moved": 20,
        "points": 48,
    }


def test_only_wanted_pairs_are_compared(zoo: Path) -> None:
    wanted = experiment(zoo, measures=["cka"], pairs=[["net-1", "*"]])
    pairs = run(wanted, backend="inline").pairs()
    assert sorted(zip(pairs["model_a"], pairs["model_b"], strict=True)) == [
        ("net-0", "net-1"),
        ("net-1", "net-2"),
        ("net-1", "net-3"),
    ]


def test_predictions_alone_have_no_features(zoo: Path) -> None:
    model = {"source": "predictions", "path": "features/net-0.npz", "name": "given"}
    wanted = experiment(zoo, measures=["td", "gulp"], models=[*content()["models"], model])
    with pytest.raises(InputError) as caught:
        planned(wanted)
    assert str(caught.value) == (
        "measure 'gulp' compares features, and model 'given' comes with predictions alone; "
        "leave out the measure or the model"
    )


def test_a_plan_says_what_is_kept_and_compared(zoo: Path) -> None:
    wanted = experiment(zoo, measures=["cka"])
    left = estimate(planned(wanted), Parts(wanted.output_folder))
    assert (left.pairs, left.pairs_finished) == (6, 0)
    assert left.kept_bytes == 4 * 48 * 6 * 4  # the files tell their width
    run(wanted, backend="inline")
    left = estimate(planned(wanted), Parts(wanted.output_folder))
    assert (left.pairs, left.pairs_finished, left.kept_bytes) == (6, 6, 0)

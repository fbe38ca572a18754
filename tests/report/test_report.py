"""The page says what the tables say, whatever the names and whatever is missing."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_results import HOSTILE, STRATEGIES, Page, Zoo, models
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.report import write_report
from td_ray.report.figures import DETAILED, to_script
from td_ray.report.grouping import grouping_keys
from td_ray.report.units import DISAGREEMENT, DISTANCES, NOTHING, R2
from td_ray.results.tables import Results, open_results

FAILED = "a head or the features of one of the two failed"
CONSTANT = "a head predicts a constant, which has no direction"


def written(results: Results, folder: Path) -> Page:
    path = folder / "report.html"
    write_report(results, path)
    return Page(path)


def unpacked(packed: Mapping[str, Any], size: int) -> NDArray[np.float64]:
    """(N, N), 0 on the diagonal, as page.js unpacks it."""
    raw = b64decode(packed["values"])
    if packed["step"] is None:
        flat = np.frombuffer(raw, "<f4").astype(float)
    else:
        steps = np.frombuffer(raw, "<u2").astype(float)
        flat = np.where(steps == 65535, np.nan, steps * packed["step"])
    values = np.zeros((size, size))
    values[np.triu_indices(size, 1)] = flat
    return values + values.T


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Zoo(models(6), STRATEGIES).write(tmp_path / "output")


def test_the_heat_map_is_the_matrix_in_clustered_order(results: Results, tmp_path: Path) -> None:
    figure = written(results, tmp_path).figures["matrix-1"]
    matrix = results.matrix("digit").to_pandas()
    order = results.matrix("digit").clustering_order()
    assert figure["names"] == list(matrix.index[order])
    assert figure["names"] != list(matrix.index)
    for key, value in {"td": "value", "excess": "excess"}.items():
        expected = results.matrix("digit", value=value).to_pandas().to_numpy()[np.ix_(order, order)]
        np.testing.assert_allclose(unpacked(figure[key], 6), expected, rtol=1e-6, atol=1e-9)
    tdx = results.matrix("digit", value="tdx").to_pandas().to_numpy()[np.ix_(order, order)]
    np.fill_diagonal(tdx, 0)  # where the floors stand, which the figure has by themselves
    np.testing.assert_allclose(unpacked(figure["tdx"], 6), tdx, rtol=1e-6)
    assert figure["floors"] == results.floors("digit").iloc[order].tolist()


def test_groups_are_those_of_the_matrix(results: Results, tmp_path: Path) -> None:
    page = written(results, tmp_path)
    means = results.matrix("digit").group_means("strategy")
    heads = results.heads()
    full = heads[heads["seed"].isna()].set_index("model")["score"]
    scores = [full[full.index.isin(models(6)[:3])].mean(), full[models(6)[3:]].mean()]
    figure = page.figures["groups-1-1"]
    assert figure["names"] == ["plain", "mixup"]
    assert figure["td"] == [means.loc[name, name] for name in figure["names"]]
    assert figure["floors"] == means["floor"].tolist()
    assert figure["scores"] == pytest.approx(scores)
    table = page.table("strategy")
    for row in means.index:
        for column in means.index:
            assert table.loc[row, column] == DISAGREEMENT.text(means.loc[row, column])
        assert table.loc[row, "Noise floor"] == DISAGREEMENT.text(means.loc[row, "floor"])
    assert table["Number"].tolist() == ["3", "3"]


def test_the_header_counts_what_was_run(results: Results, tmp_path: Path) -> None:
    text = written(results, tmp_path).text
    for count in ("representations6", "tasks1", "heads30", "seeds2", "held-out examples50"):
        assert count in text
    assert "made up" in text
    assert "failures0" in text


def test_the_overview_leads_to_every_section(tmp_path: Path) -> None:
    tasks = [f"task {number}" for number in range(5)]
    results = Zoo(models(3), tasks=tasks).write(tmp_path / "output")
    page = written(results, tmp_path)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert links == [f"#comparison-{number}" for number in range(1, 6)]
    assert {str(link)[1:] for link in links} <= ids
    table = page.tables[0]
    for task, row in zip(tasks, table[1:], strict=True):
        matrix = results.matrix(task).to_pandas().to_numpy()
        assert row[0] == task
        assert row[3] == DISAGREEMENT.text(matrix[np.triu_indices(3, 1)].mean())
        assert row[4] == DISAGREEMENT.text(results.floors(task).mean())


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    plain = written(Zoo(models(4), STRATEGIES[1:5]).write(tmp_path / "plain"), tmp_path)
    metadata = [{"strategy": HOSTILE[number % 2]} for number in range(4)]
    zoo = Zoo(HOSTILE, metadata, tasks=[HOSTILE[0]], failed={3: HOSTILE[1]})
    page = written(zoo.write(tmp_path / HOSTILE[0].replace("/", "")), tmp_path)
    kinds = ["script", "img", "style"]
    for kind in kinds:
        assert sum(tag == kind for tag, _ in page.tags) == sum(t == kind for t, _ in plain.tags)
    assert sorted(page.figures["matrix-1"]["names"]) == sorted(HOSTILE)
    assert page.tables[0][1][0] == HOSTILE[0]
    assert page.table("Model").loc[HOSTILE[3], "Error"] == HOSTILE[1]


def test_json_cannot_end_its_script() -> None:
    figure = {"names": [*HOSTILE, "<!--"]}
    text = to_script(figure)
    assert "<" not in text
    assert json.loads(text) == figure


def test_nothing_is_loaded(results: Results, tmp_path: Path) -> None:
    page = written(results, tmp_path)
    loading = ("src", "srcset", "href", "data", "action", "poster", "background", "xlink:href")
    for tag, attributes in page.tags:
        for name in loading:
            assert str(attributes.get(name, "#")).startswith("#") or attributes[name] == "data:,", (
                tag
            )
        assert tag not in ("iframe", "object", "embed", "base")
    style = Path(tmp_path / "report.html").read_text().split("<style>")[1].split("</style>")[0]
    assert "@import" not in style
    assert "url(" not in style.replace("url(#", "")
    assert sum(tag == "script" and not attributes for tag, attributes in page.tags) == 2


def test_equal_results_give_equal_bytes(results: Results, tmp_path: Path) -> None:
    write_report(results, tmp_path / "one.html")
    write_report(open_results(results.output), tmp_path / "deep" / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "deep" / "two.html").read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*.html*")) == ["one.html"]


def test_missing_pairs_are_blank_and_explained(tmp_path: Path) -> None:
    zoo = Zoo(
        models(6),
        STRATEGIES,
        absent=[(0, 1), (0, 2)],
        null={(1, 2): CONSTANT},
        failed={5: "WorkError: did not converge"},
    )
    page = written(zoo.write(tmp_path / "output"), tmp_path)
    figure = page.figures["matrix-1"]
    values = unpacked(figure["td"], 6)
    place = {name: number for number, name in enumerate(figure["names"])}
    blank = {(0, 1), (0, 2), (1, 2), *((other, 5) for other in range(5))}
    for a, b in zip(*np.triu_indices(6, 1), strict=True):
        cell = values[place[f"model-{a}"], place[f"model-{b}"]]
        assert np.isnan(cell) == ((a, b) in blank)
    assert figure["missing"] == 8
    assert figure["floors"][place["model-5"]] is None
    assert "8 of 15 pairs have no value" in page.text
    assert f"1: {CONSTANT}" in page.text
    assert f"5: {FAILED}" in page.text
    assert "2: not asked for, or not computed yet" in page.text
    assert page.table("Model").loc["model-5", "Error"] == "WorkError: did not converge"
    assert page.table("Model").loc["model-5", "Stage"] == "heads"


def test_a_task_without_any_pair_says_so(tmp_path: Path) -> None:
    errors = dict.fromkeys(range(3), "WorkError: no weights")
    page = written(Zoo(models(3), failed=errors).write(tmp_path / "output"), tmp_path)
    assert page.figures == {}
    assert "No pair has a value here" in page.text
    assert f"3: {FAILED}" in page.text


def test_many_failures_are_cut(tmp_path: Path) -> None:
    errors = {number: f"error {number}" for number in range(210)}
    page = written(Zoo(models(212), failed=errors).write(tmp_path / "output"), tmp_path)
    assert len(page.table("Model")) == 200
    assert "210 units failed; the first 200 are shown" in page.text


def test_one_pair_without_seeds_or_metadata(tmp_path: Path) -> None:
    page = written(Zoo(models(2), seeds=0).write(tmp_path / "output"), tmp_path)
    assert list(page.figures) == ["matrix-1"]
    assert page.figures["matrix-1"]["floors"] == [None, None]
    assert np.isnan(unpacked(page.figures["matrix-1"]["tdx"], 2)[0, 1])
    assert page.tables[0][1][4] == NOTHING
    assert "mean noise floor, at half" not in page.text


def test_a_single_representation_has_no_pair(tmp_path: Path) -> None:
    page = written(Zoo(models(1)).write(tmp_path / "output"), tmp_path)
    assert page.figures == {}
    assert "No pair has a value here" in page.text


def test_two_heads_and_two_data_sets_have_a_section_each(tmp_path: Path) -> None:
    zoo = Zoo(models(3), data=["digits", "other"], head_names=["linear", "second"])
    page = written(zoo.write(tmp_path / "output"), tmp_path)
    places = [row[1:3] for row in page.tables[0][1:]]
    assert places == [
        ["digits", "linear"],
        ["digits", "second"],
        ["other", "linear"],
        ["other", "second"],
    ]
    assert list(page.figures) == [f"matrix-{number}" for number in range(1, 5)]
    assert len(page.tables[-1]) == 5


def test_regression_has_its_own_units(tmp_path: Path) -> None:
    results = Zoo(models(4), kind="regression").write(tmp_path / "output")
    page = written(results, tmp_path)
    assert page.figures["matrix-1"]["unit"] == DISTANCES["cosine"].to_json()
    assert "2 \N{MINUS SIGN} 2 cos" in page.figures["matrix-1"]["unit"]["title"]
    assert page.tables[0][1][6].endswith(R2.title)


def test_heads_say_their_penalty_and_what_went_wrong(tmp_path: Path) -> None:
    facts = {
        "penalty_source": "grid",
        "penalty_at_edge": True,
        "gradient_norm": 3e-6,
        "absent_classes": ["2"],
    }
    results = Zoo(models(3), heads=facts).write(tmp_path / "output")
    (row,) = written(results, tmp_path).tables[-1][1:]
    assert row[3] == "0.001, chosen from a grid; at the edge of the grid for 3 of 3: widen it"
    assert row[4:] == ["15", "99.0\u202f% accuracy", row[6], "3.0e-06", "15 (1 class)"]
    heads = results.heads()
    assert row[6].startswith(f"{100 * heads[heads['seed'].isna()]['score'].mean():.1f}")


def test_trained_heads_say_how(tmp_path: Path) -> None:
    facts = {
        "penalty": None,
        "penalty_source": None,
        "penalty_at_edge": None,
        "hyperparameters": '{"optimizer": "adamw", "learning_rate": 0.01}',
    }
    results = Zoo(models(3), heads=facts).write(tmp_path / "output")
    (row,) = written(results, tmp_path).tables[-1][1:]
    assert row[3] == "optimizer adamw, learning_rate 0.01"


def test_stored_predictions_have_no_penalty(tmp_path: Path) -> None:
    nulls = ("penalty", "penalty_source", "penalty_at_edge", "gradient_norm", "absent_classes")
    facts = dict.fromkeys(nulls)
    results = Zoo(models(3), seeds=0, heads=facts).write(tmp_path / "output")
    (row,) = written(results, tmp_path).tables[-1][1:]
    assert row[3] == "none: predictions were given"
    assert row[7:] == [NOTHING, "0"]


def test_large_matrices_are_rounded_and_that_is_said(tmp_path: Path) -> None:
    size = DETAILED + 1
    results = Zoo(models(size), absent=[(0, 1)]).write(tmp_path / "output")
    page = written(results, tmp_path)
    figure = page.figures["matrix-1"]
    assert "tdx" not in figure
    assert f"Above {DETAILED} representations" in page.text
    with pytest.warns(match="1 of"):
        matrix = results.matrix("digit").to_pandas()
    expected = matrix.loc[figure["names"], figure["names"]].to_numpy()
    np.testing.assert_allclose(unpacked(figure["td"], size), expected, atol=0.5001e-4)
    assert len(figure["td"]["values"]) < 1.4 * 2 * size * size / 2


@pytest.mark.parametrize(
    ("metadata", "keys"),
    [
        (STRATEGIES, ["strategy"]),
        ([{"seed": number % 2} for number in range(6)], ["seed"]),
        ([{"pretraining_seed": n % 3, "depth": n % 2} for n in range(6)], ["depth"]),
        ([{"constant": 1, "unique": number} for number in range(6)], []),
        ([{"depth": n % 2, "same": f"also {n % 2}"} for n in range(6)], ["depth"]),
        ([{"depth": 1}, *[{}] * 5], ["depth"]),
        ([{}] * 6, []),
    ],
)
def test_keys_that_are_worth_grouping_by(
    metadata: list[dict[str, Any]], keys: list[str], tmp_path: Path
) -> None:
    results = Zoo(models(6), metadata).write(tmp_path / "output")
    assert grouping_keys(results.models()) == keys


def test_too_many_groups_are_not_shown(tmp_path: Path) -> None:
    metadata = [{"kind": number // 2} for number in range(26)]
    results = Zoo(models(26), metadata).write(tmp_path / "output")
    assert grouping_keys(results.models()) == []


def test_groups_of_one_and_models_without_the_key_are_named(tmp_path: Path) -> None:
    metadata = [{"depth": 18}, {"depth": 18}, {"depth": 50}, {}, {}]
    page = written(Zoo(models(5), metadata).write(tmp_path / "output"), tmp_path)
    assert page.figures["groups-1-1"]["names"] == ["18", "50", "(none)"]
    assert page.figures["groups-1-1"]["td"][1] is None
    assert page.table("depth").loc["50", "50"] == NOTHING
    assert "so without a TD: 50." in page.text


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"experiment": "e", "machine": 3}', "\ud800"])
def test_a_damaged_manifest_is_named(results: Results, tmp_path: Path, content: str) -> None:
    results.output.write("manifest.json", content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"report: .*manifest\.json cannot be read"):
        written(results, tmp_path)


def test_a_damaged_table_is_named(results: Results, tmp_path: Path) -> None:
    results.output.write("results/models/models.parquet", b"PAR1")
    with pytest.raises(InputError, match=r"results: .*models\.parquet cannot be read"):
        written(open_results(results.output), tmp_path)


def test_a_link_in_the_place_of_the_page_is_not_followed(results: Results, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("keep")
    (tmp_path / "report.html").symlink_to(tmp_path / "other")
    written(results, tmp_path)
    assert (tmp_path / "other").read_text() == "keep"
    assert not (tmp_path / "report.html").is_symlink()


def test_the_page_forbids_the_browser_to_load_anything(results: Results, tmp_path: Path) -> None:
    page = written(results, tmp_path)
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'")
    assert "http" not in str(policies[0])

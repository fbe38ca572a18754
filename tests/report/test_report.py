"""The page says what the tables say, whatever the names and whatever is missing."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from td_ray.report import write_report
from td_ray.report.figures import DETAILED, to_script
from td_ray.report.grouping import grouping_keys
from td_ray.report.units import DISAGREEMENT, DISTANCES, NOTHING, R2
from td_ray.results.matrix import cluster_order
from td_ray.results.schemas import TABLES
from td_ray.results.tables import Results, open_results

HOSTILE = [
    "</script><script>window.hostile = 1</script>",
    "\"quotes\" & 'more' <img src=http://example.invalid/x>",
    "two\nlines",
    '<a href="http://example.invalid/">link</a>',
]
FAILED = "a head or the features of one of the two failed"
CONSTANT = "a head predicts a constant, which has no direction"


@dataclass
class Zoo:
    """Made-up results: what is not given is drawn from a fixed seed."""

    models: Sequence[str]
    metadata: Sequence[Mapping[str, Any]] | None = None
    kind: str = "classification"
    tasks: Sequence[str] = ("digit",)
    data: Sequence[str] = ("digits",)
    head_names: Sequence[str] = ("linear",)
    seeds: int = 2
    absent: Iterable[tuple[int, int]] = ()
    """Pairs without a row."""
    null: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """Pairs whose value is null, with the reason."""
    failed: Mapping[int, str] = field(default_factory=dict)
    """Models whose heads failed, with the error."""
    heads: Mapping[str, Any] = field(default_factory=dict)
    """Facts of all heads."""

    def write(self, folder: Path) -> Results:
        """Write the tables."""
        draw = np.random.default_rng(len(self.models))
        tables = {name: pa.Table.from_pylist([], schema) for name, schema in TABLES.items()}
        tables["models"] = _table("models", self._models())
        tables["tasks"] = _table("tasks", [self._task(task) for task in self.tasks])
        tables["samples"] = _table(
            "samples", [{"data": "digits", "position": i, "id": str(i)} for i in range(50)]
        )
        places = list(product(self.tasks, self.data, self.head_names))
        heads = [row for place in places for row in self._heads(*place, draw)]
        tables["heads"] = _table("heads", heads)
        tables["pairs"] = pa.concat_tables([self._pairs(*place, draw) for place in places])
        tables["failures"] = _table("failures", self._failures())
        for name, table in tables.items():
            path = folder / "results" / name / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(table, path)
        names = [f"{name}@layer" for name in self.models]
        manifest = {"experiment": "made up", "representations": names, "tasks": list(self.tasks)}
        (folder / "manifest.json").write_text(json.dumps(manifest | {"machine": {"numpy": "2"}}))
        (folder / "experiment.yaml").write_text("name: made up\nmodels: [<here>]\n")
        return open_results(folder)

    def _models(self) -> list[dict[str, Any]]:
        metadata = self.metadata or [{}] * len(self.models)
        return [
            {
                "model": name,
                "layer": "layer",
                "number": number,
                "source": "features",
                "metadata": json.dumps(dict(facts)),
            }
            for number, (name, facts) in enumerate(zip(self.models, metadata, strict=True))
        ]

    def _task(self, name: str) -> dict[str, Any]:
        classification = self.kind == "classification"
        return {
            "task": name,
            "data": "digits",
            "evaluated_on": list(self.data),
            "target": "digit",
            "kind": self.kind,
            "classes": ["0", "1", "2"] if classification else [],
            "distance": None if classification else "cosine",
            "center": None if classification else 0.5,
            "n_train": 40,
        }

    def _heads(
        self, task: str, data: str, head: str, draw: np.random.Generator
    ) -> list[dict[str, Any]]:
        runs = [(None, None), *((seed, half) for seed in range(self.seeds) for half in "ab")]
        facts = {
            "penalty": 1e-3,
            "penalty_source": "fixed",
            "penalty_at_edge": False,
            "gradient_norm": 2e-7,
            "absent_classes": [],
        }
        return [
            {
                "model": name,
                "layer": "layer",
                "task": task,
                "data": data,
                "head": head,
                "seed": seed,
                "half": half,
                "train_score": 0.99,
                "score": draw.uniform(0.5, 0.9),
                "n_evaluation": 50,
                **facts,
                **self.heads,
            }
            for number, name in enumerate(self.models)
            if number not in self.failed
            for seed, half in runs
        ]

    def _pairs(self, task: str, data: str, head: str, draw: np.random.Generator) -> pa.Table:
        size = len(self.models)
        floors = draw.uniform(0.01, 0.05, size) if self.seeds else np.full(size, np.nan)
        rows, columns = np.triu_indices(size, 1)
        gone = {tuple(sorted(pair)) for pair in self.absent}
        kept = [
            place
            for place, pair in enumerate(zip(rows.tolist(), columns.tolist(), strict=True))
            if pair not in gone and not set(pair) & set(self.failed)
        ]
        a, b = rows[kept], columns[kept]
        value, tdx = draw.uniform(0.02, 0.4, (2, len(kept)))
        pairs = list(zip(a.tolist(), b.tolist(), strict=True))
        reasons = [self.null.get(pair) for pair in pairs]
        value[[reason is not None for reason in reasons]] = np.nan
        if not self.seeds:
            tdx[:] = np.nan
        numbers = {
            "value": value,
            "floor_a": floors[a],
            "floor_b": floors[b],
            "tdx": tdx,
            "excess": tdx - (floors[a] + floors[b]) / 2,
        }
        names = np.array(self.models, dtype=object)
        texts = {"task": task, "data": data, "head": head, "measure": "td"}
        columns_of = {
            **{name: [text] * len(kept) for name, text in texts.items()},
            **{name: pa.array(each, mask=np.isnan(each)) for name, each in numbers.items()},
            "model_a": list(names[a]),
            "model_b": list(names[b]),
            "layer_a": ["layer"] * len(kept),
            "layer_b": ["layer"] * len(kept),
            "n_examples": [50] * len(kept),
            "n_seeds": [self.seeds] * len(kept),
            "reason": reasons,
        }
        schema = TABLES["pairs"]
        empty = {name: pa.nulls(len(kept), schema.field(name).type) for name in schema.names}
        return pa.table({**empty, **columns_of}, schema=schema)

    def _failures(self) -> list[dict[str, Any]]:
        return [
            {
                "model": self.models[number],
                "layer": "layer",
                "task": task,
                "head": "linear",
                "stage": "heads",
                "error": error,
                "unit": f"unit {number}",
            }
            for number, error in self.failed.items()
            for task in self.tasks
        ]


def _table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TABLES[name])


class Page(HTMLParser):
    """What a browser would find: elements, the texts that are read, tables, and figures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: dict[str, dict[str, Any]] = {}
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._script: dict[str, str | None] | None = None
        self._style = self._cell = False
        self._drawing = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "script":
            self._script = attributes
        elif tag == "style":
            self._style = True
        elif attributes.get("class") == "drawing":
            self._drawing = str(attributes["id"])
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None
        elif tag == "style":
            self._style = False
        elif tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            if self._script.get("type") == "application/json":
                self.figures[self._drawing] = json.loads(data)
        elif not self._style:
            self.text += data
            if self._cell:
                self.tables[-1][-1][-1] += data

    def table(self, first_column: str) -> pd.DataFrame:
        """The table with that first heading, as texts."""
        found = [table for table in self.tables if table[0][0] == first_column]
        assert len(found) == 1
        head, *rows = found[0]
        return pd.DataFrame(rows, columns=head).set_index(first_column)


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


def models(number: int) -> list[str]:
    return [f"model-{place}" for place in range(number)]


STRATEGIES = [{"strategy": name, "seed": seed} for name in ("plain", "mixup") for seed in range(3)]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Zoo(models(6), STRATEGIES).write(tmp_path / "output")


def test_the_heat_map_is_the_matrix_in_clustered_order(results: Results, tmp_path: Path) -> None:
    figure = written(results, tmp_path).figures["matrix-1"]
    matrix = results.matrix("digit")
    order = cluster_order(matrix)
    assert figure["names"] == list(matrix.index[order])
    assert figure["names"] != list(matrix.index)
    for key, value in {"td": "value", "excess": "excess"}.items():
        expected = results.matrix("digit", value=value).to_numpy()[np.ix_(order, order)]
        np.testing.assert_allclose(unpacked(figure[key], 6), expected, rtol=1e-6, atol=1e-9)
    tdx = results.matrix("digit", value="tdx").to_numpy()[np.ix_(order, order)]
    np.fill_diagonal(tdx, 0)  # where the floors stand, which the figure has by themselves
    np.testing.assert_allclose(unpacked(figure["tdx"], 6), tdx, rtol=1e-6)
    assert figure["floors"] == results.floors("digit").iloc[order].tolist()


def test_groups_are_those_of_by_group(results: Results, tmp_path: Path) -> None:
    page = written(results, tmp_path)
    means = results.by_group("digit", "strategy")
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
        matrix = results.matrix(task).to_numpy()
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
        matrix = results.matrix("digit")
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


def test_the_page_forbids_the_browser_to_load_anything(results: Results, tmp_path: Path) -> None:
    page = written(results, tmp_path)
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'")
    assert "http" not in str(policies[0])

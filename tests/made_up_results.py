"""Results that no run made, for tests of the page, and the page as a browser finds it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from td_ray.results.schemas import TABLES
from td_ray.results.tables import Results, open_results

HOSTILE = [
    "</script><script>window.hostile = 1</script>",
    "\"quotes\" & 'more' <img src=http://example.invalid/x>",
    "two\nlines",
    '<a href="http://example.invalid/">link</a>',
]


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
    families: Mapping[str, int] = field(default_factory=dict)
    """Names among ``tasks`` that stand for so many tasks."""
    takes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Models that take part in a task or family; by default all."""

    def write(self, folder: Path) -> Results:
        """Write the tables."""
        draw = np.random.default_rng(len(self.models))
        tables = {name: pa.Table.from_pylist([], schema) for name, schema in TABLES.items()}
        tables["models"] = _table("models", self._models())
        named = [(task, line) for line in self.tasks for task in self._named(line)]
        tables["tasks"] = _table("tasks", [self._task(*each) for each in named])
        tables["samples"] = _table(
            "samples",
            [{"data": "digits", "ids_digest": "d", "position": i, "id": str(i)} for i in range(50)],
        )
        places = [
            (*place, self.takes.get(line, range(len(self.models))))
            for line in self.tasks
            for place in product(self._named(line), self.data, self.head_names)
        ]
        heads = [row for place in places for row in self._heads(*place, draw)]
        tables["heads"] = _table("heads", heads)
        tables["pairs"] = pa.concat_tables([self._pairs(*place, draw) for place in places])
        tables["comparisons"] = _table(
            "comparisons", [self._comparison(*place) for *place, _ in places]
        )
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
                "tasks": [line for line in self.tasks if number in self.takes.get(line, [number])],
            }
            for number, (name, facts) in enumerate(zip(self.models, metadata, strict=True))
        ]

    def _named(self, line: str) -> list[str]:
        """The tasks of a line."""
        if line not in self.families:
            return [line]
        return [f"{line}-{number:03d}" for number in range(self.families[line])]

    def _task(self, name: str, line: str) -> dict[str, Any]:
        classification = self.kind == "classification"
        return {
            "task": name,
            "family": line if line in self.families else None,
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
        self, task: str, data: str, head: str, taking: Sequence[int], draw: np.random.Generator
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
            if number in taking and number not in self.failed
            for seed, half in runs
        ]

    def _pairs(
        self, task: str, data: str, head: str, taking: Sequence[int], draw: np.random.Generator
    ) -> pa.Table:
        size = len(self.models)
        floors = draw.uniform(0.01, 0.05, size) if self.seeds else np.full(size, np.nan)
        rows, columns = np.triu_indices(size, 1)
        gone = {tuple(sorted(pair)) for pair in self.absent}
        kept = [
            place
            for place, pair in enumerate(zip(rows.tolist(), columns.tolist(), strict=True))
            if pair not in gone and set(pair) <= set(taking) - set(self.failed)
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
            "number_a": a,
            "number_b": b,
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

    def _comparison(self, task: str, data: str, head: str) -> dict[str, Any]:
        return {
            "task": task,
            "data": data,
            "head": head,
            "measure": "td",
            "low": 0.0,
            "high": 1.0 if self.kind == "classification" else 4.0,
            "is_similarity": False,
            "is_squared": False,
            "is_symmetric": True,
            "itself": 0.0,
            "source": "",
            "pairs": 0,
            "without_value": 0,
        }

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
            for line in self.tasks
            for task in self._named(line)
            if number in self.takes.get(line, [number])
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


def models(number: int) -> list[str]:
    return [f"model-{place}" for place in range(number)]


STRATEGIES = [{"strategy": name, "seed": seed} for name in ("plain", "mixup") for seed in range(3)]

"""Names that mean something to a file system, a page, a terminal or a spreadsheet: still names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_results import Page
from small_zoo import content, write_zoo

from td_ray import yaml_files
from td_ray.errors import InputError
from td_ray.results.tables import open_results
from td_ray.spec import Experiment
from td_ray.zoo import resolve_representations

HOSTILE = [
    "..",
    "../../escape",
    "/escape",
    "a\\..\\b",
    "'\"`$(touch escape)",
    "</script><script>alert(1)</script>",
    "<!--",
    "<img src=x onerror=alert(1)>",
    "[red]x[/red]",
    "[/]",
    "[/nothing]",
    "=cmd()|' /C calc'!A0",
    "\u202egnp.exe",
    "{x}",
    "%{y} %s",
    "$title ${content}",
    "a@b",
    "-rf",
    "*",
    "x" * 300,
    "x" * 20_000,
]


def td_ray(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "td_ray.cli", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment in which everything that has a name has a hostile one, after its run."""
    folder = tmp_path_factory.mktemp("hostile") / "inside"
    write_zoo(folder, models=len(HOSTILE))
    table = pd.read_csv(folder / "points.csv")
    kinds = dict(zip(("ant", "bee", "cat"), (HOSTILE[5], HOSTILE[2], "two\nlines"), strict=True))
    table = table.rename(columns={"species": HOSTILE[7]})
    table[HOSTILE[7]] = table[HOSTILE[7]].map(kinds)
    table["id"] = [*HOSTILE, *table["id"][len(HOSTILE) :]]
    table.to_parquet(folder / "points.parquet")
    table["id"].to_frame().to_csv(folder / "ids.csv", index=False)
    models = []
    for number, name in enumerate(HOSTILE):
        path = folder / f"features/net-{number}.npz"
        with np.load(path) as arrays:
            features = arrays["features"]
        np.savez(path, features=features)
        models.append(
            {
                "source": "features",
                "path": str(path.relative_to(folder)),
                "ids": "ids.csv",
                # as it stands in a template, where braces ask for a word
                "name": name.replace("{", "(").replace("}", ")"),
                "metadata": {HOSTILE[6]: HOSTILE[number % 2 + 5]},
            }
        )
    data = {"name": HOSTILE[1], "source": "table", "path": "points.parquet"}
    data |= {"split": {"column": "split"}, "stratify": HOSTILE[7]}
    values = content(
        name=HOSTILE[5],
        models=models,
        data=[data],
        tasks=[{"name": HOSTILE[9], "data": HOSTILE[1], "target": HOSTILE[7]}],
        heads=[{"kind": "logistic", "name": HOSTILE[1]}],
        seeds=1,
        output="[red]a=b %41 <img>",
        resources={"cache": "</cache>"},
    )
    (folder / "experiment.yaml").write_text(yaml_files.write(values), encoding="utf-8")
    ran = td_ray(folder, "run", "experiment.yaml", "--backend", "inline")
    assert ran.returncode == 0, ran.stderr
    return folder


def test_nothing_is_written_outside(zoo: Path) -> None:
    assert [path.name for path in zoo.parent.iterdir()] == ["inside"]
    made = {path.name for path in zoo.iterdir()}
    given = {"features", "points.csv", "points.parquet", "ids.csv", "experiment.yaml"}
    assert made - given == {"[red]a=b %41 <img>", "<"}
    assert not Path("/escape").exists()


def test_the_tables_have_the_names_as_they_are(zoo: Path) -> None:
    results = open_results(zoo / "[red]a=b %41 <img>")
    names = [name.replace("{", "(").replace("}", ")") for name in HOSTILE]
    assert set(results.models()["model"]) == set(names)
    assert set(results.pairs()["model_a"]) < set(names)
    assert list(results.pairs().columns) == list(pd.read_parquet(pairs_of(zoo)).columns)
    assert sorted(results.tasks()["classes"][0]) == sorted([HOSTILE[5], HOSTILE[2], "two\nlines"])
    assert set(results.table("samples")["id"]) & set(HOSTILE)


def pairs_of(zoo: Path) -> Path:
    return zoo / "[red]a=b %41 <img>/results/pairs/pairs.parquet"


@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "experiment.yaml"],
        ["tasks", "experiment.yaml"],
        ["plan", "experiment.yaml"],
        ["status", "experiment.yaml"],
        ["matrix", "experiment.yaml", "--by", HOSTILE[6]],
        ["matrix", "experiment.yaml", "--format", "csv"],
        ["nearest", "experiment.yaml", "..", "--task", HOSTILE[9]],
        ["cache", "experiment.yaml"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_terminal_shows_them_and_obeys_none(zoo: Path, arguments: list[str]) -> None:
    ran = td_ray(zoo, *arguments)
    assert ran.returncode == 0, ran.stderr
    assert all(line.isprintable() for line in (ran.stdout + ran.stderr).split("\n"))
    if arguments[0] == "models":
        assert "[/nothing]" in ran.stdout
        assert r"\u202egnp.exe" in ran.stdout


def test_a_table_for_programs_reads_back(zoo: Path) -> None:
    ran = td_ray(zoo, "matrix", "experiment.yaml", "--format", "csv", "--output", "deep/m.csv")
    assert ran.returncode == 0, ran.stderr
    frame = pd.read_csv(zoo / "deep/m.csv", index_col=0)
    assert set(open_results(pairs_of(zoo).parents[2]).models()["model"]) == set(frame.index)
    shutil.rmtree(zoo / "deep")


class Nesting(HTMLParser):
    """Elements that are open; it fails where one ends that was not the last to begin."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.odd: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link"):
            self.open.append(tag)
        self.odd += [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop() != tag:
            self.odd.append(tag)

    def handle_comment(self, data: str) -> None:
        self.odd.append("<!--")


def test_the_page_stays_whole(zoo: Path) -> None:
    ran = td_ray(zoo, "report", "experiment.yaml", "--output", "page/[red].html")
    assert ran.returncode == 0, ran.stderr
    page = Page(zoo / "page/[red].html")
    assert sum(tag == "script" for tag, _ in page.tags) == 2 + len(page.figures)
    assert not any(tag == "img" for tag, _ in page.tags)
    found = Nesting()
    found.feed((zoo / "page/[red].html").read_text(encoding="utf-8"))
    assert (found.odd, found.open) == ([], [])
    assert HOSTILE[5] in page.text  # the experiment's name
    shutil.rmtree(zoo / "page")


@pytest.mark.parametrize("name", [b"a\nb", b"a\x1b[31mb", b"a\xffb", "a\u2028b".encode()])
def test_files_whose_names_are_no_lines(tmp_path: Path, name: bytes) -> None:
    write_zoo(tmp_path, models=1)
    place = os.fsencode(tmp_path / "features") + b"/" + name + b"-1.npz"
    os.rename(tmp_path / "features/net-0.npz", place)
    experiment = Experiment.parse(content(folder=str(tmp_path)))
    with pytest.raises(InputError, match="rename the file, or give") as refused:
        resolve_representations(experiment)
    assert str(refused.value).isprintable()
    named: dict[str, Any] = {"name": "mine", "metadata": {"kind": "plain", "number": 1}}
    models = [{**content()["models"][0], **named}]
    (found,) = resolve_representations(
        Experiment.parse(content(folder=str(tmp_path), models=models))
    )
    assert found.name == "mine@output"


@pytest.mark.parametrize("place", ["id", "species"])
def test_half_a_character_in_a_data_set(tmp_path: Path, place: str) -> None:
    from td_ray.plan.resolve import load_data
    from td_ray.tasks import resolve_tasks

    write_zoo(tmp_path)
    table = pd.read_csv(tmp_path / "points.csv")
    columns = {name: table[name].to_numpy(dtype=str) for name in ("id", "species", "split")}
    columns[place] = columns[place].astype("U8")
    columns[place][columns[place] == columns[place][0]] = "a\udc80b"
    np.savez(tmp_path / "points.npz", **columns)
    data = [{**content()["data"][0], "path": "points.npz"}]
    experiment = Experiment.parse(
        content(folder=str(tmp_path), data=data, tasks=content()["tasks"][:1])
    )
    with pytest.raises(InputError, match="surrogates not allowed") as refused:
        resolve_tasks(experiment.tasks, load_data(experiment))
    assert str(refused.value).isprintable()

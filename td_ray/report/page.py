"""The page: a header, a section for each comparison, other measures, heads, failures, sources."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from string import Template
from typing import Any

import pandas as pd

from td_ray.files import atomic, reading
from td_ray.report.comparisons import comparisons
from td_ray.report.heads import heads_table
from td_ray.report.markup import Html, join, table, tag
from td_ray.report.other_measures import other_measures
from td_ray.report.sections import overview, overview_row, section
from td_ray.results.manifest import MANIFEST
from td_ray.results.tables import Results
from td_ray.spec.experiment import EXPERIMENT
from td_ray.storage import Folder

PAGE = "report.html"
MOST_FAILURES = 200


def write_report(results: Results, page: Path | None = None) -> str:
    """Write one HTML page that shows the results and loads nothing from anywhere.

    Equal results give equal bytes.

    Args:
        page: the file to write; by default ``report.html`` in the output folder. It appears whole
            or not at all.

    Returns:
        Where it is.
    """
    # an output folder may have a name that is not UTF-8
    text = _page(results).encode(errors="backslashreplace")
    if page is None:
        results.output.write(PAGE, text)
        return results.output.shown(PAGE)
    with atomic(page) as temporary:
        temporary.write_bytes(text)
    return str(page)


def _page(results: Results) -> str:
    from plotly.offline import get_plotlyjs

    manifest = _manifest(results.output)
    rows, sections = [], []
    for comparison in comparisons(results):
        rows.append(overview_row(comparison))
        sections.append(section(comparison))
    content = join(
        [
            _header(manifest, results),
            tag("nav", tag("h2", "Overview"), overview(rows), aria_label="Tasks"),
            *sections,
            other_measures(results),
            tag("section", tag("h2", "Heads"), heads_table(results), id="heads"),
            _failures(results.grouped_failures(), len(results.failures())),
            _origin(manifest, results),
        ],
        "\n",
    )
    return Template(_file("page.html")).substitute(
        title=tag("title", f"{manifest['experiment']}: Transferred Discrepancy"),
        style=_file("page.css"),
        content=content,
        plotly=get_plotlyjs(),
        script=_file("page.js"),
    )


def _manifest(output: Folder) -> dict[str, Any]:
    with reading(output.shown(MANIFEST), "report"):
        content = json.loads(output.read(MANIFEST))
        return {"experiment": content["experiment"], "machine": dict(content["machine"])}


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _header(manifest: dict[str, Any], results: Results) -> Html:
    models, heads, failures = results.models(), results.heads(), results.failures()
    samples = results.table("samples")
    fitted = heads.drop_duplicates(["model", "layer", "task", "head", "seed", "half"])
    counts = {
        "representations": len(models),
        "tasks": len(results.tasks()),
        "kinds of head": heads["head"].nunique(),
        "heads": len(fitted),
        "seeds": heads["seed"].nunique(),
        "held-out examples": len(samples[["data", "id"]].drop_duplicates()),
        "failures": len(failures),
    }
    tiles = [
        tag(
            "div",
            tag("dt", name),
            tag("dd", f"{count:,}"),
            class_="alert" if name == "failures" and count else None,
        )
        for name, count in counts.items()
    ]
    return tag(
        "header",
        tag("p", "Transferred Discrepancy", class_="kicker"),
        tag("h1", manifest["experiment"]),
        tag("dl", *tiles, class_="counts"),
        Html(_file("meaning.html")),
    )


def _failures(failures: list[dict[str, Any]], n_units: int) -> Html:
    if not failures:
        return Html("")
    names = ("model", "layer", "task", "head", "stage", "error")
    rows = [
        ["" if pd.isna(failure[name]) else failure[name] for name in names]
        for failure in failures[:MOST_FAILURES]
    ]
    caption = f"{n_units:,} {'unit' if n_units == 1 else 'units'} failed"
    if len(failures) < n_units:
        caption += ", those that failed alike on the tasks of a family in one row"
    if len(failures) > MOST_FAILURES:
        caption += f"; the first {MOST_FAILURES} are shown, and all are in the failures table"
    columns = ["Model", "Layer", "Task", "Head", "Stage", "Error"]
    failed = table(f"{caption}.", columns, rows, texts=len(columns))
    return tag("section", tag("h2", "Failures"), failed, id="failures", class_="failures")


def _origin(manifest: dict[str, Any], results: Results) -> Html:
    output = str(results.output)
    code = (
        "from td_ray import open_results\n\n"
        f"results = open_results({output!r})\n"
        "results.pairs()      # every number of the matrices; also heads(), tasks(), failures()"
    )
    parts: list[object] = [
        tag("h2", "Data, and how to reproduce this"),
        tag(
            "p",
            "Every number of this page is in the Parquet tables under ",
            tag("code", f"{output}/results"),
            ". The same experiment again, and this page from it:",
        ),
        tag("pre", f"td-ray run {quote(output)}\ntd-ray report {quote(output)}"),
        tag("p", "In Python:"),
        tag("pre", code),
    ]
    experiment = results.output.read(EXPERIMENT).decode()
    parts.append(tag("details", tag("summary", "experiment.yaml"), tag("pre", experiment)))
    machine = manifest["machine"]
    if machine:
        versions = ", ".join(f"{name} {machine[name]}" for name in sorted(machine))
        parts.append(tag("p", f"Made with {versions}.", class_="facts"))
    return tag("section", *parts, id="data")

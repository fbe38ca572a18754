"""The table of measures beside td."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scipy.stats import spearmanr
from small_zoo import experiment

from td_ray.report import write_report
from td_ray.report.other_measures import other_measures
from td_ray.report.units import NOTHING
from td_ray.sweep import run


def cells(html: str) -> dict[str, list[str]]:
    """By measure and task, the text of the row's other cells."""
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    return {f"{row[0]} {row[1]}": row[2:] for row in found[1:]}


def test_each_comparison_has_its_numbers(zoo: Path) -> None:
    measures = ["td", "cohen_kappa", "negative_flip_rate", "cka"]
    results = run(experiment(zoo, measures=measures), backend="inline")
    rows = cells(other_measures(results))
    assert list(rows) == ["cohen_kappa species", "negative_flip_rate species", f"cka {NOTHING}"]
    kappa, td = results.matrix("species", "cohen_kappa"), results.matrix("species")
    values, others = kappa.values[kappa.pairs], td.values[kappa.pairs]
    expected = spearmanr(-values, others).statistic
    assert rows["cohen_kappa species"] == [
        *("points", "logistic", "similar"),
        *(f"{x:.4f}" for x in (values.mean(), values.min(), values.max(), kappa.floors.mean())),
        *("0", f"{expected:.4f}"),
    ]
    assert rows[f"cka {NOTHING}"][:3] == ["points", NOTHING, "similar"]
    assert rows[f"cka {NOTHING}"][-3:] == [NOTHING, "0", NOTHING]


def test_td_alone_needs_no_table(zoo: Path) -> None:
    assert other_measures(run(experiment(zoo), backend="inline")) == ""


def test_the_page_has_the_table_without_td_too(zoo: Path) -> None:
    results = run(experiment(zoo, measures=["cka", "gulp(l=0.5)"]), backend="inline")
    write_report(results, zoo / "page.html")
    text = (zoo / "page.html").read_text()
    assert "Other measures" in text
    assert "gulp(l=0.5)" in text


@pytest.mark.parametrize(("count", "others"), [(1, ["td"]), (2, ["td"]), (4, [])])
def test_without_pairs_or_td_there_is_no_rank_correlation(
    zoo: Path, count: int, others: list[str]
) -> None:
    for number in range(count, 4):
        (zoo / f"features/net-{number}.npz").unlink()
    results = run(experiment(zoo, measures=[*others, "cohen_kappa"]), backend="inline")
    (row,) = cells(other_measures(results)).values()
    assert row[-1] == NOTHING

"""The page in a real browser: it draws, complains of nothing, and asks the network for nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_results import HOSTILE, Zoo, models

from td_ray.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor chromium-browser is on PATH"),
]

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # nothing leaves this machine, whatever is asked for
    "--enable-logging=stderr",
    "--virtual-time-budget=10000",
]
BROWSERS_OWN = "not an origin"  # the initiator of a request that no page made


@dataclass(frozen=True)
class Visit:
    """What a browser made of a page."""

    document: str
    console: list[str]
    requests: list[str]


def visit(page: Path, folder: Path, size: str = "1200,5000") -> Visit:
    log = folder / "network.json"
    done = subprocess.run(
        [
            str(CHROMIUM),
            *OPTIONS,
            f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={log}",
            f"--window-size={size}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    content = json.loads(log.read_text())
    start = content["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    started = [event["params"] for event in content["events"] if event["type"] == start]
    requests = [
        request["url"]
        for request in started
        if request.get("initiator", BROWSERS_OWN) != BROWSERS_OWN
        and request["url"].startswith("http")
    ]
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Visit(done.stdout, console, requests)


class Drawings(HTMLParser):
    """Classes of the SVG elements, the images and the texts inside each drawing, by its id."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self.texts: dict[str, str] = {}
        self.links = 0
        self._drawing = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if "drawing" in str(attributes.get("class")).split():
            self._drawing = str(attributes["id"])
            self.found[self._drawing] = []
            self.texts[self._drawing] = ""
        elif tag in ("script", "figcaption"):
            self._drawing = ""
        elif self._drawing:
            self.links += tag == "a"
            self.found[self._drawing] += [tag, *str(attributes.get("class")).split()]

    def handle_data(self, data: str) -> None:
        if self._drawing:
            self.texts[self._drawing] += data + "\n"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """A page with hostile names, missing pairs and a failure."""
    folder = tmp_path_factory.mktemp("browser")
    names = [*HOSTILE, "resnet50", "vit"]
    metadata = [{"strategy": HOSTILE[number % 2]} for number in range(6)]
    zoo = Zoo(names, metadata, absent=[(4, 5)], failed={0: HOSTILE[0]})
    write_report(zoo.write(folder / "output"), folder / "report.html")
    return visit(folder / "report.html", folder)


def test_everything_is_drawn(seen: Visit) -> None:
    drawings = Drawings(seen.document)
    assert list(drawings.found) == ["matrix-1", "groups-1-1"]
    matrix, groups = drawings.found.values()
    assert matrix.count("hm") == 2  # the matrix and the column of floors
    assert matrix.count("image") >= 2
    assert "noise floor" in drawings.texts["matrix-1"]
    assert "TD: % of held-out predictions that differ" in drawings.texts["matrix-1"]
    assert groups.count("point") == 4  # TD and floor of two groups
    assert "mean held-out accuracy (%)" in drawings.texts["groups-1-1"]


def test_names_are_drawn_as_they_are(seen: Visit) -> None:
    drawings = Drawings(seen.document)
    assert drawings.links == 0
    assert "resnet50" in drawings.texts["matrix-1"]
    assert '<a href="http' in drawings.texts["matrix-1"]
    assert "</script>" in drawings.texts["groups-1-1"]


def test_nothing_is_asked_of_the_network(seen: Visit) -> None:
    assert seen.requests == []
    assert seen.console == []  # where the page's own policy would name what it refused


def test_a_request_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "asks.html"
    page.write_text('<!DOCTYPE html><img src="http://example.invalid/x.png">')
    assert visit(page, tmp_path).requests == ["http://example.invalid/x.png"]
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
    page.write_text(f'<!DOCTYPE html>{policy}<img src="http://example.invalid/x.png">')
    refused = visit(page, tmp_path)
    assert refused.requests == []
    assert re.search("example.invalid", "".join(refused.console))


def test_the_tasks_of_a_family_are_drawn(tmp_path: Path) -> None:
    zoo = Zoo([*HOSTILE, "vit"], tasks=["few", "many"], families={"few": 3, "many": 200})
    write_report(zoo.write(tmp_path / "output"), tmp_path / "report.html")
    found = visit(tmp_path / "report.html", tmp_path)
    drawings = Drawings(found.document)
    assert list(drawings.found) == ["matrix-1", "tasks-1", "matrix-2", "tasks-2"]
    assert drawings.found["tasks-1"].count("point") == 3 * 3  # TD, floor and score of each
    assert drawings.found["tasks-2"].count("point") == 3 * 200
    assert "few-001" in drawings.texts["tasks-1"]
    assert "many-001" not in drawings.texts["tasks-2"]
    for text in ("200 tasks, from least to most TD", "mean accuracy (%)", "mean TD (% differ)"):
        assert text in drawings.texts["tasks-2"]
    assert found.console == []


def test_many_models_are_drawn_on_a_phone(tmp_path: Path) -> None:
    results = Zoo(models(400), seeds=1).write(tmp_path / "output")
    write_report(results, tmp_path / "report.html")
    found = visit(tmp_path / "report.html", tmp_path, "500,3000")
    drawings = Drawings(found.document)
    assert drawings.found["matrix-1"].count("hm") == 2
    assert "400 representations, in the same order on both axes" in drawings.texts["matrix-1"]
    assert found.console == []

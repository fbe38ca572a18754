"""Progress: lines for logs, a bar for terminals; both count what failed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from td_ray.sweep import progress
from td_ray.sweep.progress import Bar, Lines, Quiet, Reporter


def report(reporter: Reporter) -> None:
    reporter.say("connecting")
    reporter.stage("heads", 4)
    reporter.advance(2)
    reporter.advance(1, failed=1)
    reporter.samples(3)


def test_lines_come_at_the_start_and_the_end_of_a_stage() -> None:
    stream = io.StringIO()
    with Lines(stream) as reporter:
        report(reporter)
    first, second, last = stream.getvalue().splitlines()
    assert (first, second) == ("connecting", "heads: 4 to do")
    assert last.startswith("heads: 4 of 4, 1 failed, ")


def test_lines_come_now_and_then_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    with Lines(stream) as reporter:
        report(reporter)
    assert "heads: 2 of 4, 0 s, about 0 s left" in stream.getvalue()


def test_the_bar_counts_and_estimates() -> None:
    stream = io.StringIO()
    with Bar(Console(file=stream, force_terminal=True, width=120)) as reporter:
        report(reporter)
    shown = stream.getvalue()
    assert "connecting" in shown
    assert "4/4" in shown
    assert "1 failed" in shown
    assert "left" in shown


def test_samples_are_told_with_their_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with Lines(stream) as lines:
        for _ in range(4):
            now[0] += 4.0
            lines.samples(60)  # 15 a second; told at 12 s
        now[0] += 20.0
        lines.samples(0)  # nothing runs
        now[0] += 20.0
        lines.samples(500)
    assert stream.getvalue().splitlines() == [
        "features: 180 samples, 15 samples/s",
        "features: 240 samples, 2 samples/s",
        "features: 740 samples, 25 samples/s",
    ]


def test_the_bar_shows_a_rate_until_other_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    with Bar(console) as bar:
        monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
        bar.stage("heads", 3)
        bar.samples(5)
        now[0] += 2.0
        bar.samples(5)
        (task,) = bar._progress.tasks
        assert task.fields["note"].endswith(" samples/s")
        bar.advance(0, failed=1)
        assert task.fields["note"] == "1 failed"


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    report(Quiet())
    assert capsys.readouterr() == ("", "")

"""A sweep whose driver, worker, cache actor and node are killed ends as if nobody had."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

CHAOS = Path(__file__).parent.parent / "jobs/chaos.py"


def test_kills_at_random_cost_nothing_that_was_finished() -> None:
    command = [sys.executable, str(CHAOS), "--rounds", "4", "--models", "10", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=560)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(ran.stdout)
    assert found["kills"] == {"driver": 1, "worker": 1, "cache": 1, "node": 1}
    assert found["units"] >= found["sweeps"] * 10 * (2 * 2 + 1)  # heads, and features
    assert (found["lost"], found["redone"], found["repeated"]) == (0, 0, 0)
    assert found["differing"] == []
    assert set(found["ends"]) == {"0"}

"""The store that tests of the feature cache write into."""

from __future__ import annotations

from pathlib import Path

import pytest

from td_ray.features import FeatureStore


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path, 10**9)

"""What all tests share: a cache of their own, one Ray, and the demo run through it once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from small_zoo import write_zoo

from td_ray.results.tables import Results

settings.register_profile("td_ray", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("td_ray")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of two processes one has all tests that need Ray: two Rays at once starve each other.

    But those of Slurm, which mostly wait, so that both have about as much to do.
    """
    for item in items:
        is_marked = item.get_closest_marker("ray") and not item.get_closest_marker("slurm")
        needs_ray = is_marked or "ray_session" in getattr(item, "fixturenames", ())
        group = "ray" if needs_ray else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache that no other session has touched."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("TD_RAY_CACHE")
    os.environ["TD_RAY_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["TD_RAY_CACHE"]
    else:
        os.environ["TD_RAY_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def workers_wait_for_nobody() -> Iterator[None]:
    """Ray's workers give way to other processes, such as those of other tests; here they do not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        yield


@pytest.fixture(scope="session", autouse=True)
def credentials() -> Iterator[None]:
    """Of an object store; workers have them from the Ray that all tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-from-all")
        yield


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A folder with a small zoo of feature arrays."""
    write_zoo(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def ray_session(
    cache_folder: Path, credentials: None, workers_wait_for_nobody: None
) -> Iterator[None]:
    """One Ray for all tests that need it, started by the code that users start it with."""
    from td_ray.sweep.connection import connected

    with connected(None):
        yield


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="session")
def demo(demo_folder: Path, ray_session: None) -> Results:
    """The embedded default, trained and compared through Ray."""
    from td_ray.demo import run_demo

    return run_demo(demo_folder)

"""Outputs and caches in an object store: a real S3 protocol, throttled, and cut off in a write."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from faulty_s3 import BUCKET, S3, s3_server
from small_zoo import experiment, planned, write_zoo
from typer.testing import CliRunner

from td_ray.cli import app
from td_ray.errors import InputError
from td_ray.features import FeatureStore
from td_ray.report import write_report
from td_ray.results.tables import Results, open_results
from td_ray.spec import Experiment
from td_ray.storage import held, open_folder
from td_ray.sweep import run
from td_ray.work.extracting import open_from_store

TABLES = ("models", "tasks", "samples", "heads", "predictions", "pairs", "comparisons", "failures")
MIB = 2**20


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as found:
        yield found


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The server, named by the environment as on anybody's machine."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    server.faults.throttle = server.faults.cut = server.faults.requests = 0
    server.faults.written.clear()
    yield server
    server.faults.throttle = server.faults.cut = 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The results on a disk."""
    folder = tmp_path_factory.mktemp("disk")
    write_zoo(folder)
    return run(experiment(folder), backend="inline")


def same(one: Results, other: Results) -> None:
    for name in TABLES:
        file = f"results/{name}/{name}.parquet"
        assert one.output.read(file) == other.output.read(file), name


def on(zoo: Path, url: str, **resources: str) -> Experiment:
    return experiment(zoo, output=url, resources=resources)


def test_a_run_leaves_the_same_bytes_as_on_a_disk(
    zoo: Path, s3: S3, undisturbed: Results, tmp_path: Path
) -> None:
    url = f"s3://{BUCKET}/whole"
    wanted = on(zoo, url)
    results = run(wanted, backend="inline")
    same(results, undisturbed)
    parts = [path for path in s3.faults.written if "/whole/parts/" in path and ".parquet" in path]
    assert len(parts) == 8 + 2
    assert all(s3.faults.written[path] == 1 for path in parts)  # one PUT each
    assert not [name for name in wanted.output_folder.names() if name.startswith(".")]
    # read back by its address alone
    assert open_results(url).matrix("species").to_pandas().shape == (4, 4)
    assert len(open_results(url).row("net-2", "species")) == 3
    assert write_report(open_results(url)) == f"{url}/report.html"
    local = write_report(undisturbed, tmp_path / "page.html")
    assert len(open_folder(url).read("report.html")) > 0.9 * Path(local).stat().st_size
    runner = CliRunner()
    said = runner.invoke(app, ["status", url, "--json"])
    assert json.loads(said.output)["finished"] == 8
    assert "net-3" in runner.invoke(app, ["matrix", url, "--task", "species"]).output
    # growth: one part for each of the new model's tasks, and two tiles
    s3.faults.written.clear()
    write_zoo(zoo, models=5)
    assert len(run(wanted, backend="inline").models()) == 5
    parts = [path for path in s3.faults.written if "/parts/" in path and ".parquet" in path]
    assert len(parts) == 2 + 2
    for name in wanted.output_folder.stamps(""):
        assert b"hidden-from-all" not in wanted.output_folder.read(name), name


def test_a_throttled_store_is_asked_again(zoo: Path, s3: S3, undisturbed: Results) -> None:
    s3.faults.throttle = 10
    same(run(on(zoo, f"s3://{BUCKET}/throttled"), backend="inline"), undisturbed)
    assert s3.faults.throttled > 5


def test_a_write_that_is_cut_off_is_made_again(zoo: Path, s3: S3, undisturbed: Results) -> None:
    wanted = on(zoo, f"s3://{BUCKET}/cut")
    s3.faults.cut = 2
    same(run(wanted, backend="inline"), undisturbed)
    assert s3.faults.cut == 0


def test_a_write_that_never_gets_through_leaves_no_object(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a small object, which is one PUT, nor a large one, which is an upload of several."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    folder = open_folder(f"s3://{BUCKET}/never?region=us-east-1")
    for name, content in (("small", b"x" * 1000), ("large", os.urandom(24 * MIB))):
        s3.faults.cut = 10**6
        with pytest.raises(OSError, match=name):
            folder.write(name, content)
        s3.faults.cut = 0
        assert folder.stamp(name) is None
        folder.write(name, content)
        assert folder.read(name) == content


def test_a_run_whose_store_goes_away_is_gone_on_with(
    zoo: Path, s3: S3, undisturbed: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    wanted = on(zoo, f"s3://{BUCKET}/away")
    s3.faults.throttle = 1  # from the first write on
    with pytest.raises((OSError, InputError)):
        run(wanted, backend="inline")
    s3.faults.throttle = 0
    same(run(wanted, backend="inline"), undisturbed)


def test_what_one_machine_has_extracted_others_fetch(zoo: Path, s3: S3) -> None:
    cache = f"s3://{BUCKET}/cache"
    wanted = experiment(zoo, resources={"cache": cache})
    first = FeatureStore(zoo / "one", 10**9, open_folder(cache))
    second = FeatureStore(zoo / "two", 10**9, open_folder(cache))
    extracted: list[int] = []
    blocks = planned(wanted).blocks
    key = next(iter(blocks[0].feature_keys))
    data = planned(wanted).problem.data["points"]
    here = open_from_store(blocks[0].passes, wanted, first, extracted.append)(key, data)
    there = open_from_store(blocks[0].passes, wanted, second, extracted.append)(key, data)
    pd.testing.assert_frame_equal(pd.DataFrame(here), pd.DataFrame(there))
    assert sum(extracted) == 120
    assert first.shared_keys() == {key}
    # a damaged object is not trusted, and written anew
    shared = open_folder(cache)
    name = f"features/{key}/features.npy"
    content = bytearray(shared.read(name))
    content[-1] ^= 1
    shared.write(name, bytes(content))
    third = FeatureStore(zoo / "three", 10**9, shared)
    open_from_store(blocks[0].passes, wanted, third, extracted.append)(key, data)
    assert sum(extracted) == 240
    assert FeatureStore(zoo / "four", 10**9, shared).valid(key)


def test_a_folder_in_use_is_refused(zoo: Path, s3: S3) -> None:
    wanted = on(zoo, f"s3://{BUCKET}/held")
    with (
        held(wanted.output_folder, print),
        pytest.raises(InputError, match=rf"s3://{BUCKET}/held is in use by another run \(pid"),
    ):
        run(wanted, backend="inline")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://nowhere/out", "no such bucket; create it"),
        ("s3://key:secret@results/out", "credentials do not belong in an address"),
        ("s3://results/out?regoin=us-east-1", "no option is called 'regoin'"),
        ("s4://results/out", "cannot be opened"),
    ],
)
def test_addresses_that_cannot_be(zoo: Path, s3: S3, place: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        run(on(zoo, place), backend="inline")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.ray
def test_workers_write_to_it_too(
    zoo: Path, s3: S3, undisturbed: Results, ray_session: None
) -> None:
    options = f"endpoint_override={s3.endpoint.removeprefix('http://')}&scheme=http"
    output, cache = (f"s3://{BUCKET}/{name}?{options}" for name in ("ray", "ray-cache"))
    same(run(on(zoo, output, cache=cache)), undisturbed)
    assert len(open_folder(cache).stamps("features")) == 2 * 4


def test_any_store_that_fsspec_knows(zoo: Path, undisturbed: Results) -> None:
    same(run(on(zoo, "memory://any/store"), backend="inline"), undisturbed)
    assert open_results("memory://any/store").failures().empty

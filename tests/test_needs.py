"""What is downloaded before a run: whole files, by their hash, from a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from td_ray import cli
from td_ray.errors import RunError
from td_ray.files import sha256
from td_ray.needs import NeededFile

WEIGHTS = b"weights" * 1000


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server on this machine that has the weights."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "net.pth").write_bytes(WEIGHTS)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/net.pth"
        server.shutdown()
        thread.join()


def needed(tmp_path: Path, address: str, digits: str = "") -> NeededFile:
    return NeededFile("weights of 'net'", address, tmp_path / "cache/net.pth", digits)


def test_a_file_is_fetched_whole(tmp_path: Path, address: str) -> None:
    digits = sha256(tmp_path / "served/net.pth")[:8]
    each = needed(tmp_path, address, digits)
    assert not each.is_there
    each.fetch()
    assert each.is_there
    assert each.damage() is None
    assert each.path.read_bytes() == WEIGHTS


def test_other_bytes_than_promised_are_not_kept(tmp_path: Path, address: str) -> None:
    each = needed(tmp_path, address, "00000000")
    with pytest.raises(RunError, match=r"^weights of 'net' could not be had .* by hand at .*net"):
        each.fetch()
    assert not each.is_there
    assert list(each.path.parent.iterdir()) == []


def test_a_truncated_file_is_found(tmp_path: Path, address: str) -> None:
    each = needed(tmp_path, address, sha256(tmp_path / "served/net.pth")[:8])
    each.fetch()
    each.path.write_bytes(WEIGHTS[:-1])
    assert "is damaged: its SHA-256 starts with" in str(each.damage())


@pytest.mark.parametrize("path", ["nothing.pth", "net.pth"])
def test_what_cannot_be_had_says_where_it_may_be_put(
    tmp_path: Path, address: str, path: str
) -> None:
    where = address.replace("net.pth", path)
    if path == "net.pth":
        where = "http://127.0.0.1:9/net.pth"  # nobody listens
    with pytest.raises(RunError) as caught:
        needed(tmp_path, where).fetch()
    assert where in str(caught.value)
    assert "cache/net.pth" in str(caught.value)


EXPERIMENT = """
models: [{source: torchvision, builder: mobilenet_v2, weights: IMAGENET1K_V1}]
data: [{name: digits, source: sklearn, dataset: digits}]
tasks: [{name: digit, data: digits, target: label}]
"""


def test_prefetch_says_what_remedy_and_a_run_spends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("TD_RAY_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT)
    said = CliRunner().invoke(cli.app, ["prefetch", str(file), "--check"])
    assert said.exit_code == 1
    assert "weights of 'mobilenet_v2-IMAGENET1K_V1': no file at" in said.output
    assert "0 of 1 were there already" in said.output
    run = CliRunner().invoke(cli.app, ["run", str(file)])
    assert "td-ray prefetch" in str(run.exception)
    assert not (tmp_path / "output").exists()

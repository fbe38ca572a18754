"""What is fetched from a hub, once: a real server on this machine that speaks as the hub does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_transformers import save_bert, texts

from td_ray import yaml_files
from td_ray.results.tables import open_results

pytest.importorskip("datasets")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".parquet")
"""Files that a hub keeps apart and names by their SHA-256; others git names."""


class Hub(ThreadingHTTPServer):
    """Repositories in a folder: ``models/tiny/bert`` is the model ``tiny/bert``.

    Attributes:
        downloads: paths of the files that were sent.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder = folder
        self.downloads: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    """What the hub's library asks for: a repository's commit, its files, and their bytes."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._file(with_bytes=False)

    def do_GET(self) -> None:
        asked = re.fullmatch(
            r"/api/(models|datasets)/(\w+/\w+)/(revision|tree)/(\w+)(\?.*)?", self.path
        )
        if not asked:
            self._file(with_bytes=True)
            return
        kind, repository, what, commit, _ = asked.groups()
        root = self.server.folder / kind / repository
        if commit != COMMIT or not root.is_dir():
            self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"")
            return
        files = sorted(path for path in root.rglob("*") if path.is_file())
        tree = [
            {
                "type": "file",
                "path": str(path.relative_to(root)),
                "size": path.stat().st_size,
                "oid": git_digest(path.read_bytes()),
            }
            for path in files
        ]
        siblings = [{"rfilename": each["path"]} for each in tree]
        answer = {"id": repository, "sha": COMMIT, "siblings": siblings, "private": False}
        content = json.dumps(tree if what == "tree" else answer).encode()
        self._send(200, {"Content-Type": "application/json"}, content)

    def _file(self, *, with_bytes: bool) -> None:
        asked = re.fullmatch(rf"/(datasets/)?(\w+/\w+)/resolve/{COMMIT}/([\w./-]+)", self.path)
        kind = "datasets" if asked and asked[1] else "models"
        path = self.server.folder / kind / asked[2] / asked[3] if asked else Path("none")
        if not path.is_file():
            self._send(404, {"X-Error-Code": "EntryNotFound"}, b"")
            return
        content = path.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{git_digest(content)}"'}
        if path.suffix in LARGE:
            digest = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        if with_bytes:
            self.server.downloads.append(self.path)
        self._send(200, headers, content, with_bytes=with_bytes)

    def _send(
        self, code: int, headers: dict[str, str], content: bytes, *, with_bytes: bool = True
    ) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_bytes:
            self.wfile.write(content)

    def log_message(self, *words: Any) -> None:
        """Nothing."""


def git_digest(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with weights in two formats, and a data set of texts."""
    folder = tmp_path_factory.mktemp("hub")
    model = folder / "models/tiny/bert"
    save_bert(model)
    (model / "pytorch_model.bin").write_bytes(b"the same weights, never fetched")
    (model / "onnx").mkdir()
    (model / "onnx/model.onnx").write_bytes(b"and again")
    (model / "README.md").write_text("about")
    data = folder / "datasets/tiny/reviews/data"
    data.mkdir(parents=True)
    table = pd.DataFrame({"text": texts(80), "label": np.arange(80) % 2})
    table[:50].to_parquet(data / "train-00000-of-00001.parquet")
    table[50:].to_parquet(data / "test-00000-of-00001.parquet")
    return folder


@pytest.fixture
def hub(repositories: Path) -> Iterator[Hub]:
    with Hub(repositories) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with an experiment that names both repositories."""
    content = {
        "models": [{"source": "huggingface", "model": "tiny/bert", "revision": COMMIT}],
        "data": [
            {
                "name": "reviews",
                "source": "huggingface",
                "dataset": "tiny/reviews",
                "revision": COMMIT,
                "inputs": "text",
            }
        ],
        "tasks": [{"name": "label", "data": "reviews", "target": "label"}],
        "seeds": 0,
        "resources": {"cache": str(tmp_path / "cache")},
    }
    (tmp_path / "zoo.yaml").write_text(yaml_files.write(content))
    return tmp_path


def td_ray(home: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, with a hub and a cache of its own; both are read when the library starts."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": url,
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [sys.executable, "-c", "from td_ray.cli import main; main()", *words]
    return subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, check=False
    )


def blob_of(home: Path, name: str) -> Path:
    (link,) = (home / "huggingface/hub").glob(f"*/snapshots/*/{name}")
    return link.resolve()


def test_a_run_finds_offline_what_prefetch_fetched(home: Path, hub: Hub) -> None:
    missing = td_ray(home, hub.url, "plan", "zoo.yaml")
    assert missing.returncode == 2
    assert f"{hub.url}/datasets/tiny/reviews/tree/{COMMIT}" in missing.stderr
    assert "'td-ray prefetch' fetches it" in missing.stderr
    assert hub.downloads == []  # a plan never downloads

    fetched = td_ray(home, hub.url, "prefetch", "zoo.yaml")
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout.strip() == "0 of 2 were there already"
    names = [path.rsplit("/", 1)[1] for path in hub.downloads]
    assert "model.safetensors" in names
    assert not {"pytorch_model.bin", "model.onnx", "README.md"} & set(names)
    count = len(names)
    again = td_ray(home, hub.url, "prefetch", "zoo.yaml")
    assert again.stdout.strip() == "2 of 2 were there already"
    assert len(hub.downloads) == count

    nowhere = "http://127.0.0.1:9"
    checked = td_ray(home, nowhere, "prefetch", "zoo.yaml", "--check")
    assert (checked.returncode, checked.stderr) == (0, "")
    ran = td_ray(home, nowhere, "run", "zoo.yaml", "--backend", "inline")
    assert ran.returncode == 0, ran.stderr
    heads = open_results(home / "output").heads()
    assert len(heads) == 1
    assert len(hub.downloads) == count


def test_a_damaged_file_is_found_by_its_digest(home: Path, hub: Hub) -> None:
    assert td_ray(home, hub.url, "prefetch", "zoo.yaml").returncode == 0
    for name, kept in (("model.safetensors", 100), ("config.json", 20)):
        blob = blob_of(home, name)
        whole = blob.read_bytes()
        blob.write_bytes(whole[:kept])
        checked = td_ray(home, hub.url, "prefetch", "zoo.yaml", "--check")
        assert checked.returncode == 1
        assert f"{name} is damaged" in checked.stderr
        assert str(blob.name) in checked.stderr
        blob.write_bytes(whole)
    assert td_ray(home, hub.url, "prefetch", "zoo.yaml", "--check").returncode == 0
    blob_of(home, "model.safetensors").unlink()
    missing = td_ray(home, hub.url, "plan", "zoo.yaml")
    assert missing.returncode == 2
    assert "tiny/bert is not whole in" in missing.stderr
    assert td_ray(home, hub.url, "prefetch", "zoo.yaml").returncode == 0
    assert td_ray(home, hub.url, "plan", "zoo.yaml").returncode == 0


def test_without_a_connection_the_error_says_where_to_place_what(home: Path) -> None:
    failed = td_ray(home, "http://127.0.0.1:9", "prefetch", "zoo.yaml")
    assert failed.returncode == 1
    (line,) = [each for each in failed.stderr.splitlines() if "could not be had" in each]
    assert f"http://127.0.0.1:9/datasets/tiny/reviews/tree/{COMMIT}" in line
    assert str(home / "huggingface/hub/datasets--tiny--reviews/snapshots" / COMMIT) in line
    assert "Traceback" not in failed.stderr


MNIST = """
import sys
from torchvision.datasets import MNIST
from td_ray.cli import main
MNIST.mirrors = [sys.argv[1]]
MNIST.resources = [tuple(each.split(":")) for each in sys.argv[2].split(",")]
sys.argv = ["td-ray", *sys.argv[3:]]
main()
"""


def write_idx(folder: Path) -> dict[str, str]:
    """A tiny MNIST, packed; returns the MD5 sums of its files."""
    import gzip

    sums = {}
    for part, n in (("train", 60), ("t10k", 30)):
        images = np.random.default_rng(n).integers(0, 255, (n, 28, 28), np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim])
            header += b"".join(size.to_bytes(4, "big") for size in array.shape)
            content = gzip.compress(header + array.tobytes(), mtime=0)
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(content)
            sums[f"{part}-{name}-ubyte.gz"] = hashlib.md5(content).hexdigest()
    return sums


def test_torchvision_downloads_and_checks_its_own_files(hub: Hub, tmp_path: Path) -> None:
    served = hub.folder / "models/tiny/digits"
    served.mkdir(exist_ok=True)
    sums = write_idx(served)
    content = {
        "models": [{"source": "predictions", "path": "p.npy"}],
        "data": [
            {"name": "digits", "source": "torchvision", "dataset": "MNIST", "root": "data"},
        ],
        "tasks": [{"name": "digit", "data": "digits", "target": "label"}],
    }
    (tmp_path / "zoo.yaml").write_text(yaml_files.write(content))
    np.save(tmp_path / "p.npy", np.zeros(30, dtype=int))

    def prefetch(sums: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
        resources = ",".join(f"{name}:{md5}" for name, md5 in sums.items())
        mirror = f"{hub.url}/tiny/digits/resolve/{COMMIT}/"
        command = [sys.executable, "-c", MNIST, mirror, resources, "prefetch", "zoo.yaml", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    absent = prefetch(sums, "--check")
    assert absent.returncode == 1
    assert str(tmp_path / "data/MNIST/raw") in absent.stdout
    wrong = prefetch({**sums, "t10k-labels-idx1-ubyte.gz": "0" * 32})
    assert wrong.returncode == 1
    assert "could not be had from" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert prefetch(sums).returncode == 0
    assert prefetch(sums, "--check").returncode == 0
    assert (tmp_path / "data/MNIST/raw/train-images-idx3-ubyte").is_file()
    plain = tmp_path / "data/MNIST/raw/train-images-idx3-ubyte"
    plain.write_bytes(plain.read_bytes()[:-5] + b"other")
    damaged = prefetch(sums, "--check")
    assert damaged.returncode == 1
    assert "is not what train-images-idx3-ubyte.gz holds" in damaged.stderr

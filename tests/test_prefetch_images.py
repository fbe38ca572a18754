"""torchvision's data sets: its own downloader and MD5 sums, with a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets
from typer.testing import CliRunner, Result

from td_ray import cli
from td_ray.errors import InputError, RunError

EXPERIMENT = """
models: [{source: features, path: "features/*.npz"}]
data: [{name: fashion, source: torchvision, dataset: FashionMNIST, root: data}]
tasks: [{name: kind, data: fashion, target: label}]
seeds: 1
"""

SIZES = {"train": 30, "t10k": 10}


def idx(array: np.ndarray[Any, Any]) -> bytes:
    """An array in MNIST's own format, packed."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small FashionMNIST on a server, which the library takes for the mirror of its own.

    Its addresses and its MD5 sums are changed, since the real ones are of 30 MB on another
    machine. All that downloads, checks and unpacks is the library's.
    """
    served = tmp_path / "served"
    served.mkdir()
    random = np.random.default_rng(0)
    for part, n in SIZES.items():
        images = random.integers(0, 256, (n, 28, 28))
        (served / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (served / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(n) % 3))
    sums = [(p.name, hashlib.md5(p.read_bytes()).hexdigest()) for p in sorted(served.iterdir())]
    features = tmp_path / "features"
    features.mkdir()
    ids = [f"{p}-{row:05d}" for p, n in (("train", 30), ("test", 10)) for row in range(n)]
    for name in ("a", "b"):
        values = random.normal(size=(40, 4)).astype(np.float32)
        np.savez(features / f"{name}.npz", id=np.array(ids), features=values)
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    monkeypatch.setenv("TD_RAY_CACHE", str(tmp_path / "cache"))
    handler = partial(SimpleHTTPRequestHandler, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        mirror = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [mirror])
        monkeypatch.setattr(datasets.FashionMNIST, "resources", sums)
        yield tmp_path
        server.shutdown()
        thread.join()


def td_ray(folder: Path, *words: str) -> Result:
    command = [words[0], str(folder / "experiment.yaml"), *words[1:]]
    return CliRunner().invoke(cli.app, command)


def test_fetched_checked_and_run(folder: Path) -> None:
    planned = td_ray(folder, "plan")
    assert isinstance(planned.exception, InputError)
    raw = folder / "data/FashionMNIST/raw"
    message = str(planned.exception)
    assert (
        f"data set 'fashion': the files of torchvision's FashionMNIST are not whole in {raw}"
        in (message)
    )
    assert "'td-ray prefetch' fetches it from http://127.0.0.1:" in message
    checked = td_ray(folder, "prefetch", "--check")
    assert checked.exit_code == 1
    assert checked.output.splitlines() == [message, "0 of 1 were there already"]
    assert not (folder / "data").exists()  # neither of them fetches
    fetched = td_ray(folder, "prefetch")
    assert fetched.exit_code == 0, fetched.output
    assert (raw / "train-images-idx3-ubyte").stat().st_size == 16 + 30 * 28 * 28
    again = td_ray(folder, "prefetch", "--check")
    assert (again.exit_code, again.output) == (0, "1 of 1 were there already\n")
    run = td_ray(folder, "run", "--backend", "inline")
    assert run.exit_code == 0, run.output


def test_other_bytes_than_the_library_promises_are_not_taken(folder: Path) -> None:
    (folder / "served/t10k-images-idx3-ubyte.gz").write_bytes(idx(np.zeros((10, 28, 28))))
    said = td_ray(folder, "prefetch")
    assert isinstance(said.exception, RunError)
    message = str(said.exception)
    assert re.match(
        r"data set 'fashion' could not be had from http://127\S+, .*: Error downloading "
        r"t10k-images-idx3-ubyte\.gz: .*File not found or corrupted.*; try again with a connection",
        message,
    )
    assert message.endswith(f"or place its files by hand in {folder / 'data/FashionMNIST/raw'}")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte.gz"])
@pytest.mark.parametrize("change", ["truncated", "flipped"])
def test_damage_is_found(folder: Path, name: str, change: str) -> None:
    assert td_ray(folder, "prefetch").exit_code == 0
    raw = folder / "data/FashionMNIST/raw"
    path = raw / name
    whole = path.read_bytes()
    last = whole[:-1] if change == "truncated" else bytes([*whole[:-1], whole[-1] ^ 1])
    path.write_bytes(last)
    checked = td_ray(folder, "prefetch", "--check")
    assert checked.exit_code == 1
    if change == "truncated" and path.suffix == "":  # the library itself cannot read it
        assert "are not whole" in checked.output
    else:
        message = str(checked.exception)
        assert name in message
        assert "delete both, and 'td-ray prefetch' fetches it again" in message
        path.unlink()
        path.with_suffix("").unlink(missing_ok=True)
    assert td_ray(folder, "prefetch").exit_code == 0
    assert path.read_bytes() == whole
    assert td_ray(folder, "prefetch", "--check").exit_code == 0


def test_a_truncated_packed_file_beside_a_whole_one_is_left_to_the_library(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert td_ray(folder, "prefetch").exit_code == 0
    raw = folder / "data/FashionMNIST/raw"
    packed = raw / "train-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    plain = packed.with_suffix("").read_bytes()
    (raw / "t10k-labels-idx1-ubyte").unlink()
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens
    assert td_ray(folder, "prefetch").exit_code == 1
    assert packed.with_suffix("").read_bytes() == plain


def test_files_that_are_packed_anew_are_right(folder: Path) -> None:
    """Debian's package of FashionMNIST has other MD5 sums than the library's mirror."""
    raw = folder / "data/FashionMNIST/raw"
    raw.mkdir(parents=True)
    for path in (folder / "served").iterdir():
        content = gzip.decompress(path.read_bytes())
        (raw / path.name).write_bytes(gzip.compress(content, compresslevel=1, mtime=1))
        assert (raw / path.name).read_bytes() != path.read_bytes()
        path.unlink()  # nothing can be fetched
    checked = td_ray(folder, "prefetch", "--check")
    assert (checked.exit_code, checked.output) == (0, "1 of 1 were there already\n")
    assert td_ray(folder, "prefetch").exit_code == 0


def test_the_librarys_own_integrity_check(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SVHN checks MD5 sums whenever it is opened."""
    from scipy.io import savemat

    from td_ray.tasks.torchvision_files import NeededImages

    mirror = datasets.FashionMNIST.mirrors[0]
    known = {}
    for part, n in (("train", 6), ("test", 4)):
        path = folder / f"served/{part}_32x32.mat"
        images = np.zeros((32, 32, 3, n), dtype=np.uint8)
        savemat(path, {"X": images, "y": np.arange(n)[:, None] % 3 + 1})
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        known[part] = [mirror + path.name, path.name, md5]
    monkeypatch.setattr(datasets.SVHN, "split_list", known)
    images_of = NeededImages("data set 'house'", "SVHN", tmp_path / "svhn", ("train", "test"))
    assert mirror in images_of.remedy
    images_of.fetch()
    assert images_of.lack() is None
    path = tmp_path / "svhn/test_32x32.mat"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert "not found or corrupted" in str(images_of.lack())
    images_of.fetch()
    assert path.read_bytes() == whole

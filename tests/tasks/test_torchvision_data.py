"""torchvision's data sets from files on disk; with real ones where apt can get them."""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from td_ray.errors import InputError, WorkError
from td_ray.files import DigestMemory
from td_ray.tasks.dataset import DataSet
from td_ray.tasks.torchvision_data import TorchvisionData

N_TRAIN, N_TEST = 12, 5


def source(**options: Any) -> TorchvisionData:
    values = {
        "source": "torchvision",
        "name": "fashion",
        "dataset": "FashionMNIST",
        "root": "data",
        **options,
    }
    return TorchvisionData.model_validate(values)


def load(folder: Path, **options: Any) -> DataSet:
    return source(**options).load(folder, folder / "cache")


def idx(array: NDArray[np.uint8]) -> bytes:
    """An array in MNIST's own format."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write_idx(folder: Path, packed: bool = False, name: str = "FashionMNIST") -> None:
    raw = folder / "data" / name / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for prefix, n in (("train", N_TRAIN), ("t10k", N_TEST)):
        images = np.arange(n * 28 * 28, dtype=np.uint32).reshape(n, 28, 28).astype(np.uint8)
        images[:, 0, 0] = np.arange(n)
        for what, array in (("images-idx3", images), ("labels-idx1", np.arange(n) % 3)):
            content = idx(array.astype(np.uint8))
            path = raw / f"{prefix}-{what}-ubyte"
            if packed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)


@pytest.mark.parametrize("packed", [False, True])
def test_labels_parts_and_images(tmp_path: Path, packed: bool) -> None:
    write_idx(tmp_path, packed)
    data = load(tmp_path)
    assert data.n == N_TRAIN + N_TEST
    assert data.ids.tolist()[N_TRAIN - 1 : N_TRAIN + 1] == ["train-00011", "test-00000"]
    assert data.evaluation.sum() == N_TEST
    assert data.column("label", "task").tolist()[:4] == [0, 1, 2, 0]
    assert data.column("label_name", "task").tolist()[:2] == ["T-shirt/top", "Trouser"]
    block = data.inputs[N_TRAIN - 2 : N_TRAIN + 2]
    assert isinstance(block, np.ndarray)
    assert block.shape == (4, 28, 28)
    assert block.dtype == np.uint8
    assert block[:, 0, 0].tolist() == [10, 11, 0, 1]
    again = pickle.loads(pickle.dumps(data.inputs))
    assert np.array_equal(again[0:3], data.inputs[0:3])


def test_images_of_several_sizes(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        for number, label in enumerate(("negative", "positive")):
            path = (
                tmp_path / f"data/rendered-sst2/{'valid' if part == 'val' else part}/{label}/1.png"
            )
            path.parent.mkdir(parents=True)
            Image.new("RGBA", (4 + number, 3), (number, 2, 3, 255)).save(path)
    data = load(tmp_path, dataset="RenderedSST2", parts=["train", "val"], split={"test": 0.5})
    assert data.ids.tolist() == ["train-00000", "train-00001", "val-00000", "val-00001"]
    assert data.column("label", "task").tolist() == [0, 1, 0, 1]
    block = data.inputs[0:2]
    assert isinstance(block, list)
    assert [image.shape for image in block] == [(3, 4, 3), (3, 5, 3)]
    with pytest.raises(InputError, match=r"RenderedSST2 has no part 'dev'.*name its 'parts'"):
        load(tmp_path, dataset="RenderedSST2", parts=["train", "dev"])
    (tmp_path / "data/rendered-sst2/test/positive/1.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"data cannot be read: .*test/positive/1\.png"):
        load(tmp_path, dataset="RenderedSST2")


def test_a_damaged_image(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in ("negative", "positive"):
            for number in range(3):
                path = tmp_path / f"data/rendered-sst2/{part}/{label}/{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (4, 3), number).save(path)
    (tmp_path / "data/rendered-sst2/train/negative/1.png").write_bytes(b"x")
    inputs = load(tmp_path, dataset="RenderedSST2").inputs
    assert len(inputs[6:10]) == 4
    with pytest.raises(WorkError, match=r"sample train-0000\d cannot be decoded: cannot identify"):
        _ = inputs[0:6]


def test_the_second_time_does_not_import_the_library(tmp_path: Path) -> None:
    write_idx(tmp_path)
    load(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from td_ray.tasks.torchvision_data import TorchvisionData\n"
        "s = TorchvisionData(source='torchvision', name='d', dataset='FashionMNIST', root='data')\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "assert s.load(folder, folder / 'cache').n == 17\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    write_idx(tmp_path)
    digest = DigestMemory(tmp_path / "cache").computed
    before = source().inputs_identity(tmp_path, digest)
    assert load(tmp_path).inputs[0:1][0][0, 0] == 0
    raw = tmp_path / "data/FashionMNIST/raw"
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(np.full(N_TRAIN, 7, dtype=np.uint8)))
    images = np.full((N_TRAIN, 28, 28), 5, dtype=np.uint8)
    (raw / "train-images-idx3-ubyte").write_bytes(idx(images))
    data = load(tmp_path)
    assert data.column("label", "task")[0] == 7
    assert data.inputs[0:1][0][0, 0] == 5
    assert source().inputs_identity(tmp_path, digest) != before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, r"'fashion': .* torchvision's FashionMNIST are not whole in .*raw \(.*"
             r"'td-ray prefetch' fetches it from http.*train-images-idx3-ubyte\.gz.* by hand"),
        ({"dataset": "CIFAR10"}, r"CIFAR10 are not whole .*fetches it from https.*cifar-10-python"),
        ({"dataset": "Food101"}, r"Food101 are not whole in .*fetches it from http.*food-101"),
        ({"dataset": "FashonMNIST"}, r"no data set 'FashonMNIST' .* did you mean 'FashionMNIST'"),
        ({"dataset": "SVHN"}, r"SVHN are not whole in .*fetches it from http.*train_32x32\.mat"),
        ({"parts": ["val", "test"]}, r"FashionMNIST has no part 'val': known: test, train"),
    ],
)  # fmt: skip
def test_what_is_not_there(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load(tmp_path, **options)
    assert not (tmp_path / "data").exists()


def test_a_damaged_archive(tmp_path: Path) -> None:
    write_idx(tmp_path, packed=True)
    path = tmp_path / "data/FashionMNIST/raw/train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"cannot unpack train-images-idx3-ubyte\.gz: .*prefetch"):
        load(tmp_path)
    assert not path.with_suffix("").exists()


@pytest.mark.packages
def test_fashion_mnist(tmp_path: Path) -> None:
    subprocess.run(["apt-get", "download", "dataset-fashion-mnist"], cwd=tmp_path, check=True)
    (archive,) = tmp_path.glob("dataset-fashion-mnist*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, tmp_path], check=True)
    raw = tmp_path / "data/FashionMNIST/raw"
    raw.parent.mkdir(parents=True)
    (tmp_path / "usr/share/datasets/fashion-mnist").rename(raw)
    data = load(tmp_path, stratify="label")
    assert (data.training.sum(), data.evaluation.sum()) == (60_000, 10_000)
    assert np.bincount(data.column("label", "task")).tolist() == [7_000] * 10
    assert data.column("label_name", "task")[0] == "Ankle boot"
    assert round(float(np.mean(data.inputs[0:60_000])), 1) == 72.9  # as is published: 0.2860 of 255
    small = load(tmp_path, stratify="label", subset=700)
    assert small.evaluation.sum() == 100
    assert len(small.inputs[0:700]) == 700

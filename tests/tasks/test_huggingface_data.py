"""Data sets of the Hugging Face library, from folders that the library itself has written."""

from __future__ import annotations

import pickle
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from td_ray.errors import InputError, WorkError
from td_ray.files import DigestMemory
from td_ray.tasks.dataset import DataSet
from td_ray.tasks.huggingface_data import HuggingFaceData

COMMIT = "0123456789" * 4


def source(**options: Any) -> HuggingFaceData:
    values = {"source": "huggingface", "name": "reviews", "dataset": "saved", **options}
    return HuggingFaceData.model_validate(values)


def load(folder: Path, **options: Any) -> DataSet:
    return source(**options).load(folder, folder / "cache")


def reviews(n: int, word: str) -> datasets.Dataset:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "stars": datasets.Value("float32"),
        }
    )
    rows = range(n)
    content = {
        "text": [f"{word} {row}" for row in rows],
        "label": [row % 2 for row in rows],
        "stars": [row / 2 for row in rows],
    }
    return datasets.Dataset.from_dict(content, features=features)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    parts = {"train": reviews(6, "train"), "test": reviews(3, "test"), "more": reviews(2, "more")}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    return tmp_path


def test_saved_to_disk(saved: Path) -> None:
    data = load(saved, inputs="text")
    assert data.ids.tolist()[4:8] == ["train-00004", "train-00005", "test-00000", "test-00001"]
    assert (data.training.sum(), data.evaluation.sum()) == (6, 3)
    assert data.column("label", "task").tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert data.column("label_name", "task").tolist()[:2] == ["bad", "good"]
    assert data.column("stars", "task").tolist()[:2] == [0.0, 0.5]
    assert data.inputs[5:8] == ["train 5", "test 0", "test 1"]
    assert len(data.inputs) == 9
    assert pickle.loads(pickle.dumps(data.inputs))[0:1] == ["train 0"]
    small = load(saved, inputs="text", subset=6)
    assert (small.training.sum(), small.evaluation.sum()) == (4, 2)
    other = load(saved, inputs="text", parts=["more", "test"], split={"test": 0.4})
    assert other.inputs[0:3] == ["more 0", "more 1", "test 0"]


def write_parquet(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    reviews(4, "train").to_parquet(str(folder / "train.parquet"))
    reviews(2, "test").to_parquet(str(folder / "test.parquet"))


def test_parquet_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "saved")
    data = load(tmp_path, inputs="text")
    assert data.inputs[3:5] == ["train 3", "test 0"]
    assert data.column("label_name", "task").tolist()[:2] == ["bad", "good"]


def test_images(tmp_path: Path) -> None:
    images = [Image.new("RGBA", (4, 3 + row // 2), (row, 0, 0, 255)) for row in range(4)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    whole = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 0, 1]}, features=features)
    whole.save_to_disk(str(tmp_path / "saved"))
    data = load(tmp_path, inputs="image", parts="train", split={"test": 0.5})
    block = data.inputs[0:2]
    assert isinstance(block, np.ndarray)
    assert block.shape == (2, 3, 4, 3)
    assert block[1, 0, 0].tolist() == [1, 0, 0]
    assert isinstance(data.inputs[1:3], list)


def test_a_missing_text(tmp_path: Path) -> None:
    content = {"text": ["a", None, "c"], "label": [0, 1, 0]}
    datasets.Dataset.from_dict(content).save_to_disk(str(tmp_path / "saved"))
    data = load(tmp_path, inputs="text", parts="train", split={"test": 0.4})
    assert data.inputs[0:1] == ["a"]
    with pytest.raises(WorkError, match=r"column 'text' of .*saved, samples 0 to 2: a value is"):
        _ = data.inputs[0:2]


def test_the_second_time_does_not_import_the_library(saved: Path) -> None:
    load(saved, inputs="text")
    code = (
        "import sys; from pathlib import Path\n"
        "from td_ray.tasks.huggingface_data import HuggingFaceData\n"
        "s = HuggingFaceData(source='huggingface', name='d', dataset='saved', inputs='text')\n"
        f"folder = Path({str(saved)!r})\n"
        "assert s.load(folder, folder / 'cache').n == 9\n"
        "assert not {'datasets', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_identity(saved: Path) -> None:
    digest = DigestMemory(saved / "cache").computed
    before = source(inputs="text").inputs_identity(saved, digest)
    assert source(inputs="label").inputs_identity(saved, digest) != before
    reviews(6, "other").save_to_disk(str(saved / "saved/train"))
    assert source(inputs="text").inputs_identity(saved, digest) != before
    assert load(saved, inputs="text").inputs[0:1] == ["other 0"]


def test_a_pinned_commit_in_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "hub/datasets--somebody--reviews"
    write_parquet(place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs/main").write_text(COMMIT)
    name = "somebody/reviews"
    data = load(tmp_path, dataset=name, revision=COMMIT, inputs="text")
    assert data.inputs[0:1] == ["train 0"]
    with pytest.raises(InputError, match=r"'revision', its commit of 40 digits, since what a br"):
        load(tmp_path, dataset=name)
    with pytest.raises(InputError, match="its commit of 40 digits"):
        load(tmp_path, dataset=name, revision="main")
    with pytest.raises(InputError, match=r"somebody/reviews is not whole in .*/f{40} \(no such f"):
        load(tmp_path, dataset=name, revision="f" * 40)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inputs": "txt"}, r"saved has no column 'txt' of inputs: did you mean 'text'\?"),
        (
            {"parts": ["train", "tests"]},
            r"no part 'tests': did you mean 'test'\?; name its 'parts'",
        ),
        ({"stratify": "lable"}, r"no column 'lable' to stratify by: did you mean 'label'\?"),
    ],
)
def test_bad_names(saved: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load(saved, **options)


def test_what_a_data_set_wants_fetched_is_not(tmp_path: Path) -> None:
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_GET = do_HEAD  # noqa: N815

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/x.csv"
        files = f"[{{split: train, path: '{address}'}}]"
        card = f"---\nconfigs:\n- config_name: default\n  data_files: {files}\n---\n"
        (tmp_path / "saved").mkdir()
        (tmp_path / "saved/README.md").write_text(card)
        with pytest.raises(InputError, match=r"README\.md names files by address .*never down"):
            load(tmp_path, parts="train")
        server.shutdown()
    assert not asked
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_folder_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with pytest.raises(InputError, match=r"data set 'reviews': .*saved cannot be read"):
        load(tmp_path)

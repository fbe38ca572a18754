"""The contract of data sources: the house's own keep it, and so does the example of the docs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

import td_ray.tasks
from td_ray.registry import DATA_SOURCES
from td_ray.tasks.dataset import DataSource, Samples
from td_ray.testing.data_sources import check_data_source

N = 6


def write_data(folder: Path) -> None:
    """Files for one entry of each source."""
    rows = "".join(f"s{row}\t{row % 2}\ttext {row}\n" for row in range(N))
    (folder / "t.tsv").write_text("id\tlabel\ttext\n" + rows)
    np.save(folder / "i.npy", np.arange(N * 4).reshape(N, 2, 2))
    for part in ("train", "test"):
        for row in range(N):
            path = folder / f"rendered-sst2/{part}/{('negative', 'positive')[row % 2]}/{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (3, 2 + row // 3), (row, 0, 0)).save(path)
        (folder / "saved").mkdir(exist_ok=True)
        content = {"text": [f"{part} {row}" for row in range(N)], "label": [0, 1] * (N // 2)}
        datasets.Dataset.from_dict(content).to_parquet(str(folder / f"saved/{part}.parquet"))


ENTRIES: list[dict[str, Any]] = [
    {"source": "table", "path": "t.tsv"},
    {"source": "table", "path": "t.tsv", "text": "text"},
    {"source": "table", "path": "t.tsv", "inputs": "i.npy"},
    {"source": "sklearn", "dataset": "wine"},
    {"source": "image_folder", "path": "rendered-sst2", "split_folders": True},
    {"source": "image_folder", "path": "rendered-sst2/train", "corrupted": "skip"},
    {"source": "torchvision", "dataset": "RenderedSST2", "root": "."},
    {"source": "huggingface", "dataset": "saved", "inputs": "text"},
]


def test_all_sources_are_here() -> None:
    assert {entry["source"] for entry in ENTRIES} >= set(DATA_SOURCES.names()) - {"noise"}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: "-".join(map(str, entry.values())))
def test_our_own_sources(
    entry: dict[str, Any], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write_data(tmp_path)
    source = DATA_SOURCES.get(entry["source"]).model_validate({"name": "d", **entry})
    check_data_source(source, tmp_path, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def example(tmp_path: Path) -> Iterator[ModuleType]:
    """The module that the docstring of ``td_ray.tasks`` shows."""
    text = str(td_ray.tasks.__doc__)
    code = text[text.index("::\n") + 3 : text.index("``td_ray.testing")]
    (tmp_path / "noise.py").write_text(dedent(code))
    spec = importlib.util.spec_from_file_location("noise_example", tmp_path / "noise.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["noise_example"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["noise_example"]
    del DATA_SOURCES._found["noise"]


def test_the_example_of_the_docs(example: ModuleType, tmp_path: Path) -> None:
    source = DATA_SOURCES.get("noise")(source="noise", name="d", samples=40)
    check_data_source(source, tmp_path, tmp_path / "cache")
    assert source.load(tmp_path, tmp_path / "cache").inputs[0:3].shape == (3, 8)


def give(array: Any) -> Any:
    return array


class Changing(list[Any]):
    """Inputs that depend on how they are read."""

    def __getitem__(self, rows: Any) -> Any:
        return [len(range(*rows.indices(len(self))))] * len(range(*rows.indices(len(self))))


class Broken(DataSource):
    """A source that breaks the contract in the way that its option names."""

    breaks: str

    def read(self, folder: Path, cache: Path) -> Samples:
        ids = [str(row) for row in range(N)]
        columns = {"label": np.zeros(N)}
        inputs: Any = partial(give, np.zeros((N, 2)))
        if self.breaks == "twice":
            ids[1] = "0"
        elif self.breaks == "empty":
            ids[1] = ""
        elif self.breaks == "unstable":
            ids = [f"{len(list(folder.iterdir()))}-{name}" for name in ids]
            (folder / ids[0]).touch()
        elif self.breaks == "short":
            columns = {"label": np.zeros(N - 1)}
        elif self.breaks == "fewer":
            inputs = partial(give, np.zeros((N - 1, 2)))
        elif self.breaks == "large":
            inputs = partial(give, np.zeros((N, 9_000)))
        elif self.breaks == "blocks":
            inputs = partial(give, Changing(range(N)))
        return Samples(np.array(ids), columns, inputs)

    def inputs_identity(self, folder: Path, digest: Any) -> Any:
        if self.breaks == "identity":
            (folder / str(len(list(folder.iterdir())))).touch()
            return len(list(folder.iterdir()))
        return None if self.breaks == "nameless" else "known"


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        ("twice", "not distinct"),
        ("empty", "id is empty"),
        ("unstable", "second read gives other ids"),
        ("short", "column 'label' has not one value per sample"),
        ("fewer", "5 inputs for 6 samples"),
        ("large", "bytes when pickled"),
        ("blocks", "differs from its samples read one by one"),
        ("identity", "identity of the inputs is not stable"),
        ("nameless", "they have no identity"),
    ],
)
def test_what_the_contract_finds(breaks: str, words: str, tmp_path: Path) -> None:
    source = Broken(source="broken", name="d", breaks=breaks)
    with pytest.raises(AssertionError, match=words):
        check_data_source(source, tmp_path, tmp_path / "cache")


def test_what_the_contract_asks_for_can_be_had(tmp_path: Path) -> None:
    check_data_source(Broken(source="broken", name="d", breaks=""), tmp_path, tmp_path / "cache")

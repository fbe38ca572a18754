from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from td_ray.tasks.scikit_learn import ScikitLearn

SHAPES = {
    "digits": (1797, 8, 8),
    "wine": (178, 13),
    "iris": (150, 4),
    "breast_cancer": (569, 30),
    "diabetes": (442, 10),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", list(SHAPES))
def test_data_sets(name: str, cache: Path) -> None:
    source = ScikitLearn.model_validate({"source": "sklearn", "name": "d", "dataset": name})
    data = source.load(cache, cache)
    assert data.inputs.shape == SHAPES[name]
    assert data.inputs.dtype == np.float32
    assert data.ids.tolist() == [str(row) for row in range(SHAPES[name][0])]
    assert list(data.samples.columns) == ["target" if name == "diabetes" else "label"]
    if name == "digits":
        assert data.inputs.min() == 0
        assert data.inputs.max() == 1


def test_the_second_time_does_not_import_the_library(cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from td_ray.tasks.scikit_learn import ScikitLearn\n"
        "s = ScikitLearn(source='sklearn', name='d', dataset='wine', stratify='label')\n"
        f"d = s.load(Path('/'), Path({str(cache)!r})); d.inputs\n"
        "assert 'sklearn' not in sys.modules and 'torch' not in sys.modules"
    )
    ScikitLearn(source="sklearn", name="d", dataset="wine").load(cache, cache)
    subprocess.run([sys.executable, "-c", code], check=True)


def test_identity_of_the_inputs(cache: Path) -> None:
    wine = ScikitLearn(source="sklearn", name="d", dataset="wine")
    iris = ScikitLearn(source="sklearn", name="d", dataset="iris")

    def digest(path: Path) -> str:
        raise AssertionError("no file belongs to it")

    assert wine.inputs_identity(cache, digest) != iris.inputs_identity(cache, digest)

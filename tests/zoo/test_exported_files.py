"""Files of exported programs that are damaged, or that would run code."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from small_data import dataset
from small_programs import IMAGES, expanded, expected, extract, save_small, small_network

from td_ray.errors import InputError, WorkError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save_small(tmp_path)


def test_damaged_and_missing_files(tmp_path: Path, file: Path) -> None:
    whole = file.read_bytes()
    rewrite(file, "models/model.json", lambda content: content[:-100])
    shortened = file.read_bytes()
    for content in (b"no program", whole[: len(whole) // 2], b"", shortened):
        file.write_bytes(content)
        with pytest.raises(WorkError, match=r"a\.pt2 cannot be read as a program of [^\n]*$"):
            extract(tmp_path, ["output"], IMAGES)
    model = expanded(tmp_path)
    file.unlink()
    data = dataset(list("abcde"), IMAGES)
    with pytest.raises(InputError, match=r"exported program: no file at .*a\.pt2"):
        model.check(tmp_path, data, ["t"])


def rewrite(file: Path, record: str, change: Callable[[bytes], bytes]) -> None:
    """Change one record of an archive, or add it."""
    with ZipFile(file) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    name = f"{next(iter(records)).partition('/')[0]}/{record}"
    records[name] = change(records.get(name, b""))
    with ZipFile(file, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def rewrite_json(file: Path, record: str, change: Callable[[Any], None]) -> None:
    def changed(content: bytes) -> bytes:
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    rewrite(file, record, changed)


class Touch:
    """Leaves a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def pickled(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Touch(marker), buffer)
    return buffer.getvalue()


def in_samples(file: Path, marker: Path) -> None:
    rewrite(file, "data/sample_inputs/model.pt", lambda _: pickled(marker))


def in_a_weight(file: Path, marker: Path) -> None:
    def change(config: Any) -> None:
        config["config"]["conv.weight"]["use_pickle"] = True

    rewrite_json(file, "data/weights/model_weights_config.json", change)
    rewrite(file, "data/weights/weight_0", lambda _: pickled(marker))


def in_a_constant(file: Path, marker: Path) -> None:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
    rewrite_json(
        file,
        "data/constants/model_constants_config.json",
        lambda config: config["config"].update(evil={**entry, "tensor_meta": None}),
    )
    rewrite(file, "data/constants/opaque_obj_0", lambda _: pickle.dumps(Touch(marker)))


def in_a_size(file: Path, marker: Path) -> None:
    def change(content: Any) -> None:
        sizes = content["graph_module"]["graph"]["tensor_values"]["images"]["sizes"]
        text = f"__import__('pathlib').Path('{marker}').touch() or Symbol('s0', integer=True)"
        sizes[0]["as_expr"]["expr_str"] = text

    rewrite_json(file, "models/model.json", change)


RUN_CODE = [in_samples, in_a_weight, in_a_constant, in_a_size]


@pytest.mark.parametrize("hide", RUN_CODE)
@pytest.mark.filterwarnings("ignore")
def test_torch_itself_runs_what_a_file_says(tmp_path: Path, file: Path, hide: Any) -> None:
    """What the next test holds against: where this fails, torch has become safe."""
    hide(file, tmp_path / "marker")
    with suppress(Exception):  # after the code has run
        torch.export.load(file)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("hide", RUN_CODE)
def test_no_code_runs(tmp_path: Path, file: Path, hide: Any) -> None:
    hide(file, tmp_path / "marker")
    if hide is in_samples:  # they are not needed
        found = extract(tmp_path, ["output"], IMAGES)["output"]
        np.testing.assert_allclose(found, expected(small_network(), IMAGES)["output"], atol=1e-5)
    else:
        with pytest.raises(WorkError, match=r"a\.pt2 (holds '.*' pickled|takes inputs with an ax)"):
            extract(tmp_path, ["output"], IMAGES)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("torch.hub.load", {"repo_or_dir": "x", "model": "y"}),
        ("torch.ops.aten.from_file.default", {"filename": "MARKER", "shared": True, "size": 8}),
        ("torch.ops.aten.save.default", {"item": 1, "filename": "MARKER"}),
        ("torch.ops.aten.Int.Tensor", {"a": 1}),  # TorchScript's own
        ("torch.ops.load_library", {"path": "MARKER"}),
        ("torch.ops.aten.__class__.mro", {}),
        ("_operator.methodcaller", {}),
        ("#something", {}),
    ],
)
def test_only_operators_of_torch_run(
    tmp_path: Path, file: Path, target: str, arguments: dict[str, Any]
) -> None:
    def change(content: Any) -> None:
        kinds = {str: "as_string", bool: "as_bool", int: "as_int"}
        inputs = [
            {
                "name": name,
                "arg": {
                    kinds[type(value)]: value if value != "MARKER" else str(tmp_path / "marker")
                },
                "kind": 1,
            }
            for name, value in arguments.items()
        ]
        node = {"target": target, "inputs": inputs, "outputs": [{"as_none": True}]}
        content["graph_module"]["graph"]["nodes"].insert(0, node)

    rewrite_json(file, "models/model.json", change)
    with pytest.raises(WorkError, match=r"^model 'a' calls '.*', which is not run: only torch's"):
        extract(tmp_path, ["output"], IMAGES)
    assert not (tmp_path / "marker").exists()


def test_compiled_and_old_files_are_refused(tmp_path: Path, file: Path) -> None:
    whole = file.read_bytes()
    rewrite(file, "data/aotinductor/model/x.so", lambda _: b"code")
    with pytest.raises(WorkError, match="holds compiled code, which is not run"):
        extract(tmp_path, ["output"], IMAGES)
    file.write_bytes(whole)
    rewrite(file, "data/weights/model.pt", lambda _: b"pickle")
    with pytest.raises(WorkError, match="holds pickled weights, as an older torch wrote them"):
        extract(tmp_path, ["output"], IMAGES)
    file.write_bytes(whole)
    rewrite_json(
        file, "models/model.json", lambda content: content["schema_version"].update(major=9)
    )
    with pytest.raises(WorkError, match=r"version 9 of torch\.export's schema, and 8 can be read"):
        extract(tmp_path, ["output"], IMAGES)

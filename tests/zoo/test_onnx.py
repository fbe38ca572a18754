"""ONNX graphs: layers, image layouts, fixed batches, weights beside the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError
from small_data import dataset, extracted

from td_ray.errors import MachineError, WorkError
from td_ray.files import sha256
from td_ray.zoo.onnx_models import OnnxModels

RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32)
WEIGHT = RANDOM.normal(size=(4, 2)).astype(np.float32)
IMAGES = RANDOM.integers(0, 255, (5, 9, 8, 3), dtype=np.uint8)


def write(
    path: Path, shape: Any, nodes: list[Any], kind: int = TensorProto.FLOAT, **weights: Any
) -> None:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def write_classifier(
    path: Path, shape: Any = ("n", 3, "h", "w"), channels_last: bool = False
) -> None:
    first = "x"
    nodes = []
    if channels_last:
        nodes.append(helper.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]))
        first = "first"
    nodes += [
        helper.make_node("Conv", [first, "kernel"], ["maps"]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["y"]),
    ]
    write(path, shape, nodes, kernel=KERNEL, weight=WEIGHT)


def extract(folder: Path, layers: list[str], inputs: Any, batch: int = 4, **entry: Any) -> Any:
    (model,) = OnnxModels(source="onnx", path="*.onnx", **entry).expand(folder, ["d"], folder)
    data = dataset([str(row) for row in range(len(inputs))], inputs)
    return extracted(model, data, folder, *layers, batch=batch)


def expected(images: Any, mean: float = 0, deviation: float = 1) -> dict[str, NDArray[Any]]:
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    maps = torch.nn.functional.conv2d((scaled - mean) / deviation, torch.from_numpy(KERNEL))
    hidden = maps.relu().mean((2, 3))
    output = hidden @ torch.from_numpy(WEIGHT)
    return {"maps": maps.mean((2, 3)), "penultimate": hidden, "output": output}


@pytest.mark.parametrize("batch", [1, 3, 9])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("fixed", ["n", 1, 2])
def test_layers_layouts_and_fixed_batches(
    tmp_path: Path, batch: int, channels_last: bool, fixed: Any
) -> None:
    shape = (fixed, 9, 8, 3) if channels_last else (fixed, 3, 9, 8)
    write_classifier(tmp_path / "a.onnx", shape, channels_last)
    wanted = expected(IMAGES, 0.5, 0.25)
    found = extract(tmp_path, list(wanted), IMAGES, batch, mean=0.5, deviation=0.25)
    for layer, values in wanted.items():
        np.testing.assert_allclose(found[layer], values, atol=1e-5, rtol=1e-5)


def test_several_layers_may_be_one_thing(tmp_path: Path) -> None:
    write_classifier(tmp_path / "a.onnx")
    found = extract(tmp_path, ["flat", "penultimate", "y", "output"], IMAGES)
    np.testing.assert_array_equal(found["flat"], found["penultimate"])
    np.testing.assert_array_equal(found["y"], found["output"])


def test_sizes(tmp_path: Path) -> None:
    write_classifier(tmp_path / "a.onnx")
    images = [RANDOM.random((10, 12)), RANDOM.random((7, 9, 3))]
    with pytest.raises(WorkError, match=r"images of one size.*position 1"):
        extract(tmp_path, ["penultimate"], images)
    found = extract(tmp_path, ["penultimate"], images, size=[8, 6])["penultimate"]
    alone = extract(tmp_path, ["penultimate"], images[1:], size=[8, 6])["penultimate"]
    np.testing.assert_allclose(found[1:], alone, rtol=1e-5)
    write_classifier(tmp_path / "a.onnx", ("n", 3, 8, 6))  # the graph says it itself
    own = extract(tmp_path, ["penultimate"], images)["penultimate"]
    np.testing.assert_allclose(own, found, rtol=1e-6)


def test_grey_images_and_bytes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["z"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["z"], ["y"]),
    ]
    write(tmp_path / "a.onnx", ("n", 1, 9, 8), nodes, TensorProto.UINT8)
    found = extract(tmp_path, ["output"], IMAGES[..., 0])["output"]
    np.testing.assert_array_equal(found, IMAGES[..., 0].reshape(5, 72))
    with pytest.raises(WorkError, match="takes grey images"):
        extract(tmp_path, ["output"], IMAGES)


def test_vectors_and_tokens(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["z"]),
        helper.make_node("Relu", ["z"], ["y"]),
    ]
    write(tmp_path / "a.onnx", ("n", 3, 4), nodes, weight=WEIGHT)
    rows = RANDOM.normal(size=(5, 3, 4)).astype(np.float32)
    found = extract(tmp_path, ["output", "penultimate"], rows)
    np.testing.assert_allclose(found["penultimate"], rows.mean(1), rtol=1e-5, atol=1e-6)
    wanted = np.maximum(rows @ WEIGHT, 0)
    np.testing.assert_allclose(found["output"], wanted.mean(1), rtol=1e-5, atol=1e-6)
    last = extract(tmp_path, ["output"], rows, pooling="last")["output"]
    np.testing.assert_allclose(last, wanted[:, -1], rtol=1e-5, atol=1e-6)


def test_layers_that_are_not_there(tmp_path: Path) -> None:
    write_classifier(tmp_path / "a.onnx")
    with pytest.raises(WorkError, match=r"^model 'a' has no layer 'poled': did you mean 'pooled'"):
        extract(tmp_path, ["poled"], IMAGES)
    with pytest.raises(WorkError, match="no layer 'q7': there are 5, the last of them 'maps', "):
        extract(tmp_path, ["q7"], IMAGES)
    write(tmp_path / "a.onnx", ("n", 3, 9, 8), [helper.make_node("Flatten", ["x"], ["y"])])
    with pytest.raises(WorkError, match=r"no Gemm or MatMul by weights.*name a node.* 'y'"):
        extract(tmp_path, ["penultimate"], IMAGES)


def test_files_that_are_no_graphs(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    with pytest.raises(WorkError, match=r"a\.onnx cannot be [^\n]*$"):
        extract(tmp_path, ["output"], IMAGES)


def test_weights_beside_the_graph(tmp_path: Path) -> None:
    write_classifier(tmp_path / "a.onnx")
    whole = extract(tmp_path, ["output"], IMAGES)["output"]
    (model,) = OnnxModels(source="onnx", path="a.onnx").expand(tmp_path, ["d"], tmp_path)
    options = {"save_as_external_data": True, "size_threshold": 0}
    onnx.save(
        onnx.load(tmp_path / "a.onnx"), tmp_path / "a.onnx", location="a.onnx.data", **options
    )
    np.testing.assert_array_equal(extract(tmp_path, ["output"], IMAGES)["output"], whole)
    before = model.identity(tmp_path, "d", "output", sha256)
    content = bytearray((tmp_path / "a.onnx.data").read_bytes())
    content[0] ^= 1
    (tmp_path / "a.onnx.data").write_bytes(content)
    assert model.identity(tmp_path, "d", "output", sha256) != before
    onnx.save(
        onnx.load(tmp_path / "a.onnx"), tmp_path / "a.onnx", location="elsewhere.bin", **options
    )
    with pytest.raises(WorkError, match=r"weights in 'elsewhere\.bin'; they must lie in"):
        extract(tmp_path, ["output"], IMAGES)


def test_weights_of_a_subgraph_elsewhere_are_refused(tmp_path: Path) -> None:
    """Constants count as weights, wherever they are: nothing else of the disk is read."""
    write_classifier(tmp_path / "a.onnx")
    (tmp_path / "secret").write_bytes(b"\0" * 4)
    graph = onnx.load(tmp_path / "a.onnx")
    hidden = onnx.TensorProto(name="hidden", data_type=onnx.TensorProto.FLOAT, dims=[1])
    hidden.data_location = onnx.TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="secret")
    inner = onnx.helper.make_node("Constant", [], ["inner"], value=hidden)
    values = [onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, [1])]
    body = onnx.helper.make_graph([inner], "body", [], values)
    truth = onnx.helper.make_tensor("truth", onnx.TensorProto.BOOL, [], [True])
    graph.graph.node.extend(
        [
            onnx.helper.make_node("Constant", [], ["truth"], value=truth),
            onnx.helper.make_node("If", ["truth"], ["x"], then_branch=body, else_branch=body),
        ]
    )
    for place in ("secret", "../secret", "/etc/passwd"):
        hidden.external_data[0].value = place
        for branch in graph.graph.node[-1].attribute:
            branch.g.node[0].attribute[0].t.CopyFrom(hidden)
        (tmp_path / "a.onnx").write_bytes(graph.SerializeToString())
        with pytest.raises(WorkError, match=rf"weights in '{place}'; they must lie in"):
            extract(tmp_path, ["output"], IMAGES)


def test_options(tmp_path: Path) -> None:
    write_classifier(tmp_path / "a.onnx")

    def identity(**entry: Any) -> str:
        (model,) = OnnxModels(source="onnx", path="a.onnx", **entry).expand(
            tmp_path, ["d"], tmp_path
        )
        return repr(model.identity(tmp_path, "d", "output", sha256))

    kinds = [{}, {"size": 4}, {"mean": 0.5}, {"deviation": 0.5}, {"mean": [0.1, 0.2, 0.3]}]
    assert len({identity(**kind) for kind in kinds}) == len(kinds)
    for wrong in ({"deviation": 0}, {"size": 0}, {"mean": [1, 2]}):
        with pytest.raises(ValidationError):
            OnnxModels(source="onnx", path="a.onnx", **wrong)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="onnxruntime has CUDA"
)
def test_a_gpu_that_onnxruntime_does_not_have(tmp_path: Path) -> None:
    write_classifier(tmp_path / "a.onnx")
    (model,) = OnnxModels(source="onnx", path="a.onnx").expand(tmp_path, ["d"], tmp_path)
    data = dataset(list("abcd"), np.zeros((4, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(MachineError, match="onnxruntime has no CUDA here: pip install"):
        model.load(tmp_path, data, ["output"], "cuda")

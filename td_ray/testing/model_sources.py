"""What every network source must keep.

In a test of your own:

from td_ray.testing.model_sources import check_network_source

(model,) = MySource(source="mine", ...).expand(folder, ["d"], folder)
check_network_source(model, folder, data, ["output", "penultimate"])
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import WorkError
from td_ray.extraction import Layers, extract_features
from td_ray.extraction.counting import count_forward
from td_ray.features import Pass
from td_ray.files import fingerprint, sha256
from td_ray.spec import Resources
from td_ray.tasks import DataSet
from td_ray.zoo import NetworkSource
from td_ray.zoo.network import Network

TOLERANCE = 1e-5
"""How far features may move, relative to the largest of their layer."""


def check_network_source(
    source: NetworkSource, folder: Path, data: DataSet, layers: Sequence[str]
) -> None:
    """Run a source on the CPU and hold it to what extraction relies on.

    Args:
        source: one that ``expand`` gave.
        folder: where its relative paths start.
        data: a small data set with inputs that the model takes, of four samples or more.
        layers: two or more layers that the model has.

    Raises:
        AssertionError: the source breaks the contract; the message says where.
    """
    assert source.name, "expand must give each model a name"
    source.check(folder, data, ["task"])
    _check_identity(source, folder, data, layers)
    together = _features(source, folder, data, layers, data.n)
    for layer, values in together.items():
        assert values.ndim == 2, f"layer '{layer}': shape {values.shape} is not (n, width)"
        assert len(values) == data.n, f"layer '{layer}': {len(values)} rows for {data.n} samples"
        assert np.isfinite(values).all(), f"layer '{layer}': NaN or infinite features"
    for size in (1, 3):
        batched = _features(source, folder, data, layers, size)
        for layer in layers:
            _require_equal(batched[layer], together[layer], f"layer '{layer}', batches of {size}")
    for layer in layers:
        alone = _features(source, folder, data, [layer], data.n)[layer]
        _require_equal(alone, together[layer], f"layer '{layer}' alone and with others")
    _check_threads(source.load(folder, data, layers, "cpu"), data, together)
    _check_unknown_layer(source, folder, data, layers[0])
    _check_counts(source, folder, data, together)


def _features(
    source: NetworkSource, folder: Path, data: DataSet, layers: Sequence[str], batch_size: int
) -> Layers:
    wanted = Pass(source, data, dict.fromkeys(layers, ""))
    resources = Resources(device="cpu", batch_size=batch_size)
    blocks = list(extract_features(wanted, layers, 0, folder, resources))
    for block in blocks:
        assert set(block) == set(layers), f"layers {sorted(block)} for {sorted(layers)}"
    return {layer: np.concatenate([block[layer] for block in blocks]) for layer in layers}


def _require_equal(found: NDArray[np.float32], expected: NDArray[np.float32], what: str) -> None:
    assert found.shape == expected.shape, f"{what}: shapes {found.shape} and {expected.shape}"
    difference = float(np.abs(found - expected).max())
    allowed = TOLERANCE * float(np.abs(expected).max())
    assert difference <= allowed, f"{what}: features differ by {difference}, more than {allowed}"


def _check_identity(
    source: NetworkSource, folder: Path, data: DataSet, layers: Sequence[str]
) -> None:
    """It is JSON, and the same when asked again; without digests it is known, or None."""
    source.identity(folder, data.name, layers[0], lambda path: None)
    for layer in layers:
        first, second = (source.identity(folder, data.name, layer, sha256) for _ in range(2))
        assert first is not None, "identity is None although all digests are known"
        assert fingerprint(first) == fingerprint(second), f"identity changes: {first}, {second}"


def _check_threads(network: Network, data: DataSet, expected: Layers) -> None:
    """Blocks prepared by several threads at once give what they give one after the other."""
    blocks = [data.inputs[start : start + 2] for start in range(0, data.n, 2)]
    with ThreadPoolExecutor(4) as threads:
        batches = list(threads.map(network.prepare, blocks * 8))
    for number, batch in enumerate(batches):
        start = 2 * (number % len(blocks))
        for layer, values in network.forward(batch).items():
            rows = expected[layer][start : start + 2]
            _require_equal(values.float().numpy(), rows, f"layer '{layer}', prepared by threads")


def _check_counts(source: NetworkSource, folder: Path, data: DataSet, expected: Layers) -> None:
    """On shapes alone it gives the same widths, or it says in one line why it cannot."""
    layers, resources = list(expected), Resources(device="cpu")
    try:
        counted = count_forward(source, data, layers, folder, resources, "cpu")
    except WorkError as error:
        text = str(error)
        assert "\n" not in text, f"the error has more than one line: {text}"
        return
    widths = {layer: values.shape[1] for layer, values in expected.items()}
    assert counted.widths == widths, f"widths on shapes alone are {counted.widths}, not {widths}"


def _check_unknown_layer(source: NetworkSource, folder: Path, data: DataSet, known: str) -> None:
    """A name that is nearly right is an error of one line with the right one."""
    unknown = f"{known}_"
    try:
        source.load(folder, data, [unknown], "cpu")
    except WorkError as error:
        text = str(error)
        assert unknown in text, f"the error does not name the layer '{unknown}': {text}"
        assert "\n" not in text, f"the error has more than one line: {text}"
        assert "did you mean" in text, f"the error names no layer that there is: {text}"
    else:
        raise AssertionError(f"no WorkError for the layer '{unknown}', which is not there")

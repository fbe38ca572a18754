"""From a network and inputs to features, batch by batch, all layers in one pass.

Inputs are read and prepared in threads, ahead of the forward pass. Batches are as large as
`resources.batch_size` says, or (``auto``) as suits the size of a prepared input; one that does not
fit in memory is halved, and so are those after it. Features in float32 do not depend on the size of
a batch by more than 1e-5 of their largest entry, which is what rounding does.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from td_ray.errors import InputError, WorkError
from td_ray.extraction.arrays import MOST_READERS, Layers
from td_ray.files import one_line
from td_ray.spec import Resources
from td_ray.tasks.inputs import Inputs
from td_ray.zoo.network import Network

# Bytes of prepared inputs in a batch, by device, and what bounds their number. On a CPU the maps of
# larger batches leave the cache: MobileNetV2 at 224 pixels is half as fast with 64 images as with
# 8. A GPU wants many; no figure stands behind its number.
AUTO_BYTES = {"cpu": 2**22, "cuda": 2**26}
AUTO_ROWS = {"cpu": (4, 256), "cuda": (32, 4096)}


def rows_of_batch(network: Network, inputs: Inputs, resources: Resources, device: str) -> int:
    """How many inputs go through at once."""
    size = resources.batch_size
    return auto_batch(network, inputs, device) if size == "auto" else size


def auto_batch(network: Network, inputs: Inputs, device: str) -> int:
    """How many inputs go through at once: the same for the same data, so that features are."""
    try:
        prepared = network.prepare(inputs[0:1])
    except Exception:
        return AUTO_ROWS[device][0]  # the loop meets the same error, and says where
    tensors = prepared.values() if isinstance(prepared, Mapping) else [prepared]
    return batch_of_bytes(sum(int(getattr(tensor, "nbytes", 0)) for tensor in tensors), device)


def batch_of_bytes(size: int, device: str) -> int:
    """How many prepared inputs of a size in bytes go through at once."""
    least, most = AUTO_ROWS[device]
    return max(least, min(most, AUTO_BYTES[device] // max(1, size)))


def run_network(
    network: Network, inputs: Inputs, batch_size: int, who: str, start: int = 0
) -> Iterator[Layers]:
    """Yield the features of all inputs from a row on, batch by batch, in float32.

    Args:
        network: with the layers that are asked for.
        inputs: of n samples.
        batch_size: how many go through at once.
        who: the model and the data set, for errors.
        start: the first row.

    Raises:
        WorkError: the network raises on the data, or gives another number of rows.
    """
    loading = _Loading(network, inputs, batch_size, who, start)
    with ThreadPoolExecutor(MOST_READERS, thread_name_prefix="prepare") as threads:
        try:
            while (batch := loading.next(threads)) is not None:
                rows, prepared = batch
                try:
                    features = _forward(network, prepared)
                except WorkError:
                    raise
                except Exception as error:
                    del prepared
                    if not _is_out_of_memory(error):
                        raise loading.failure(rows, error) from None
                    loading.halve(rows)
                    continue
                _check_rows(features, rows, who)
                yield features
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _forward(network: Network, prepared: Any) -> Layers:
    with torch.inference_mode():
        features = network.forward(prepared)
        return {layer: values.float().cpu().numpy() for layer, values in features.items()}


def _is_out_of_memory(error: Exception) -> bool:
    """On a CPU torch says so in words alone."""
    in_words = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, torch.OutOfMemoryError) or in_words


def batches_ahead() -> int:
    """How many batches are prepared ahead: one for each reader, and one that waits.

    Readers have the cores that the forward pass leaves. Where it has all, they would share one with
    it, and the pass was slower by a tenth. On a CPU one reader is enough: to decode and resize a
    photograph took 4 ms, and MobileNetV2 22 ms on one core. (So decoding once for models that share
    a transform would save a CPU a few percent, at 600 KB of disk for each image, and is not done.)
    """
    left = (os.cpu_count() or 1) - torch.get_num_threads()
    return min(left, MOST_READERS) + 1 if left > 0 else 0


class _Loading:
    """The batches that are being prepared, in order."""

    def __init__(
        self, network: Network, inputs: Inputs, batch_size: int, who: str, start: int
    ) -> None:
        self._network, self._inputs, self._who = network, inputs, who
        self._size, self._next = batch_size, start
        self._pending: deque[tuple[slice, Future[Any]]] = deque()
        self._ahead = batches_ahead()

    def next(self, threads: ThreadPoolExecutor) -> tuple[slice, Any] | None:
        """The rows of the next batch and what the network takes; None after the last."""
        while self._next < len(self._inputs) and len(self._pending) <= self._ahead:
            rows = slice(self._next, min(self._next + self._size, len(self._inputs)))
            self._next = rows.stop
            if not self._ahead:
                return rows, self._prepare(rows)
            self._pending.append((rows, threads.submit(self._prepare, rows)))
        if not self._pending:
            return None
        rows, future = self._pending.popleft()
        return rows, future.result()

    def halve(self, rows: slice) -> None:
        """Go back to the rows of a batch that was too large.

        Raises:
            WorkError: it held a single sample.
        """
        count = rows.stop - rows.start
        if count == 1:
            raise WorkError(f"{self._who}: memory does not suffice for a single sample")
        while self._pending:
            self._pending.pop()[1].cancel()
        self._size, self._next = min(self._size, (count + 1) // 2), rows.start

    def failure(self, rows: slice, error: Exception) -> WorkError:
        """What the network, which is somebody's code, raised on a batch."""
        block = self._inputs[rows]
        inputs = f"inputs of shape {block.shape}" if isinstance(block, np.ndarray) else "inputs"
        reason = f"{type(error).__name__}: {one_line(error)}"
        return WorkError(f"{self._who} fails on {inputs}: {reason}")

    def _prepare(self, rows: slice) -> Any:
        block = self._inputs[rows]
        try:
            with torch.inference_mode():  # a thread has modes of its own
                return self._network.prepare(block)
        except (WorkError, InputError):
            raise
        except Exception as error:
            raise self.failure(rows, error) from None


def _check_rows(features: Layers, rows: slice, who: str) -> None:
    for layer, values in features.items():
        if len(values) != rows.stop - rows.start:
            raise WorkError(
                f"{who} gives {len(values)} rows at layer '{layer}' "
                f"for {rows.stop - rows.start} samples"
            )

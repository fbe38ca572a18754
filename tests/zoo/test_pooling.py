"""Pooling: positions to rows, with and without padding, and one width per layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_data import dataset
from torch import Tensor, nn

from td_ray.errors import WorkError
from td_ray.features import features_key
from td_ray.files import sha256
from td_ray.zoo import Representation
from td_ray.zoo.pooling import Pooler, pool
from td_ray.zoo.torch_network import TorchNetwork
from td_ray.zoo.torchvision_models import Torchvision

KINDS: Any = ["mean", "cls", "last", "max", "flatten"]
TOKENS = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 5, 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_without_padding(kind: Any) -> None:
    expected = {
        "mean": TOKENS.mean(1),
        "cls": TOKENS[:, 0],
        "last": TOKENS[:, 4],
        "max": TOKENS.amax(1),
        "flatten": TOKENS.reshape(3, 10),
    }[kind]
    torch.testing.assert_close(pool(TOKENS, kind), expected)
    torch.testing.assert_close(pool(TOKENS, kind, torch.ones(3, 5, dtype=torch.int64)), expected)
    rows = TOKENS[:, 0]
    assert torch.equal(pool(rows, kind), rows)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("kind", ["mean", "cls", "last", "max"])
def test_padding_does_not_count(kind: Any, left: bool) -> None:
    lengths = (5, 1, 3)
    padded, mask = torch.full((3, 5, 2), torch.inf), torch.zeros(3, 5, dtype=torch.int64)
    for row, length in enumerate(lengths):
        place = slice(5 - length, 5) if left else slice(0, length)
        padded[row, place] = TOKENS[row, :length].float()
        mask[row, place] = 1
    found = pool(padded, kind, mask)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(found[row], pool(TOKENS[row, :length].float()[None], kind)[0])


def test_maps() -> None:
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2, 4, 5)))
    torch.testing.assert_close(pool(maps, "max"), maps.reshape(3, 2, 20).amax(2))
    assert pool(maps, "flatten").shape == (3, 40)
    for kind in ("cls", "last"):
        with pytest.raises(WorkError, match=f"no tokens: pooling '{kind}' needs a sequence"):
            Pooler(kind, "m")(maps, "x")  # type: ignore[arg-type]


def test_a_width_that_changes() -> None:
    pooled = Pooler("flatten", "m")
    pooled(TOKENS, "x")
    pooled(TOKENS[:, :2], "y")
    with pytest.raises(WorkError, match=r"gives 10 features at layer 'x' .* and 4 for others"):
        pooled(TOKENS[:, :2], "x")


def test_a_mask_of_other_tokens() -> None:
    with pytest.raises(WorkError, match=r"\(3, 5, 2\) at layer 'x', which does not fit the tokens"):
        Pooler("mean", "m")(TOKENS, "x", torch.ones(3, 4))


class Embeds(nn.Module):
    """Takes tokens by name."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return torch.stack([input_ids, -input_ids], dim=2)


def test_batches_of_tensors_by_name() -> None:
    batch = {
        "input_ids": torch.tensor([[1, 2, 90], [4, 6, 8]]),
        "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
    }
    network = TorchNetwork(Embeds(), ["output"], prepare=lambda x: x, device="cpu", who="m")
    found = network.forward(batch)["output"]
    assert found.tolist() == [[1.5, -1.5], [6.0, -6.0]]
    last = TorchNetwork(
        Embeds(), ["output"], prepare=lambda x: x, device="cpu", who="m", pooling="last"
    )
    assert last.forward(batch)["output"].tolist() == [[2.0, -2.0], [8.0, -8.0]]


def test_the_key_of_features_names_another_pooling(tmp_path: Any) -> None:
    data = dataset(["a", "b", "c"], np.zeros((3, 4, 4)), inputs_are="x")

    def key(**options: Any) -> Any:
        model = Torchvision(source="torchvision", builder="resnet18", name="m", **options)
        return features_key(Representation(model, "output"), data, tmp_path, sha256)

    assert key() == key(pooling="mean")
    assert len({key(), key(pooling="max"), key(pooling="cls")}) == 3

"""From what a layer gives to one row of features per sample.

Two axes (n, width) are features already. Of spatial maps (n, c, h, w) and token sequences
(n, t, d), ``mean`` and ``max`` go over positions and ``flatten`` keeps them all; ``cls`` and
``last`` take the first and the last token of a sequence. Where the inputs come with an attention
mask (n, t), padded positions do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from td_ray.errors import WorkError

if TYPE_CHECKING:
    from torch import Tensor

Pooling = Literal["mean", "cls", "last", "max", "flatten"]
"""How positions become one row."""


class Pooler:
    """Pools what the layers of one model give, and holds each layer to its first width."""

    def __init__(self, pooling: Pooling, who: str) -> None:
        self._pooling, self._who = pooling, who
        self._widths: dict[str, int] = {}

    def __call__(self, values: Any, layer: str, mask: Tensor | None = None) -> Tensor:
        """Return features (n, width) in float32.

        Args:
            values: what the layer gives for n samples.
            mask: (n, t), 1 where a token is one of the sample's and 0 where it is padding.

        Raises:
            WorkError: not a tensor, a shape that cannot be pooled so, or another width than
                that of earlier inputs.
        """
        from torch import Tensor

        where = f"model '{self._who}' gives"
        if not isinstance(values, Tensor):
            kind = type(values).__name__
            raise WorkError(f"{where} a {kind} at layer '{layer}'; a tensor is needed")
        if values.ndim not in (2, 3, 4):
            shape = tuple(values.shape)
            raise WorkError(f"{where} shape {shape} at layer '{layer}'; name another layer")
        if values.ndim == 4 and self._pooling in ("cls", "last"):
            raise WorkError(
                f"{where} maps at layer '{layer}', which have no tokens: pooling "
                f"'{self._pooling}' needs a sequence; say mean, max or flatten"
            )
        if values.ndim == 3 and mask is not None and mask.shape != values.shape[:2]:
            raise WorkError(
                f"{where} shape {tuple(values.shape)} at layer '{layer}', which does not fit the "
                f"tokens of its inputs, {tuple(mask.shape)}; name another layer"
            )
        features = pool(values.float(), self._pooling, mask)
        self._hold_width(features.shape[1], layer)
        return features

    def _hold_width(self, width: int, layer: str) -> None:
        first = self._widths.setdefault(layer, width)
        if width != first:
            raise WorkError(
                f"model '{self._who}' gives {first} features at layer '{layer}' for some inputs "
                f"and {width} for others; name another layer, or pool its positions (pooling: "
                "mean)"
            )


def pool(values: Tensor, pooling: Pooling, mask: Tensor | None = None) -> Tensor:
    """Return (n, width) from (n, width), (n, t, d) or (n, c, h, w)."""
    if values.ndim == 2 or pooling == "flatten":
        return values.flatten(1)
    if values.ndim == 4:
        return values.mean((2, 3)) if pooling == "mean" else values.amax((2, 3))
    if mask is None:
        match pooling:
            case "cls":
                return values[:, 0]
            case "last":
                return values[:, -1]
            case "max":
                return values.amax(1)
        return values.mean(1)
    return _pool_masked(values, pooling, mask != 0)


def _pool_masked(values: Tensor, pooling: Pooling, mask: Tensor) -> Tensor:
    """(n, t, d) to (n, d), over the positions where ``mask`` (n, t) is true."""
    import torch

    if pooling == "max":
        return values.masked_fill(~mask[..., None], -torch.inf).amax(1)
    if pooling == "mean":
        # not multiplied: padding may hold anything, infinity too
        total = values.masked_fill(~mask[..., None], 0).sum(1)
        return total / mask.sum(1, keepdim=True)
    number = torch.arange(mask.shape[1], device=mask.device)
    order = mask.shape[1] - number if pooling == "cls" else number + 1
    rows = torch.arange(len(values), device=values.device)
    return values[rows, (mask * order).argmax(1)]

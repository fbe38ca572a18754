"""Sample ids, labels and words as text, whichever type the file had for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Beyond it, floats skip whole numbers.
LARGEST_WHOLE_FLOAT = 2**53


def as_ids(values: Iterable[Any]) -> NDArray[np.str_]:
    """Sample ids exactly as they are written; what is missing becomes the empty text.

    Raises:
        ValueError: bytes that are not UTF-8, or halves of characters.
    """
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    return _encodable(np.array([_one(value) for value in plain], dtype=str))


def as_text(values: NDArray[Any]) -> NDArray[np.str_]:
    """Labels or words (n,) as text; what is missing becomes the empty text.

    Whole floats lose their ``.0``, so that 3.0 and 3 are the same label.

    Raises:
        ValueError: fractions, dates without end, lists: nothing that can be a label.
    """
    if values.ndim != 1:
        raise ValueError(f"has shape {values.shape}, not one value per sample")
    if values.dtype.kind == "f":
        return _whole(values)
    if values.dtype.kind == "O":
        odd = [value for value in values if not isinstance(value, str | bytes | int | None)]
        if odd:
            raise ValueError(f"holds a {type(odd[0]).__name__}, which is not a label")
        return as_ids(values)
    if values.dtype.kind == "S":
        return as_ids(values)
    if values.dtype.kind == "M":
        return np.where(np.isnat(values), "", values.astype(str))
    if values.dtype.kind not in "biuUT":
        raise ValueError(f"holds {values.dtype}, which is not a label")
    return _encodable(values.astype(str))


def _whole(values: NDArray[Any]) -> NDArray[np.str_]:
    gaps = np.isnan(values)
    filled = np.where(gaps, 0, values)
    if (filled != np.round(filled)).any():
        raise ValueError("has fractions, so it is not a label")
    if (np.abs(filled) > LARGEST_WHOLE_FLOAT).any():
        raise ValueError("has numbers too large to be told apart as labels")
    return np.where(gaps, "", filled.astype(np.int64).astype(str))


def _encodable(texts: NDArray[np.str_]) -> NDArray[np.str_]:
    """Refuse what numpy can hold and no table: the error of the encoding says where it is."""
    "".join(texts.tolist()).encode("utf-8")
    return texts


def _one(value: Any) -> str:
    if value is None:
        return ""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)

"""Splits and complementary halves, drawn from counter-based bits.

Each sample has a key: the first 8 bytes of BLAKE2b over its id, keyed by what is drawn. A cut
sorts the keys of each stratum, so that membership depends on the data set, its split, the seed
and the sample ids, and on nothing else: not on the model, the task, or the order of the rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.errors import InputError
from td_ray.registry import closest
from td_ray.spec import Split
from td_ray.tasks.text import as_text

VALIDATION_SHARE = 0.2

Rows = NDArray[np.bool_]


def cut(
    ids: NDArray[np.str_],
    columns: Mapping[str, NDArray[Any]],
    strata: NDArray[Any] | None,
    split: Split,
    data: str,
) -> tuple[Rows, Rows]:
    """Return the rows (n,) of the training and of the evaluation split.

    Raises:
        InputError: no such column, or one of the two splits is empty.
    """
    if split.column is not None:
        training, evaluation = _by_column(columns, split.column, split, data)
    else:
        share = 0.3 if split.test is None else float(split.test)
        evaluation = _first_share(ids, strata, share, f"split:{split.seed}")
        training = ~evaluation
    if not training.any() or not evaluation.any():
        empty = "training" if not training.any() else "evaluation"
        raise InputError(f"data set '{data}': the {empty} split has no samples")
    return training, evaluation


def split_words(columns: Mapping[str, NDArray[Any]], name: str, data: str) -> NDArray[np.str_]:
    """Return the (n,) words of the column that holds the split.

    Raises:
        InputError: no such column, or not of words.
    """
    if name not in columns:
        raise InputError(
            f"data set '{data}': no column '{name}' for the split: {closest(name, columns)}"
        )
    try:
        return as_text(columns[name])
    except ValueError as error:
        raise InputError(f"data set '{data}': the split column '{name}' {error}") from None


def _by_column(
    columns: Mapping[str, NDArray[Any]], name: str, split: Split, data: str
) -> tuple[Rows, Rows]:
    words = split_words(columns, name, data)
    test = "test" if split.test is None else str(split.test)
    for word in (split.train, test):
        if word not in words:
            found = ", ".join(sorted(set(words.tolist()))[:5])
            raise InputError(
                f"data set '{data}': no row has '{word}' in the split column "
                f"'{name}' (found: {found})"
            )
    return words == split.train, words == test


def subset(ids: NDArray[np.str_], strata: NDArray[Any] | None, size: int, seed: int) -> Rows:
    """Draw ``size`` samples so that a larger subset holds all smaller ones of its seed.

    The sample of rank r (by its key, from 0) in a stratum of m is number (r + 1/2) / m in the
    queue from which the first ``size`` are taken: each stratum has its share, rounded.

    Returns:
        The chosen rows, (n,) bool.
    """
    keys = _keys(ids, f"subset:{seed}")
    place = np.empty(len(ids))
    for rows in _strata(strata, len(ids)):
        place[rows[np.argsort(keys[rows], kind="stable")]] = (np.arange(len(rows)) + 0.5) / len(
            rows
        )
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[np.lexsort((keys, place))[:size]] = True
    return chosen


def halves(
    ids: NDArray[np.str_], strata: NDArray[Any] | None, split_digest: str, seed: int
) -> tuple[Rows, Rows]:
    """Cut a training split into two complementary halves, stratified.

    Args:
        ids: (n,) ids of the training split.
        strata: (n,) labels to stratify by, or None.
        split_digest: identity of the data set's split, whatever the order of its rows.
        seed: which cut.

    Returns:
        Two disjoint (n,) bool arrays whose union is everything. Their sizes differ by at most
        one in each stratum; strata of odd size give their extra sample to the two in turn.
    """
    first = np.zeros(len(ids), dtype=bool)
    extra_goes_first = bool(_keys(np.array(["extra"]), f"{split_digest}:{seed}")[0] & 1)
    for rows in _strata(strata, len(ids)):
        order = rows[np.argsort(_keys(ids[rows], f"half:{split_digest}:{seed}"), kind="stable")]
        size = len(rows) // 2
        if len(rows) % 2:
            size += extra_goes_first
            extra_goes_first = not extra_goes_first
        first[order[:size]] = True
    return first, ~first


def validation_part(ids: NDArray[np.str_], strata: NDArray[Any] | None, split_digest: str) -> Rows:
    """Return the (n,) rows of a training split on which penalties are compared: a fifth."""
    return _first_share(ids, strata, VALIDATION_SHARE, f"validation:{split_digest}")


def _first_share(
    ids: NDArray[np.str_], strata: NDArray[Any] | None, share: float, key: str
) -> Rows:
    """Choose a share of the samples: of each stratum within one, of all rounded.

    What rounding leaves goes to the strata that are cut most by it. The last sample of a
    stratum is never chosen, so that no class is lost to the rest.
    """
    groups = _strata(strata, len(ids))
    sizes = np.array([len(rows) for rows in groups], dtype=np.float64)
    chosen = np.floor(share * sizes).astype(np.int64)
    names = np.array([""]) if strata is None else np.unique(strata).astype(str)
    ties = _keys(names, f"extra:{key}")
    order = np.lexsort((ties, chosen - share * sizes))
    order = order[(chosen + 1 < sizes)[order]]
    chosen[order[: round(share * len(ids)) - chosen.sum()]] += 1
    first = np.zeros(len(ids), dtype=bool)
    for rows, size in zip(groups, chosen, strict=True):
        first[rows[np.argsort(_keys(ids[rows], key), kind="stable")][:size]] = True
    return first


def _strata(strata: NDArray[Any] | None, n: int) -> list[NDArray[np.intp]]:
    if strata is None:
        return [np.arange(n)]
    return [np.flatnonzero(strata == value) for value in np.unique(strata)]


def _keys(ids: NDArray[np.str_], key: str) -> NDArray[np.uint64]:
    """(n,) 64-bit keys of sample ids."""
    secret = hashlib.sha256(key.encode()).digest()
    digests = (
        hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8, key=secret).digest()
        for name in ids.tolist()
    )
    return np.frombuffer(b"".join(digests), dtype="<u8")

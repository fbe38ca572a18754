"""Splits and complementary halves, drawn from counter-based bits.

Each sample has a key: the first 8 bytes of BLAKE2b over its id, keyed by what is drawn. A cut
sorts the keys of each stratum, so that membership depends on the data set, its split, the seed
and the sample ids, and on nothing else: not on the model, the task, or the order of the rows.

Where samples come in groups, a group has the key, its value takes the place of the id, and its
most common stratum is its own. Groups of like size come in the order of their keys, large ones
first, and each goes to the side that lacks most.
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
    groups: NDArray[np.str_] | None = None,
) -> tuple[Rows, Rows]:
    """Return the rows (n,) of the training and of the evaluation split.

    Raises:
        InputError: no such column, one of the two splits is empty, or a given one cuts a group.
    """
    if split.column is not None:
        training, evaluation = _by_column(columns, split.column, split, data)
        if groups is not None:
            _refuse_cut_groups(groups, training, evaluation, split.column, data)
    else:
        share = 0.3 if split.test is None else float(split.test)
        evaluation = _share(ids, strata, groups, share, f"split:{split.seed}")
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


def _refuse_cut_groups(
    groups: NDArray[np.str_], training: Rows, evaluation: Rows, column: str, data: str
) -> None:
    cut_through = np.intersect1d(groups[training], groups[evaluation])
    if len(cut_through):
        more = f" and {len(cut_through) - 1} more" if len(cut_through) > 1 else ""
        raise InputError(
            f"data set '{data}': the split column '{column}' has samples of group "
            f"'{cut_through[0]}'{more} in both splits; put each group in one of them, or leave "
            "out 'groups'"
        )


def subset(ids: NDArray[np.str_], strata: NDArray[Any] | None, size: int, seed: int) -> Rows:
    """Draw ``size`` samples so that a larger subset holds all smaller ones of its seed.

    The sample of rank r (by its key, from 0) in a stratum of m is number (r + 1/2) / m in the
    queue from which the first ``size`` are taken: each stratum has its share, rounded.

    Returns:
        The chosen rows, (n,) bool.
    """
    drawn = keys(ids, f"subset:{seed}")
    place = np.empty(len(ids))
    for rows in _strata(strata, len(ids)):
        order = rows[np.argsort(drawn[rows], kind="stable")]
        place[order] = (np.arange(len(rows)) + 0.5) / len(rows)
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[np.lexsort((drawn, place))[:size]] = True
    return chosen


def halves(
    ids: NDArray[np.str_],
    strata: NDArray[Any] | None,
    split_digest: str,
    seed: int,
    groups: NDArray[np.str_] | None = None,
) -> tuple[Rows, Rows]:
    """Cut a training split into two complementary halves, stratified.

    Args:
        ids: (n,) ids of the training split.
        strata: (n,) labels to stratify by, or None.
        split_digest: identity of the data set's split, whatever the order of its rows.
        seed: which cut.
        groups: (n,) groups that stay whole, or None.

    Returns:
        Two disjoint (n,) bool arrays whose union is everything. Their sizes differ by at most
        one in each stratum; strata of odd size give their extra sample to the two in turn.
        With groups, sizes are as equal as whole groups in a random order make them.
    """
    if groups is not None:
        first = _whole_groups(groups, strata, 0.5, f"half:{split_digest}:{seed}", coin=True)
        return first, ~first
    first = np.zeros(len(ids), dtype=bool)
    extra_goes_first = bool(keys(np.array(["extra"]), f"{split_digest}:{seed}")[0] & 1)
    for rows in _strata(strata, len(ids)):
        order = rows[np.argsort(keys(ids[rows], f"half:{split_digest}:{seed}"), kind="stable")]
        size = len(rows) // 2
        if len(rows) % 2:
            size += extra_goes_first
            extra_goes_first = not extra_goes_first
        first[order[:size]] = True
    return first, ~first


def validation_part(
    ids: NDArray[np.str_],
    strata: NDArray[Any] | None,
    split_digest: str,
    groups: NDArray[np.str_] | None = None,
) -> Rows:
    """Return the (n,) rows of a training split on which penalties are compared: a fifth."""
    return _share(ids, strata, groups, VALIDATION_SHARE, f"validation:{split_digest}")


def _share(
    ids: NDArray[np.str_],
    strata: NDArray[Any] | None,
    groups: NDArray[np.str_] | None,
    share: float,
    key: str,
) -> Rows:
    if groups is None:
        return _first_share(ids, strata, share, key)
    return _whole_groups(groups, strata, share, key, coin=False)


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
    ties = keys(names, f"extra:{key}")
    order = np.lexsort((ties, chosen - share * sizes))
    order = order[(chosen + 1 < sizes)[order]]
    chosen[order[: round(share * len(ids)) - chosen.sum()]] += 1
    first = np.zeros(len(ids), dtype=bool)
    for rows, size in zip(groups, chosen, strict=True):
        first[rows[np.argsort(keys(ids[rows], key), kind="stable")][:size]] = True
    return first


def _whole_groups(
    groups: NDArray[np.str_], strata: NDArray[Any] | None, share: float, key: str, coin: bool
) -> Rows:
    """Choose whole groups (n,), so that near a share of all samples and of each stratum is chosen.

    Args:
        coin: whether a bit of the key decides where both sides are as good, and any group may be
            chosen. Otherwise the first group of a stratum is not chosen, so that no class is lost
            to the rest, and some group is chosen where a stratum has two.
    """
    names, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    stratum = _most_common(members, strata, len(names))
    own_keys = keys(names, key)
    # Sizes count by powers of two: by size alone, every seed would give nearly the same cut.
    order = np.lexsort((own_keys, -np.frexp(sizes)[1])).tolist()
    chosen = np.zeros(len(names), dtype=bool)
    total = 0.0  # how far the chosen samples exceed their share
    beyond: dict[int, float] = {}  # the same of each stratum
    spare = []  # groups that are not the first of their stratum
    for group in order:
        size, own = int(sizes[group]), int(stratum[group])
        # Below zero, choosing the group leaves the smaller squares of the two.
        gain = beyond.get(own, 0.0) + total + size * (1 - 2 * share)
        if coin:
            chosen[group] = gain < 0 or (gain == 0 and bool(own_keys[group] & 1))
        elif own in beyond:
            chosen[group] = gain < 0
            spare.append(group)
        change = size * (float(chosen[group]) - share)
        beyond[own] = beyond.get(own, 0.0) + change
        total += change
    if not coin and spare and not chosen.any():
        chosen[spare[-1]] = True
    return np.asarray(chosen[members])


def _most_common(
    members: NDArray[np.intp], strata: NDArray[Any] | None, n_groups: int
) -> NDArray[np.intp]:
    """(n_groups,) code of each group's most common stratum; ties go to the first in their order."""
    if strata is None:
        return np.zeros(n_groups, dtype=np.intp)
    values, codes = np.unique(strata, return_inverse=True)
    pairs, counts = np.unique(members * len(values) + codes, return_counts=True)
    owners, found = np.divmod(pairs, len(values))
    order = np.lexsort((found, -counts, owners))
    _, first = np.unique(owners[order], return_index=True)
    return np.asarray(found[order][first])


def _strata(strata: NDArray[Any] | None, n: int) -> list[NDArray[np.intp]]:
    if strata is None:
        return [np.arange(n)]
    return [np.flatnonzero(strata == value) for value in np.unique(strata)]


def queue(ids: NDArray[np.str_]) -> NDArray[np.uint64]:
    """(n,) keys of evaluated samples: where pairs take some examples, those with the smallest."""
    return keys(ids, "examples")


def keys(ids: NDArray[np.str_], key: str, words: int = 1) -> NDArray[np.uint64]:
    """(n,) 64-bit keys of sample ids; (n, words) where up to 8 words are asked for."""
    secret = hashlib.sha256(key.encode()).digest()
    digests = (
        hashlib.blake2b(
            name.encode(errors="surrogatepass"), digest_size=8 * words, key=secret
        ).digest()
        for name in ids.tolist()
    )
    found = np.frombuffer(b"".join(digests), dtype="<u8")
    return found if words == 1 else found.reshape(-1, words)

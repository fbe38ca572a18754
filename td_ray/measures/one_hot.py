"""Exact counts of differing examples by matrix products, on a GPU or another device of torch.

A row of codes becomes a row of zeros and ones: one column for each example and class, and a one
where the example has the class. Two rows agree on as many examples as they have ones in common:

    differences(a, b) = n - one_hot(a) . one_hot(b)

Zeros and ones are exact in every type; the sums must be so too. Where a GPU multiplies int8, they
are int32. Elsewhere they are float32, which holds every integer up to 2^24; a block has at most
16,384 examples, and what blocks find is added up in int32. The plain bfloat16 product, the usual
fast one, is not used: even where it sums in float32, it rounds the result to the eight bits of its
own type, so that counts above 256 come out wrong (of float16, counts above 2,048). A float32 result
would be right, but torch gives one only on CUDA, and there int8 is right with room to spare.

This takes C multiplications for an example of a pair, and bit planes ceil(log2 C) operations for 64
examples. It is for hardware that is made for products; a CPU can do it too, which is what tests
without a GPU rely on.

The module imports torch, so it is imported itself only when a device is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from td_ray.errors import InputError

# What bounds the memory: a one-hot matrix has at most so many rows and columns, an example and a
# class each; that is 64 MiB as bytes, 256 MiB as float32. Fewer classes than columns, so that there
# are examples enough for their padding to be little.
ROWS_AT_ONCE = 4096
COLUMNS_AT_ONCE = 2**14
CLASSES_AT_ONCE = 128

# Rows and examples of a block are padded to multiples of this. The int8 product of CUDA wants more
# than 16 rows and other sizes that are multiples of 8; with odd sizes some versions of cuBLAS have
# given wrong results.
MULTIPLE = 32
NO_CLASS = -1

# A byte for each class up to the largest tells which occur.
MOST_CLASSES = 2**24

Product = Callable[[Tensor, Tensor], Tensor]


def count_differences(
    codes_a: NDArray[np.integer], codes_b: NDArray[np.integer], device: str
) -> NDArray[np.int32]:
    """Examples on which rows differ, for every pair.

    Args:
        codes_a: (A, n) predicted classes, from 0; any integer type.
        codes_b: (B, n) predicted classes for the same examples. If it is the same array, tiles
            below the diagonal are mirrored, not counted.
        device: where the products are made: "cpu", "cuda" or "mps".

    Returns:
        (A, B) exact counts, those of `bit_planes.count_differences`.

    Raises:
        InputError: the device is unknown, or not on this machine; or a code is 2^24 or larger.
    """
    place = _find_device(device)
    for codes in (codes_a, codes_b):
        if codes.max(initial=0) >= MOST_CLASSES:
            raise InputError(f"code {codes.max()} is too large for a device; number classes from 0")
    classes = torch.from_numpy(_occurring(codes_a)).to(place)
    agreements = np.zeros((len(codes_a), len(codes_b)), dtype=np.int32)
    for rows in _blocks(len(codes_a), ROWS_AT_ONCE):
        for columns in _blocks(len(codes_b), ROWS_AT_ONCE):
            if codes_a is not codes_b:
                agreements[rows, columns] = _tile(codes_a[rows], codes_b[columns], classes)
            elif rows.start <= columns.start:
                a = codes_a[rows]
                b = a if rows == columns else codes_a[columns]
                agreements[rows, columns] = _tile(a, b, classes)
                agreements[columns, rows] = agreements[rows, columns].T
    return np.asarray(codes_a.shape[1] - agreements)


def _find_device(name: str) -> torch.device:
    """The device of a name, where this machine has it."""
    found = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name not in found:
        raise InputError(f"no device is called '{name}'; say 'cuda', 'mps' or 'cpu'")
    if not found[name]:
        raise InputError(
            f"device is '{name}', and torch sees none here; leave device out, and the CPU counts"
        )
    return torch.device(name)


def _occurring(codes: NDArray[np.integer]) -> NDArray[np.int32]:
    """Classes that occur, in order: labels such as 7 and 50,000 are two classes, not 50,001."""
    occurs = np.zeros(int(codes.max(initial=0)) + 1, dtype=bool)
    for row in codes:
        occurs[row] = True
    return np.flatnonzero(occurs).astype(np.int32)


def _tile(a: NDArray[np.integer], b: NDArray[np.integer], classes: Tensor) -> NDArray[np.int32]:
    """(A, B) examples on which rows of a (A, n) and b (B, n) agree, which may be the same array.

    The classes, int32 on the device, are those that occur in a: no others can be agreed upon.
    """
    product = _product(classes.device)
    shape = _padded(len(a)), _padded(len(b))
    agreements = torch.zeros(shape, dtype=torch.int32, device=classes.device)
    width = min(len(classes), CLASSES_AT_ONCE)
    step = MULTIPLE * max(1, COLUMNS_AT_ONCE // (MULTIPLE * width))
    for examples in _blocks(a.shape[1], step):
        left = _to_device(a[:, examples], classes.device)
        right = left if b is a else _to_device(b[:, examples], classes.device)
        for some in _blocks(len(classes), width):
            hot = _one_hot(left, classes[some])
            agreements += product(hot, hot if right is left else _one_hot(right, classes[some]))
    return np.asarray(agreements[: len(a), : len(b)].cpu().numpy())


def _to_device(codes: NDArray[np.integer], device: torch.device) -> Tensor:
    """Codes as int32, in both directions padded by what is no class and agrees with nothing."""
    rows, examples = codes.shape
    padded = np.full((_padded(rows), _padded(examples)), NO_CLASS, dtype=np.int32)
    padded[:rows, :examples] = codes
    return torch.from_numpy(padded).to(device)


def _one_hot(codes: Tensor, classes: Tensor) -> Tensor:
    """(rows, examples x classes) booleans of codes (rows, examples)."""
    return (codes[..., None] == classes).flatten(1)


@cache
def _product(device: torch.device) -> Product:
    """The fastest exact product of a device: (A, k) and (B, k) booleans to (A, B) int32."""
    # torch multiplies int8 on a CPU too; how fast depends on the processor.
    if device.type == "cuda" and _integers_are_right(device):
        return _integer_product
    return _float_product


def _integers_are_right(device: torch.device) -> bool:
    """Whether a device has the int8 product, as told by a small one with a known result.

    Old GPUs lack it, and torch gives it a private name, under which it may be gone one day.
    """
    hot = torch.ones(3 * MULTIPLE, 2 * MULTIPLE).tril().bool()
    left, right = hot, hot[:MULTIPLE].contiguous()
    try:
        found = _integer_product(left.to(device), right.to(device))
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(found.cpu(), _float_product(left, right))


def _integer_product(left: Tensor, right: Tensor) -> Tensor:
    # The second matrix stays a transposed view: with both as they lie, not all versions of cuBLAS
    # have an int8 product.
    return torch._int_mm(left.view(torch.int8), right.view(torch.int8).T)


def _float_product(left: Tensor, right: Tensor) -> Tensor:
    # A setting may let float32 products round their inputs to TF32 or bfloat16. Zeros and ones stay
    # what they are, and sums and result stay float32. Under autocast the result would not.
    with torch.autocast(left.device.type, enabled=False):
        return (left.float() @ right.float().T).int()


def _padded(size: int) -> int:
    return -(-size // MULTIPLE) * MULTIPLE


def _blocks(size: int, step: int) -> Iterator[slice]:
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))

"""Targets that are drawn for each sample id, whatever the sample is.

Number k of a seed takes its bits from BLAKE2b over the sample id, keyed by seed and k, so that
neither the order of rows nor other samples matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from td_ray import versions
from td_ray.files import Digest, fingerprint
from td_ray.tasks.dataset import DataSet
from td_ray.tasks.splits import keys
from td_ray.tasks.targets import Target

WORDS = 8  # of 64 bits; a digest of BLAKE2b has no more
BITS = 64 * WORDS


@dataclass(frozen=True, eq=False)
class GaussianTarget(Target):
    """Independent standard normal values."""

    seed: int
    number: int
    classes: tuple[str, ...] = ()

    def identity(self, digest: Digest) -> str:
        """See ``Target``."""
        return fingerprint([versions.TARGETS, "gaussian", self.seed, self.number])

    def values(self, data: DataSet) -> NDArray[np.float64]:
        """See ``Target``."""
        from scipy.special import ndtri

        words = _words(data, f"gaussian:{self.seed}:{self.number // WORDS}")
        # the middles of 2^53 equal steps: neither 0 nor 1
        uniform = ((words[:, self.number % WORDS] >> 11) + 0.5) / 2**53
        return np.asarray(ndtri(uniform))


@dataclass(frozen=True, eq=False)
class SignTarget(Target):
    """One of two labels, as a fair coin falls."""

    seed: int
    number: int
    classes: tuple[str, ...] = ("-1", "+1")

    def identity(self, digest: Digest) -> str:
        """See ``Target``."""
        return fingerprint([versions.TARGETS, "signs", self.seed, self.number])

    def values(self, data: DataSet) -> NDArray[np.int64]:
        """See ``Target``."""
        word, bit = divmod(self.number % BITS, 64)
        words = _words(data, f"signs:{self.seed}:{self.number // BITS}")
        return ((words[:, word] >> np.uint64(bit)) & np.uint64(1)).astype(np.int64)


@lru_cache(maxsize=4)
def _words(data: DataSet, key: str) -> NDArray[np.uint64]:
    """(n, WORDS) random words, shared by tasks that come one after the other."""
    return keys(data.ids, key, WORDS)

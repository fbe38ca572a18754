"""The seeds of stochastic heads: counter-based, so that a head's chance is its own.

The seed of a head is the first 63 bits of BLAKE2b over what the head is: the full training split,
half a or b of seed r, or the candidates of a search. It depends on nothing else: two models' heads
of one run share their seed (initial values and batch order), as they share their training rows, and
no two runs share one.
"""

from __future__ import annotations

import hashlib


def head_seed(seed: int | None, half: str | None) -> int:
    """The seed of the head on one half of a run's cut, or (None, None) on the full split."""
    return _seed("full" if seed is None else f"{seed}:{half}")


def search_seed() -> int:
    """The seed that all candidates of all searches share."""
    return _seed("search")


def _seed(words: str) -> int:
    digest = hashlib.blake2b(f"head:{words}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

"""Kinds of head, as an experiment names them: options, and how they are fitted.

A kind of head is a frozen pydantic class that derives from ``HeadKind`` and is registered under
its name. It is read while planning, so it imports torch (and ``td_ray.heads``, where the
mathematics is) only inside ``fit``.
"""

from td_ray.head_kinds.kind import HeadKind, Lap, SearchedKind

__all__ = ["HeadKind", "Lap", "SearchedKind"]

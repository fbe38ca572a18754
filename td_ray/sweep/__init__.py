"""How a sweep flows: plan, blocks of heads, tiles of pairs, tables.

``run`` is the whole way. The work itself is in ``td_ray.work``; this room decides where and when it
happens: in one process (``inline``), or on Ray.
"""

from td_ray.sweep.flow import run

__all__ = ["run"]

"""Groups of representations by what their metadata say.

A metadata key (or ``layer``) is shown where grouping by it says something: it has 2 to 12 values,
fewer than there are representations. A key that cuts the representations just as an earlier one
does is left out. So are keys that number replicates (``seed``, or a name that ends in ``_seed``),
unless nothing else is left: a seed is what differs within a group, not what a group shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from td_ray.results.names import group_names
from td_ray.results.td_matrix import TDMatrix

MOST_GROUPS = 12
_NOT_METADATA = ("tasks", "model", "number", "source")


@dataclass(frozen=True, eq=False)
class Grouping:
    """Means over groups of one metadata key.

    Attributes:
        key: the metadata key.
        means: (G, G + 1) mean td over pairs of distinct representations, within and between
            groups; the last column, ``floor``, is the group's mean noise floor.
        scores: (G,) mean held-out score.
        sizes: (G,) number of representations.
    """

    key: str
    means: pd.DataFrame
    scores: pd.Series[float]
    sizes: pd.Series[int]

    @property
    def names(self) -> list[str]:
        """Names of the groups."""
        return [str(name) for name in self.means.index]

    @property
    def mutual(self) -> pd.Series[float]:
        """(G,) mean td between distinct representations of a group; NaN for a group of one."""
        values = self.means[self.means.index].to_numpy(dtype=float)
        return pd.Series(values.diagonal(), index=self.means.index)

    @property
    def is_drawable(self) -> bool:
        """Whether a group has both a score and a td or floor to set against it."""
        heights = self.mutual.notna() | self.means["floor"].notna()
        return bool((heights & self.scores.notna()).any())


def grouping_keys(models: pd.DataFrame) -> list[str]:
    """The keys that are worth grouping by (see the module)."""
    chosen: dict[tuple[int, ...], str] = {}
    for key in models.columns:
        if key in _NOT_METADATA:
            continue
        values = pd.Series(group_names(models[key]))
        if not 2 <= values.nunique() <= min(MOST_GROUPS, len(values) - 1):
            continue
        chosen.setdefault(tuple(pd.factorize(values)[0]), str(key))
    keys = list(chosen.values())
    return [key for key in keys if not _numbers_replicates(key)] or keys


def _numbers_replicates(key: str) -> bool:
    return key.lower() == "seed" or key.lower().endswith("_seed")


def group(key: str, td: TDMatrix, scores: pd.Series[float]) -> Grouping:
    """Group one comparison; ``scores`` are in the order of the models."""
    groups = td.groups(key)
    means = td.group_means(key)
    return Grouping(
        key,
        means,
        scores.groupby(np.array(groups, dtype=object)).mean().reindex(means.index),
        pd.Series(groups).value_counts().reindex(means.index),
    )

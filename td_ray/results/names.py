"""What representations and their groups are called."""

from __future__ import annotations

from typing import Any

import pandas as pd


def labels(frame: pd.DataFrame, model: str = "model", layer: str = "layer") -> pd.Series[str]:
    """Names of representations: the model's, with ``@layer``."""
    return frame[model] + "@" + frame[layer]


def names_of(models: pd.DataFrame) -> list[str]:
    """As they are shown: ``model`` where the model has a single layer, else ``model@layer``."""
    alone = ~models["model"].duplicated(keep=False)
    return [str(name) for name in models["model"].where(alone, labels(models))]


def group_names(values: pd.Series[Any]) -> list[str]:
    """The name of each representation's group; whole numbers lose the ``.0`` that gaps add."""

    def name(value: Any) -> str:
        if pd.isna(value):
            return "(none)"
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        # The table of means has a column of that name, which is not a group.
        return "floor (group)" if value == "floor" else str(value)

    return [name(value) for value in values]

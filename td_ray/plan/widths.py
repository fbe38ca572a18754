"""Widths of features before there are any: as the cache, or a file's header, or a pass says."""

from __future__ import annotations

from collections.abc import Mapping

from td_ray.errors import InputError
from td_ray.features import FeatureStore
from td_ray.spec import Experiment
from td_ray.zoo import ArraySource, Representation

WIDTH_IF_UNKNOWN = 1024


class Widths:
    """Widths of the representations of an experiment, as far as they are known.

    Attributes:
        in_cache: of the arrays in this machine's cache, by key.
    """

    def __init__(self, experiment: Experiment) -> None:
        entries = FeatureStore.of(experiment).entries()
        self.in_cache = {entry.key: entry.width for entry in entries}
        self._folder = experiment.folder
        self._told: dict[str, int | None] = {}

    def known(self, representation: Representation, keys: Mapping[str, str | None]) -> int | None:
        """A width; None where nothing says it.

        Args:
            keys: of the features, by data set.
        """
        found = (self.in_cache.get(str(key)) for key in keys.values())
        width = next((each for each in found if each is not None), None)
        if width is not None:
            return width
        name, model = representation.name, representation.model
        if name not in self._told and isinstance(model, ArraySource):
            try:
                self._told[name] = model.width(self._folder, next(iter(keys)), representation.layer)
            except InputError:  # whoever reads the file says so
                self._told[name] = None
        return self._told.get(name)

    def of(self, representation: Representation, keys: Mapping[str, str | None]) -> int:
        """The same, or what is assumed where nothing says it."""
        return self.known(representation, keys) or WIDTH_IF_UNKNOWN

    def tell(self, representation: Representation, width: int) -> None:
        """Say the width of a representation."""
        self._told[representation.name] = width

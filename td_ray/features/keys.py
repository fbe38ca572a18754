"""What decides features, as a key; and one pass that gives several of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from td_ray import versions
from td_ray.errors import MachineError
from td_ray.files import Digest, fingerprint
from td_ray.tasks import DataSet
from td_ray.zoo import FeatureSource, NetworkSource, Representation


@dataclass(frozen=True)
class Pass:
    """One run of a model over a data set, for the layers that are wanted.

    Attributes:
        keys: of the features, by layer.
    """

    model: FeatureSource
    data: DataSet
    keys: Mapping[str, str]

    @property
    def who(self) -> str:
        """The model and the data set, for errors."""
        return f"model '{self.model.name}' on data set '{self.data.name}'"

    def alone(self, key: str) -> Pass:
        """The same for the one layer whose features have this key."""
        return replace(self, keys={x: other for x, other in self.keys.items() if other == key})


def features_key(
    representation: Representation, data: DataSet, folder: Path, digest: Digest
) -> str | None:
    """Return the fingerprint of a representation's features on a data set; None if not known."""
    source = representation.model
    identity = source.identity(folder, data.name, representation.layer, digest)
    inputs = None
    kind = [source.source, representation.layer]
    if isinstance(source, FeatureSource):
        kind.append(source.storage)
    if isinstance(source, NetworkSource):
        kind.extend(source.options())
        inputs = data.inputs_identity(digest)
        if inputs is None and data.samples.inputs is not None:
            return None
    if identity is None:
        return None
    return fingerprint([versions.FEATURES, kind, identity, inputs, data.ids_digest])


def require_unchanged(
    representation: Representation, data: DataSet, folder: Path, digest: Digest, key: str
) -> None:
    """Look at a model's files again, when its outputs have been read or computed.

    Raises:
        MachineError: they are not those that the key was made of.
    """
    if features_key(representation, data, folder, digest) != key:
        name = representation.model_name
        raise MachineError(f"the files of model '{name}' changed while it was at work; run again")

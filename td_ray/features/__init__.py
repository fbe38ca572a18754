"""The feature cache: one array per (model, layer, data set), found by its content.

    CACHE/features/<key>/features.npy     (samples, width) float32, or float16 where a model's
                                          `storage` says so; rows in the data set's order
    CACHE/features/<key>/about.json       whose features, their size, the SHA-256 of their bytes
    CACHE/features/.<key>/                an array that is being written

The key is a fingerprint of all that decides the values. An entry is written beside its place and
renamed into it, so that it is whole or not there. Readers map it; nothing is copied per process.
"""

from td_ray.features.keys import Pass, features_key, require_unchanged
from td_ray.features.store import Entry, Features, FeatureStore
from td_ray.features.writing import Writing

__all__ = [
    "Entry",
    "FeatureStore",
    "Features",
    "Pass",
    "Writing",
    "features_key",
    "require_unchanged",
]

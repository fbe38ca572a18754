"""Model sources, a file each, and the expansion of entries into single models.

A model source is a frozen pydantic class registered under its name. ``expand`` turns one entry
of the experiment (with globs and lists) into models; ``identity`` says which bytes decide its
outputs; ``check`` finds while planning what needs no heavy library. Sources that run a network
derive from ``NetworkSource``, those that have features from ``ArraySource``, those that have
outputs from ``PredictionSource``.
"""

from td_ray.zoo.representation import Representation, needed_by, resolve_representations
from td_ray.zoo.source import (
    ArraySource,
    FeatureSource,
    ModelSource,
    NetworkSource,
    PredictionSource,
)

__all__ = [
    "ArraySource",
    "FeatureSource",
    "ModelSource",
    "NetworkSource",
    "PredictionSource",
    "Representation",
    "needed_by",
    "resolve_representations",
]

"""Model sources, a file each, and the expansion of entries into single models.

A model source is a frozen pydantic class registered under its name. ``expand`` turns one entry
of the experiment (with globs and lists) into models; ``identity`` says which bytes decide its
outputs; ``check`` finds while planning what needs no heavy library. Sources that give features
derive from ``FeatureSource``, those that already have outputs from ``PredictionSource``.
"""

from td_ray.zoo.representation import Representation, resolve_representations
from td_ray.zoo.source import FeatureSource, ModelSource, PredictionSource

__all__ = [
    "FeatureSource",
    "ModelSource",
    "PredictionSource",
    "Representation",
    "resolve_representations",
]

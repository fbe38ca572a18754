"""The experiment: what a user asks for, as frozen pydantic models read from YAML.

An experiment names models, data sets, tasks and heads. Everything that follows (the plan, the
units of work, their fingerprints) is computed from it and from the bytes it points to.
"""

from td_ray.spec.cluster import Cluster, require_target
from td_ray.spec.entries import DataEntry, Frozen, Kind, ModelEntry, Name, Scalar, Split, Words
from td_ray.spec.experiment import Experiment, default_cache
from td_ray.spec.heads import HeadSpec
from td_ray.spec.pairs import PairRule
from td_ray.spec.resources import Resources
from td_ray.spec.tasks import Family, TaskSpec

__all__ = [
    "Cluster",
    "DataEntry",
    "Experiment",
    "Family",
    "Frozen",
    "HeadSpec",
    "Kind",
    "ModelEntry",
    "Name",
    "PairRule",
    "Resources",
    "Scalar",
    "Split",
    "TaskSpec",
    "Words",
    "default_cache",
    "require_target",
]

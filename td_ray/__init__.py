"""td-ray: how different are these networks, really?

Transferred Discrepancy between pretrained networks: fit the best head on each one's frozen
features for the same task, then count how often the two heads' predictions differ.

    from td_ray import Experiment, run
    results = run(Experiment.load("experiment.yaml"))
    results.matrix("digit")

For two arrays of features, ``transferred_discrepancy`` needs neither files nor Ray; for predicted
classes that are there already, ``pairwise_disagreement`` does not even need features.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from td_ray.arrays.discrepancy import (
        directed_discrepancy,
        pairwise_disagreement,
        pairwise_discrepancy,
        transferred_discrepancy,
    )
    from td_ray.arrays.feature_comparison import pairwise_measure
    from td_ray.errors import InputError, PartialMatrixWarning, RunError, TdRayError, WorkError
    from td_ray.results.mantel import compare_matrices
    from td_ray.results.tables import Results, open_results
    from td_ray.results.td_matrix import TDMatrix, mean_matrix
    from td_ray.spec import Experiment
    from td_ray.sweep import run

__all__ = [
    "Experiment",
    "InputError",
    "PartialMatrixWarning",
    "Results",
    "RunError",
    "TDMatrix",
    "TdRayError",
    "WorkError",
    "compare_matrices",
    "directed_discrepancy",
    "mean_matrix",
    "open_results",
    "pairwise_disagreement",
    "pairwise_discrepancy",
    "pairwise_measure",
    "run",
    "transferred_discrepancy",
]

_HOMES = {
    "Experiment": "td_ray.spec",
    "Results": "td_ray.results.tables",
    "TDMatrix": "td_ray.results.td_matrix",
    "compare_matrices": "td_ray.results.mantel",
    "mean_matrix": "td_ray.results.td_matrix",
    "directed_discrepancy": "td_ray.arrays.discrepancy",
    "open_results": "td_ray.results.tables",
    "pairwise_disagreement": "td_ray.arrays.discrepancy",
    "pairwise_discrepancy": "td_ray.arrays.discrepancy",
    "pairwise_measure": "td_ray.arrays.feature_comparison",
    "run": "td_ray.sweep",
    "transferred_discrepancy": "td_ray.arrays.discrepancy",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line starts fast."""
    if name not in __all__:
        raise AttributeError(f"module 'td_ray' has no attribute '{name}'")
    return getattr(import_module(_HOMES.get(name, "td_ray.errors")), name)

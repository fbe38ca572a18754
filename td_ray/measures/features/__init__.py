"""Measures between feature matrices: what they compare is geometry, and knows of no task.

Each measure is a module of its own with its formula at the top. What takes time is done once for
each model (`prepare`: whitening, ranks, neighbours), and what comes of it is compared for all
pairs of two lists of models (`compare`), mostly as one matrix product.

    measure = find_feature_measure("gulp", {"l": 0.1})
    states = [measure.prepare(features) for features in models]
    measure.compare(states, states)

The n rows of all matrices are the same n examples; widths may differ.
"""

from td_ray.measures.features.measure import (
    FeatureMeasure,
    feature_measures,
    find_feature_measure,
)

__all__ = ["FeatureMeasure", "feature_measures", "find_feature_measure"]

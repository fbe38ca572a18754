"""The tables of a result, in one place.

Each table is a folder of plain Parquet under ``OUTPUT/results``. All nullable columns are there
from the first day; intervals and tests stay null until something computes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

_NAME = pa.string()

MODELS = pa.schema(
    [
        pa.field("model", _NAME, nullable=False),
        pa.field("layer", _NAME, nullable=False),
        pa.field("number", pa.int32(), nullable=False),  # order of arrival; never changes
        pa.field("source", _NAME, nullable=False),
        pa.field("metadata", pa.string(), nullable=False),  # a JSON object
        # lines of the experiment, each a task or a family, that it takes part in
        pa.field("tasks", pa.list_(pa.string()), nullable=False),
    ]
)

TASKS = pa.schema(
    [
        pa.field("task", _NAME, nullable=False),
        pa.field("family", _NAME),  # the line of the experiment that stands for several tasks
        pa.field("data", _NAME, nullable=False),  # the data set that is fitted
        pa.field("evaluated_on", pa.list_(_NAME), nullable=False),
        pa.field("target", _NAME),  # null where it is drawn
        pa.field("kind", _NAME, nullable=False),
        pa.field("classes", pa.list_(pa.string()), nullable=False),  # in code order
        pa.field("distance", pa.string()),  # of regression: cosine, mean or none
        pa.field("center", pa.float64()),  # of regression: the training mean of the target
        pa.field("n_train", pa.int64(), nullable=False),
    ]
)

SAMPLES = pa.schema(
    [
        pa.field("data", _NAME, nullable=False),
        pa.field("ids_digest", pa.string(), nullable=False),  # of the predictions made on them
        pa.field("position", pa.int64(), nullable=False),  # row of stored predictions
        pa.field("id", pa.string(), nullable=False),
    ]
)

_HEAD_KEY = [
    pa.field("model", _NAME, nullable=False),
    pa.field("layer", _NAME, nullable=False),
    pa.field("task", _NAME, nullable=False),
    pa.field("data", _NAME, nullable=False),  # the data set that is predicted
    pa.field("head", _NAME, nullable=False),
    pa.field("seed", pa.int32()),  # null: fitted on the full training split
    pa.field("half", pa.string()),  # "a" or "b"; null for the full split
]

_HEAD_FACTS = [
    pa.field("penalty", pa.float64()),  # of exact heads; null for all others
    pa.field("penalty_source", pa.string()),  # "fixed" or "grid"
    pa.field("penalty_at_edge", pa.bool_()),
    pa.field("hyperparameters", pa.string()),  # of stochastic heads, a JSON object
    pa.field("train_score", pa.float64()),  # accuracy, or R2 of regression, on its training rows
    pa.field("score", pa.float64()),  # the same on the evaluation split
    pa.field("loss", pa.float64()),  # on its training rows, with the penalty of exact heads
    pa.field("gradient_norm", pa.float64()),  # largest absolute entry of its gradient
    pa.field("iterations", pa.int32()),  # or steps of stochastic heads
    pa.field("absent_classes", pa.list_(pa.string())),  # had no training weight
    pa.field("n_train", pa.int64()),
    pa.field("n_evaluation", pa.int64(), nullable=False),
    pa.field("width", pa.int32()),  # of the features
]

# A part of one search: a row per candidate, in their order.
SEARCH_PART = pa.schema(
    [
        pa.field("candidate", pa.int32(), nullable=False),
        pa.field("hyperparameters", pa.string(), nullable=False),  # a JSON object
        pa.field("epochs", pa.int32(), nullable=False),  # it was trained for
        pa.field("loss", pa.float64()),  # mean on the validation rows; null where it diverged
        pa.field("chosen", pa.bool_(), nullable=False),
        pa.field("at_edge", pa.list_(pa.string()), nullable=False),  # ends of their lists
        pa.field("reason", pa.string()),  # why it has no loss
    ]
)

SEARCHES = pa.schema(
    [
        pa.field("model", _NAME, nullable=False),
        pa.field("layer", _NAME, nullable=False),
        pa.field("task", _NAME, nullable=False),
        pa.field("head", _NAME, nullable=False),
        *SEARCH_PART,
    ]
)

_PREDICTION_FACTS = [
    pa.field("encoding", pa.string(), nullable=False),  # "uint8", "uint16", "uint32", "float32"
    pa.field("predictions", pa.binary(), nullable=False),  # little-endian, one per sample
    pa.field("ids_digest", pa.string(), nullable=False),
    # of the classes in code order: float32, little-endian, row by row; null unless a measure needs
    # them
    pa.field("probabilities", pa.binary()),
    # of the training samples: codes like the predictions, or float64; only in the first row of a
    # head on the full split, and only where a measure needs them
    pa.field("train_predictions", pa.binary()),
]

# A part of one unit of features: a row per sample, in the order in which samples are drawn.
FEATURE_PART = pa.schema(
    [
        pa.field("encoding", pa.string(), nullable=False),  # "float32" or "float16"
        pa.field("features", pa.binary(), nullable=False),  # little-endian
    ]
)

HEADS = pa.schema([*_HEAD_KEY, *_HEAD_FACTS])
PREDICTIONS = pa.schema([*_HEAD_KEY, *_PREDICTION_FACTS])

# A part of one unit: its key names model, task and head, so the rows need only what varies.
HEAD_PART = pa.schema([*_HEAD_KEY[3:4], *_HEAD_KEY[5:], *_HEAD_FACTS, *_PREDICTION_FACTS])

_PAIR_VALUES = [
    pa.field("value", pa.float64()),
    # Halves of the training split: these four are at half its size.
    pa.field("floor_a", pa.float64()),
    pa.field("floor_b", pa.float64()),
    pa.field("tdx", pa.float64()),
    pa.field("excess", pa.float64()),
    pa.field("n_examples", pa.int64(), nullable=False),
    pa.field("n_seeds", pa.int32(), nullable=False),
    pa.field("se", pa.float64()),  # of the value, over evaluation examples
    pa.field("ci_low", pa.float64()),
    pa.field("ci_high", pa.float64()),
    pa.field("p", pa.float64()),
    pa.field("reason", pa.string()),  # why a value is null
]

PAIRS_KEY = [
    pa.field("task", pa.string()),  # null for measures of features
    pa.field("data", _NAME, nullable=False),
    pa.field("head", pa.string()),  # likewise
    pa.field("measure", _NAME, nullable=False),
]

# Row groups are tiles of representations by their numbers, whose statistics find a model's rows.
PAIRS = pa.schema(
    [
        pa.field("number_a", pa.int32(), nullable=False),
        pa.field("number_b", pa.int32(), nullable=False),
        pa.field("model_a", _NAME, nullable=False),
        pa.field("model_b", _NAME, nullable=False),
        pa.field("layer_a", _NAME, nullable=False),
        pa.field("layer_b", _NAME, nullable=False),
        *PAIRS_KEY,
        *_PAIR_VALUES,
    ]
)

# A part of one tile: representations by their numbers.
PAIR_PART = pa.schema(
    [
        pa.field("a", pa.int32(), nullable=False),
        pa.field("b", pa.int32(), nullable=False),
        *_PAIR_VALUES,
    ]
)


def pair_part(known: Mapping[str, Any]) -> pa.Table:
    """A part of pairs from the columns that are known; the others, and NaN, are null."""
    rows = len(known["a"])
    arrays = [
        pa.array(known[field.name], field.type, from_pandas=True)
        if field.name in known
        else pa.nulls(rows, field.type)
        for field in PAIR_PART
    ]
    return pa.Table.from_arrays(arrays, schema=PAIR_PART)


# What the pairs of one matrix share, and how their values read.
COMPARISONS = pa.schema(
    [
        *PAIRS_KEY,
        pa.field("low", pa.float64(), nullable=False),  # smallest possible value
        pa.field("high", pa.float64(), nullable=False),
        pa.field("is_similarity", pa.bool_(), nullable=False),  # higher is more similar
        pa.field("is_squared", pa.bool_(), nullable=False),  # the root is the metric
        pa.field("is_symmetric", pa.bool_(), nullable=False),  # else a row is a to b
        pa.field("itself", pa.float64()),  # between equal representations, where that is fixed
        pa.field("source", pa.string(), nullable=False),  # of the formula
        pa.field("pairs", pa.int64(), nullable=False),
        pa.field("without_value", pa.int64(), nullable=False),
    ]
)

FAILURES = pa.schema(
    [
        pa.field("model", pa.string()),
        pa.field("layer", pa.string()),
        pa.field("task", pa.string()),
        pa.field("head", pa.string()),
        pa.field("stage", pa.string(), nullable=False),  # "features", "search", "heads" or "pairs"
        pa.field("error", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
    ]
)

TIMINGS = pa.schema(
    [
        pa.field("unit", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("host", pa.string(), nullable=False),
    ]
)

TABLES = {
    "models": MODELS,
    "tasks": TASKS,
    "samples": SAMPLES,
    "heads": HEADS,
    "searches": SEARCHES,
    "predictions": PREDICTIONS,
    "pairs": PAIRS,
    "comparisons": COMPARISONS,
    "failures": FAILURES,
    "timings": TIMINGS,
}

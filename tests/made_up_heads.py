"""Outputs of made-up heads, and every measure by its definition, example by example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from td_ray.measures import Examples, Outputs
from td_ray.measures.example_blocks import example_blocks
from td_ray.tasks.splits import keys

Array = np.ndarray[Any, Any]


def examples_of(truth: Array, n_classes: int, blocks: int = 40) -> Examples:
    own = example_blocks(keys(np.arange(len(truth)).astype(str), "blocks"), truth, blocks)
    return Examples(own, truth, n_classes)


def made_up(rows: int, examples: Examples, seed: int, skill: float = 2.0) -> Outputs:
    """Heads whose predicted class is that of the largest probability."""
    random = np.random.default_rng(seed)
    truth, classes = examples.truth, examples.n_classes
    assert truth is not None
    scores = random.normal(size=(rows, len(truth), classes))
    scores[:, np.arange(len(truth)), truth] += skill
    probabilities = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    probabilities = probabilities.astype(np.float32)
    codes = probabilities.argmax(-1).astype(np.min_scalar_type(classes - 1))
    return Outputs(codes, examples, probabilities)


def _kappa(observed: float, by_chance: float) -> float:
    return (observed - by_chance) / (1 - by_chance) if by_chance < 1 else np.nan


def _cohen(a: Array, b: Array, y: Array, classes: int, p: Array, q: Array) -> float:
    shares = [np.bincount(each, minlength=classes) / len(each) for each in (a, b)]
    return _kappa(float((a == b).mean()), float(shares[0] @ shares[1]))


def _consistency(a: Array, b: Array, y: Array, classes: int, p: Array, q: Array) -> float:
    e, f = (a != y).mean(), (b != y).mean()
    return _kappa(float(((a == y) == (b == y)).mean()), (1 - e) * (1 - f) + e * f)


def _bounds(a: Array, b: Array, y: Array, classes: int) -> tuple[float, float]:
    e, f = (a != y).mean(), (b != y).mean()
    return abs(e - f), min(e + f, 2 - e - f if classes == 2 else 1.0)


def _min_max(a: Array, b: Array, y: Array, classes: int, p: Array, q: Array) -> float:
    low, high = _bounds(a, b, y, classes)
    return ((a != b).mean() - low) / (high - low) if high - low > 1e-9 else np.nan


def _macro(a: Array, b: Array, y: Array, classes: int, p: Array, q: Array) -> float:
    return float(np.mean([(a != b)[y == c].mean() for c in np.unique(y)]))


def _divergence(a: Array, b: Array, y: Array, classes: int, p: Array, q: Array) -> float:
    from scipy.special import rel_entr

    p, q = p.astype(float), q.astype(float)
    both = rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)
    return float(both.sum(axis=1).mean() / 2)


def _gain(a: Array, b: Array, y: Array, classes: int, p: Array, q: Array) -> float:
    together = (p.astype(float) + q).argmax(1) == y
    return float(together.mean() - max((a == y).mean(), (b == y).mean()))


Definition = Callable[[Array, Array, Array, int, Array, Array], float]
NAN = float("nan")

DEFINITIONS: dict[str, Definition] = {
    "td": lambda a, b, *_: (a != b).mean(),
    "td_macro": _macro,
    "td_lower_bound": lambda a, b, y, c, p, q: _bounds(a, b, y, c)[0],
    "td_upper_bound": lambda a, b, y, c, p, q: _bounds(a, b, y, c)[1],
    "td_min_max": _min_max,
    "td_over_errors": lambda a, b, y, *_: (
        (a != b).mean() / ((a != y).mean() + (b != y).mean())
        if ((a != y) | (b != y)).any()
        else NAN
    ),
    "cohen_kappa": _cohen,
    "both_wrong_different": lambda a, b, y, *_: ((a != y) & (b != y) & (a != b)).mean(),
    "error_consistency": _consistency,
    "oracle_accuracy": lambda a, b, y, *_: ((a == y) | (b == y)).mean(),
    "negative_flip_rate": lambda a, b, y, *_: ((a == y) & (b != y)).mean(),
    "positive_flip_rate": lambda a, b, y, *_: ((a != y) & (b == y)).mean(),
    "backward_compatibility": lambda a, b, y, *_: (
        (b == y)[a == y].mean() if (a == y).any() else NAN
    ),
    "js_divergence": _divergence,
    "ensemble_gain": _gain,
}


def by_definition(name: str, a: Outputs, b: Outputs, chosen: Any = slice(None)) -> Array:
    """(A, B) values on some of the examples."""
    y, classes = a.examples.truth, a.examples.n_classes
    assert y is not None
    assert a.probabilities is not None
    assert b.probabilities is not None
    define = DEFINITIONS[name]
    return np.array(
        [
            [
                define(u[chosen], v[chosen], y[chosen], classes, p[chosen], q[chosen])
                for v, q in zip(b.predicted, b.probabilities, strict=True)
            ]
            for u, p in zip(a.predicted, a.probabilities, strict=True)
        ]
    ).reshape(len(a), len(b))

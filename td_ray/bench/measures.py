"""Pairs per second of the measures of features, against the loop that people write.

    td_ray      each model is prepared once; pairs are compared together
    naive_loop  everything is computed again for every pair, as papers' code snippets do it: numpy
                with BLAS, in the space of features or of examples, whichever is the cheaper here

Features are simulated, with a spectrum that decays as that of networks does. The loop runs on pairs
of a few of the models, whose widths cover all; a pair costs it the same with more. Both give the
same numbers, which is checked, and both have one thread: on a busy machine, what two gain would be
a matter of luck.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from td_ray.arrays.feature_comparison import pairwise_measure
from td_ray.bench.measure import in_fresh_process, limited, peak_growth
from td_ray.measures.features import find_feature_measure

MODELS, MODELS_OF_LOOP = 50, 4
EXAMPLES = 2000
WIDTHS = (256, 768)

Row = dict[str, Any]
Features = NDArray[Any]
Definition = Callable[[Features, Features], float]


def run(progress: Callable[[str], None] = lambda line: None) -> list[Row]:
    """Compare both ways for every measure."""
    rows = []
    features = simulated(EXAMPLES, MODELS)
    for measure, definition in DEFINITIONS.items():
        seconds, growth, found = in_fresh_process(partial(_ours, measure, EXAMPLES, MODELS))
        per_pair, expected = _loop(definition, features)
        chosen = list(expected)
        few = found[np.ix_(chosen, chosen)]
        values = [[expected[a].get(b, np.nan) for b in chosen] for a in chosen]
        above = np.triu_indices(len(chosen), 1)
        # rsa ties what float32 features cannot tell apart, and the loop ranks it
        bound = 1e-5 if measure == "rsa" else 1e-6
        np.testing.assert_allclose(few[above], np.array(values)[above], rtol=bound, atol=bound)
        loop = _row("naive_loop", measure, len(chosen), 1 / per_pair, None)
        ours = _row("td_ray", measure, MODELS, MODELS * (MODELS - 1) / 2 / seconds, growth)
        for row in (ours, loop):
            row["times_naive"] = row["pairs_per_second"] / loop["pairs_per_second"]
            rows.append(row)
            progress(f"{measure}, {row['method']}")
    return rows


def simulated(examples: int, models: int) -> list[NDArray[np.float32]]:
    """(examples, width) features of each model: a part of them shared, a spectrum like 1 / k."""
    random = np.random.default_rng(0)
    shared = random.standard_normal((examples, WIDTHS[1]), np.float32)
    found = []
    for width in np.linspace(*WIDTHS, models).astype(int):
        spectrum = (1 / np.sqrt(np.arange(1, width + 1))).astype(np.float32)
        own = random.standard_normal((examples, width), np.float32)
        mixed = (shared[:, :width] + 0.5 * own) * spectrum
        found.append(mixed @ random.standard_normal((width, width), np.float32) + 1)
    return found


def _ours(measure: str, examples: int, models: int) -> tuple[float, int | None, Features]:
    features = simulated(examples, models)
    named = {str(number): each for number, each in enumerate(features)}
    pairwise_measure({name: named[name] for name in list(named)[:2]}, measure)  # imports
    with limited(1):
        started = time.perf_counter()
        table, growth = peak_growth(lambda: pairwise_measure(named, measure))
        seconds = time.perf_counter() - started
    return seconds, growth, table.to_numpy()


def _loop(
    definition: Definition, features: list[NDArray[np.float32]]
) -> tuple[float, Mapping[int, Mapping[int, float]]]:
    """Seconds for each pair, and values by the numbers of the models."""
    chosen = np.linspace(0, len(features) - 1, MODELS_OF_LOOP).astype(int).tolist()
    definition(features[chosen[0]], features[chosen[1]])
    found: dict[int, dict[int, float]] = {number: {} for number in chosen}
    pairs = list(combinations(chosen, 2))
    with limited(1):
        started = time.perf_counter()
        for a, b in pairs:
            found[a][b] = definition(features[a], features[b])
        seconds = time.perf_counter() - started
    return seconds / len(pairs), found


def _row(method: str, measure: str, models: int, rate: float, growth: int | None) -> Row:
    return {
        "benchmark": "measures",
        "case": f"{EXAMPLES:,} examples, widths {WIDTHS[0]} to {WIDTHS[1]}",
        "method": method,
        "measure": measure,
        "models": models,
        "pairs_per_second": rate,
        "times_naive": None,
        "peak_memory_bytes": growth,
    }


def _centred(x: Features) -> Features:
    x = x.astype(np.float64)
    return np.asarray(x - x.mean(axis=0))


def _cka(x: Features, y: Features) -> float:
    x, y = _centred(x), _centred(y)
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / norms)


def _cka_debiased(x: Features, y: Features) -> float:
    kernels = []
    for each in (x, y):
        kernel = each.astype(np.float64) @ each.T.astype(np.float64)
        np.fill_diagonal(kernel, 0)
        kernels.append(kernel)
    k, other = kernels

    def hsic(a: Features, b: Features) -> float:
        n = len(a)
        means = a.sum() * b.sum() / ((n - 1) * (n - 2))
        return float((a * b).sum() + means - 2 / (n - 2) * (a.sum(axis=0) @ b.sum(axis=0)))

    return hsic(k, other) / float(np.sqrt(hsic(k, k) * hsic(other, other)))


def _cca(x: Features, y: Features) -> float:
    bases = [np.linalg.qr(_centred(each))[0] for each in (x, y)]
    return float(np.mean(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False) ** 2))


def _procrustes(x: Features, y: Features) -> float:
    x, y = _centred(x), _centred(y)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    return float(2 - 2 * np.linalg.norm(x.T @ y, "nuc"))


def _gulp(x: Features, y: Features) -> float:
    penalty = find_feature_measure("gulp").options["l"]
    x, y = _centred(x), _centred(y)
    x = x / np.sqrt(np.square(x).sum(axis=1).mean())
    y = y / np.sqrt(np.square(y).sum(axis=1).mean())
    s, t, c = x.T @ x / len(x), y.T @ y / len(y), x.T @ y / len(x)
    zs = np.linalg.solve(s + penalty * np.eye(len(s)), np.hstack([s, c]))
    wt = np.linalg.solve(t + penalty * np.eye(len(t)), np.hstack([t, c.T]))
    zs, zc, wt, wc = zs[:, : len(s)], zs[:, len(s) :], wt[:, : len(t)], wt[:, len(t) :]
    return float((zs * zs.T).sum() + (wt * wt.T).sum() - 2 * (zc * wc.T).sum())


def _rsa(x: Features, y: Features) -> float:
    from scipy.stats import spearmanr

    found = []
    for each in (x, y):
        correlation: Features = np.asarray(np.corrcoef(each.astype(np.float64)))
        found.append(1 - correlation[np.triu_indices(len(x), 1)])
    return float(spearmanr(*found).statistic)


def _knn(x: Features, y: Features) -> float:
    k = find_feature_measure("knn").options["k"]
    near = []
    for each in (x, y):
        each = each.astype(np.float64)
        unit = each / np.linalg.norm(each, axis=1, keepdims=True)
        similar = unit @ unit.T
        np.fill_diagonal(similar, -np.inf)
        near.append(np.argpartition(similar, -k, axis=1)[:, -k:])
    shared = [len(np.intersect1d(a, b)) for a, b in zip(*near, strict=True)]
    return float(np.mean(shared) / k)


DEFINITIONS: Mapping[str, Definition] = {
    "cka": _cka,
    "cka_debiased": _cka_debiased,
    "cca": _cca,
    "procrustes": _procrustes,
    "gulp": _gulp,
    "rsa": _rsa,
    "knn": _knn,
}

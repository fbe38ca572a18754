"""The measures of features by their definitions, written differently: whole kernels, one pair."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import orthogonal_procrustes, subspace_angles
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors

Array = np.ndarray[Any, Any]


def _centring(n: int) -> Array:
    return np.eye(n) - np.ones((n, n)) / n


def cka(x: Array, y: Array) -> float:
    """Whole kernels, centred from both sides; HSIC as traces."""
    h = _centring(len(x))
    k, other = x @ x.T, y @ y.T

    def hsic(one: Array, two: Array) -> float:
        return float(np.trace(one @ h @ two @ h))

    return hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other))


def cka_debiased(x: Array, y: Array) -> float:
    """Song et al. 2012, equation 5, on kernels that are not centred."""

    def hsic(k: Array, other: Array) -> float:
        n = len(k)
        k, other = k - np.diag(np.diag(k)), other - np.diag(np.diag(other))
        one = np.ones(n)
        means = (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
        inner = np.trace(k @ other) + means - 2 / (n - 2) * (one @ k @ other @ one)
        return float(inner / (n * (n - 3)))

    k, other = x @ x.T, y @ y.T
    return hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other))


def cca(x: Array, y: Array) -> float:
    """Cosines of the principal angles between the spans; the rank is that of scipy's `orth`."""
    x, y = (m - m.mean(0) for m in (x, y))
    return float(np.mean(np.cos(subspace_angles(_basis(x), _basis(y))) ** 2))


def _basis(x: Array) -> Array:
    """Columns that span the same, by QR with pivoting."""
    from scipy.linalg import qr

    q, r, _ = qr(x, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(r))
    return np.asarray(q[:, diagonal > 1e-10 * diagonal[0]])


def ridge_cca(x: Array, y: Array, ridge: float) -> float:
    """tr(P P') / min rank, from the inverses of covariances."""
    k, other = (ridge_kernel(m, ridge) for m in (x, y))
    ranks = [np.linalg.matrix_rank(m - m.mean(0)) for m in (x, y)]
    return float(np.trace(k @ other) / min(ranks))


def ridge_kernel(x: Array, penalty: float) -> Array:
    """(n, n) X (S + penalty I)^-1 X' / n."""
    x = x - x.mean(0)
    x = x / np.sqrt(np.square(x).sum(1).mean())
    s = x.T @ x / len(x)
    return np.asarray(x @ np.linalg.inv(s + penalty * np.eye(len(s))) @ x.T / len(x))


def gulp(x: Array, y: Array, penalty: float) -> float:
    """The three traces."""
    x, y = (m - m.mean(0) for m in (x, y))
    x, y = (m / np.sqrt(np.square(m).sum(1).mean()) for m in (x, y))
    n = len(x)
    s, t, c = x.T @ x / n, y.T @ y / n, x.T @ y / n
    z = np.linalg.inv(s + penalty * np.eye(len(s)))
    w = np.linalg.inv(t + penalty * np.eye(len(t)))
    traces = np.trace(z @ s @ z @ s) + np.trace(w @ t @ w @ t) - 2 * np.trace(z @ c @ w @ c.T)
    return float(traces)


def procrustes(x: Array, y: Array) -> float:
    """What scipy's best rotation leaves, columns of zeros added to the narrower one."""
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(m - m.mean(0), ((0, 0), (0, width - m.shape[1]))) for m in (x, y))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    rotation, _ = orthogonal_procrustes(y, x)
    return float(np.linalg.norm(x - y @ rotation) ** 2)


def rsa(
    x: Array, y: Array, dissimilarity: str = "correlation", correlation: str = "spearman"
) -> float:
    """Scipy's distances and scipy's correlations."""
    one, other = (pdist(m, dissimilarity) for m in (x, y))
    if correlation == "spearman":
        return float(spearmanr(one, other).statistic)
    return float(np.corrcoef(one, other)[0, 1])


def knn(x: Array, y: Array, k: int = 10) -> float:
    """scikit-learn's neighbours; sets, an example at a time."""
    found = []
    for m in (x, y):
        unit = m / np.linalg.norm(m, axis=1, keepdims=True)
        found.append(NearestNeighbors(n_neighbors=k, algorithm="brute").fit(unit).kneighbors()[1])
    shared = [len(set(a.tolist()) & set(b.tolist())) / k for a, b in zip(*found, strict=True)]
    return float(np.mean(shared))

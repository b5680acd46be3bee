"""A small k-means that gives the same clusters on every machine for one seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MAX_ROUNDS = 300


def kmeans(points: NDArray[np.floating], clusters: int, seed: int) -> NDArray[np.int64]:
    """Cluster labels (N,) in 0 .. clusters - 1 of points (N, C): k-means++ seeding, then Lloyd's rounds.

    Points are compared in float64; ties go to the lower label. A cluster that loses all its points takes the point
    farthest from its own centre, so no label is unused unless there are fewer distinct points than clusters.

    Args:
        points: finite.
        clusters: k, at most N.
        seed: decides the seeding.
    """
    data = points.astype(np.float64)  # (N, C): in float32 two machines may break a tie differently
    centres = _seeded(data, clusters, np.random.default_rng(seed))
    labels = np.full(len(data), -1)
    for _ in range(_MAX_ROUNDS):
        distances = _squared_distances(data, centres)  # (N, k)
        new = distances.argmin(1)
        _fill_empty(new, distances, clusters)
        if np.array_equal(new, labels):  # settled: another round would move no centre
            break
        labels = new
        for label in range(clusters):
            members = data[labels == label]
            if len(members):
                centres[label] = members.mean(0)
    return labels.astype(np.int64)


def _seeded(data: NDArray[np.float64], clusters: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """k-means++ (Arthur and Vassilvitskii 2007): each next centre is a point drawn by its squared distance."""
    chosen = [int(rng.integers(len(data)))]
    nearest = _squared_distances(data, data[chosen])[:, 0]  # (N,), to the nearest centre so far
    while len(chosen) < clusters:
        total = nearest.sum()
        weights = nearest / total if total > 0 else np.full(len(data), 1 / len(data))
        chosen.append(int(rng.choice(len(data), p=weights)))
        nearest = np.minimum(nearest, _squared_distances(data, data[chosen[-1:]])[:, 0])
    return data[chosen].copy()


def _squared_distances(data: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    squared: NDArray[np.float64] = (data**2).sum(1)[:, None] - 2 * data @ centres.T + (centres**2).sum(1)[None]
    return np.maximum(squared, 0)  # the expanded square may fall a rounding below zero


def _fill_empty(labels: NDArray[np.int64], distances: NDArray[np.float64], clusters: int) -> None:
    for label in np.flatnonzero(np.bincount(labels, minlength=clusters) == 0):
        own = distances[np.arange(len(labels)), labels]
        crowded = np.bincount(labels, minlength=clusters)[labels] > 1  # a lone point would leave a gap of its own
        farthest = int(np.where(crowded, own, -1.0).argmax())
        if own[farthest] > 0:
            labels[farthest] = label

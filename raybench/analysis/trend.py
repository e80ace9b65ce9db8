"""Whether a series goes up or down over time, and how surely: Theil and Sen's slope with its interval.

The slope is the median of the slopes of all pairs of points, so that a few bad ones do not move it. The
interval needs no assumption about the distribution: it is cut from the sorted slopes by the normal
approximation of Kendall's S, ties counted. It takes the points as independent. Points may be of several kinds
(hours of different load, say); then only pairs of one kind are compared, and the kinds' variances add up.

Sources: Sen (1968), Estimates of the regression coefficient based on Kendall's tau, JASA 63; Hirsch, Slack
and Smith (1982), Techniques of trend analysis for monthly water quality data, Water Resources Research 18.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.99


@dataclass(frozen=True)
class Slope:
    """`low` to `high` holds the true slope with `confidence`; None where the pairs are too few for that."""

    value: float
    low: float | None
    high: float | None
    points: int


def theil_sen(
    x: Sequence[float],
    y: Sequence[float],
    kinds: Sequence[Hashable] | None = None,
    *,
    confidence: float = CONFIDENCE,
) -> Slope | None:
    """The slope of y over x, in y's unit per x's. None without a single pair of one kind.

    Points of kind None stand alone. Instants x of one kind are distinct.
    """
    labels = [0] * len(x) if kinds is None else list(kinds)
    slopes: list[NDArray[np.float64]] = []
    variance, points = 0.0, 0
    for kind in dict.fromkeys(label for label in labels if label is not None):
        at = [i for i, label in enumerate(labels) if label == kind]
        xs, ys = np.array([x[i] for i in at], float), np.array([y[i] for i in at], float)
        first, second = np.triu_indices(len(at), 1)
        if len(first):
            slopes.append((ys[second] - ys[first]) / (xs[second] - xs[first]))
            variance += _variance_of_s(ys)
            points += len(at)
    if not slopes:
        return None
    ordered = np.sort(np.concatenate(slopes))
    n = len(ordered)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance)
    low, high = round((n - half) / 2) - 1, round((n + half) / 2)  # positions from 0
    enough = low >= 0 and high < n
    return Slope(
        value=float(np.median(ordered)),
        low=float(ordered[low]) if enough else None,
        high=float(ordered[high]) if enough else None,
        points=points,
    )


def _variance_of_s(y: NDArray[np.float64]) -> float:
    """Of Kendall's S when there is no trend: (n(n−1)(2n+5) − Σ t(t−1)(2t+5)) / 18 over groups of t ties."""

    def term(n: NDArray[np.int64]) -> float:
        return float((n * (n - 1) * (2 * n + 5)).sum())

    _, ties = np.unique(y, return_counts=True)
    return (term(np.array([len(y)])) - term(ties)) / 18

"""Whether a series goes up or down over time, and how surely: Theil and Sen's slope with its interval.

The slope is the median of the slopes of all pairs of points, so that a few bad ones do not move it. The
interval needs no assumption about the distribution: it is cut from the sorted slopes by the normal
approximation of Kendall's S, ties counted. Where neighbours resemble each other beyond the trend S varies
more: its variance is multiplied by `inflation`. Points may be of several kinds (hours of different load,
say); then only pairs of one kind are compared, and the kinds' variances add up.

Sources: Sen (1968), Estimates of the regression coefficient based on Kendall's tau, JASA 63; Hirsch, Slack
and Smith (1982), Techniques of trend analysis for monthly water quality data, Water Resources Research 18;
Yue and Wang (2004), The Mann-Kendall test modified by effective sample size, Water Resources Management 18;
Marriott and Pope (1954), Bias in the estimation of autocorrelations, Biometrika 41.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.99
ENOUGH_TO_CORRELATE = 10
"""Points; of fewer, an autocorrelation says nothing."""
_CLOSEST = 0.9
"""An autocorrelation is not taken for more: the points would be as good as two."""


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
            own = (ys[second] - ys[first]) / (xs[second] - xs[first])
            slopes.append(own)
            variance += _variance_of_s(ys) * inflation(ys - float(np.median(own)) * xs)
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


def inflation(rest: NDArray[np.float64]) -> float:
    """By how much autocorrelation widens the variance of S; `rest` is in order, without its trend.

        1 + 2 Σ (1 − i/n) ρ^i    i from 1 to n − 1
        ρ = (n r + 1) / (n − 4)  from the correlation r of the ranks with their neighbours, which is too low

    1 where ρ is not positive. After Yue and Wang, with the correction of Marriott and Pope for r.
    """
    n = len(rest)
    if n < ENOUGH_TO_CORRELATE:
        return 1.0
    _, inverse, ties = np.unique(rest, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[inverse] - (n + 1) / 2  # ties share their mean rank
    spread = float(ranks @ ranks)
    if spread == 0:
        return 1.0
    rho = min((n * float(ranks[:-1] @ ranks[1:]) / spread + 1) / (n - 4), _CLOSEST)
    if rho <= 0:
        return 1.0
    lags = np.arange(1, n)
    return 1 + 2 * float(((1 - lags / n) * rho**lags).sum())

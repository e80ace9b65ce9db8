"""Exact percentiles of raw values: nearest rank, censored tails, what a sample supports, and an upper bound.

The rule is `sorted[ceil(p·n) − 1]`. Values known only to lie beyond an instant (timeouts) count as larger
than every measured one, so a percentile that falls among them is a bound and not a value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.99
SUPPORT = 10
"""A percentile is marked where fewer than this many samples are expected beyond it."""

Values = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class Value:
    """A figure, or with `censored` only a bound: the true one is larger."""

    value: float
    censored: bool = False


@dataclass(frozen=True)
class Percentile:
    """`upper`: the process's own percentile lies no higher, with 99% confidence and for any distribution."""

    percent: float
    value: Value
    supported: bool
    upper: Value | None


@dataclass(frozen=True)
class Distribution:
    """`n` values, of which `censored` are known only to lie above `censored_at`. Nothing gives None.

    `mean` is over the measured values and None as soon as one is censored, as it would be too small.
    """

    n: int
    censored: int = 0
    censored_at: float | None = None
    mean: float | None = None
    min: float | None = None
    max: Value | None = None
    percentiles: tuple[Percentile, ...] = ()

    def at(self, percent: float) -> Value | None:
        """The value at a percentile that was asked for."""
        return next((p.value for p in self.percentiles if p.percent == percent), None)


def share(percent: float) -> Fraction:
    """The percentage as an exact ratio: 99.9 is 999/1000, so that p·n does not round across an integer."""
    return Fraction(str(percent)) / 100


def nearest_rank(percent: float, n: int) -> int:
    """Position, from 0, of the percentile in `n` ascending values. n ≥ 1."""
    return max(math.ceil(share(percent) * n), 1) - 1


def is_supported(percent: float, n: int) -> bool:
    return n * (1 - share(percent)) >= SUPPORT


@lru_cache(maxsize=4096)
def allowed_over(percent: float, n: int) -> int | None:
    """The largest t with P(Binomial(n, 1 − p) ≤ t) ≤ 1 − CONFIDENCE; None where even t = 0 is too likely.

    If the percentile lay above a limit, seeing only t of n samples beyond that limit would be that unlikely.
    """
    p = float(share(percent))
    q = 1.0 - p
    if n == 0 or q <= 0 or n * math.log(p) > math.log(1 - CONFIDENCE):
        return None
    mean, deviation = n * q, math.sqrt(n * q * p)
    first = max(0, math.floor(mean - 12 * deviation - 12))  # below it there is less than rounding error
    last = min(n, math.ceil(mean + deviation) + 1)
    k = np.arange(first, last, dtype=np.float64)
    log_first = (
        math.lgamma(n + 1)
        - math.lgamma(first + 1)
        - math.lgamma(n - first + 1)
        + first * math.log(q)
        + (n - first) * math.log1p(-q)
    )
    steps = np.log((n - k) / (k + 1)) + math.log(q / p)
    tail = np.cumsum(np.exp(log_first + np.concatenate(([0.0], np.cumsum(steps)))))
    return first + int(np.searchsorted(tail, 1 - CONFIDENCE, side="right")) - 1


def min_samples(percent: float, over: int) -> int:
    """The smallest sample that allows `over` values beyond a limit: MLPerf's early-stopping table."""
    high = 1
    while _allows(percent, high) < over:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if _allows(percent, middle) < over:
            low = middle
        else:
            high = middle
    return high


def _allows(percent: float, n: int) -> int:
    t = allowed_over(percent, n)
    return -1 if t is None else t


def upper_rank(percent: float, n: int) -> int | None:
    """Position of the upper bound in `n` ascending values: MLPerf's `n − t`, and the maximum at t = 0,
    which MLPerf does not use though it is a bound already. None where the sample is too small.
    """
    t = allowed_over(percent, n)
    return None if t is None else n - max(t, 1)


def distribution(
    values: Values,
    percents: Sequence[float],
    *,
    per: float = 1e9,
    censored: int = 0,
    censored_at: float | None = None,
) -> Distribution:
    """Describe `values` (measured, in any order; reordered in place) and `censored` ones beyond them.

    Figures come out as `values` divided by `per`: seconds for nanoseconds by default. `censored_at` is the
    smallest instant that a censored value is known to exceed, already in the unit of the figures.
    """
    measured = len(values)
    n = measured + censored
    if n == 0:
        return Distribution(0)
    ranks = {p: (nearest_rank(p, n), upper_rank(p, n)) for p in percents}
    places = {r for pair in ranks.values() for r in pair if r is not None and r < measured}
    if measured:
        values.partition(sorted(places | {0, measured - 1}))

    def at(rank: int) -> Value:
        if rank >= measured:
            return Value(censored_at if censored_at is not None else math.nan, censored=True)
        return Value(float(values[rank]) / per)

    return Distribution(
        n=n,
        censored=censored,
        censored_at=censored_at if censored else None,
        mean=float(values.mean(dtype=np.float64)) / per if not censored else None,
        min=float(values[0]) / per if measured else None,
        max=at(n - 1),
        percentiles=tuple(
            Percentile(p, at(rank), is_supported(p, n), at(upper) if upper is not None else None)
            for p, (rank, upper) in ranks.items()
        ),
    )

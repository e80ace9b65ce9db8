"""Values over time, small enough to draw and honest about what was left out.

Up to MOST samples are kept as they are. More of them fall into equal buckets of time, of which the mean, the
smallest and the largest stay: no peak disappears.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 2000
"""Points that a curve keeps as they are."""
BUCKETS = 400
"""Buckets of a curve that has more."""
POINTS = 1000
"""Points of a distribution or of a trailing rate that could have more."""
GAP = 3.0
"""A sample holds until the next one, but for at most so many usual intervals: then nobody was looking."""
WIDTHS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Peak:
    """The largest value and when it was first seen, in seconds after t0."""

    t_s: float
    value: float


@dataclass(frozen=True)
class Curve:
    """A value at instants, seconds after t0; None where it was not known, which interrupts the line.

    `every_s` None: every sample is here. Else each point stands for so many seconds: `value` is their mean,
    `low` and `high` the smallest and the largest. `peak` is of the samples themselves.
    """

    t_s: tuple[float, ...]
    value: tuple[float | None, ...]
    peak: Peak
    samples: int
    every_s: float | None = None
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


def usual_interval(t_s: Floats) -> float:
    """The median distance of samples; infinite where there is none."""
    steps = np.diff(t_s)
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else math.inf


def curve(t_s: Floats, values: Floats, *, gaps: bool = True) -> Curve | None:
    """Samples in order of time, NaN where unknown. None where nothing was known.

    `gaps`: whether a pause of GAP usual intervals interrupts the line.
    """
    if not len(t_s) or np.isnan(values).all():
        return None
    top = int(np.nanargmax(values))
    peak = Peak(float(t_s[top]), float(values[top]))
    n = int((~np.isnan(values)).sum())
    if len(t_s) > MOST:
        t, mean, low, high, every_s = _bucketed(t_s, values)
        return Curve(_plain(t), _known(mean), peak, n, every_s, _known(low), _known(high))
    if gaps:
        after = np.flatnonzero(np.diff(t_s) > GAP * usual_interval(t_s)) + 1
        t_s, values = np.insert(t_s, after, t_s[after - 1]), np.insert(values, after, np.nan)
    return Curve(_plain(t_s), _known(values), peak, n)


def _bucketed(t_s: Floats, values: Floats) -> tuple[Floats, Floats, Floats, Floats, float]:
    """Middle of each bucket, with mean, smallest and largest of what was known in it."""
    start, end = float(t_s[0]), float(t_s[-1])
    every_s = (end - start) / BUCKETS or 1.0
    known = ~np.isnan(values)
    at = np.minimum(((t_s[known] - start) / every_s).astype(np.int64), BUCKETS - 1)
    v = values[known]
    low, high = np.full(BUCKETS, np.inf), np.full(BUCKETS, -np.inf)
    np.minimum.at(low, at, v)
    np.maximum.at(high, at, v)
    count = np.bincount(at, minlength=BUCKETS)
    empty = count == 0
    mean = np.bincount(at, v, BUCKETS) / np.where(empty, 1, count)
    for line in (mean, low, high):
        line[empty] = np.nan
    return start + (np.arange(BUCKETS) + 0.5) * every_s, mean, low, high, every_s


def trailing_mean(t_s: Floats, values: Floats, window_s: float) -> Floats:
    """At each sample, the mean of what was known in the window_s before it: ∫v dt / ∫dt over known time,
    where a sample holds until the next one (see GAP). NaN where nothing was known.
    """
    if len(t_s) < 2:
        return np.full(len(t_s), np.nan)
    hold = np.minimum(np.diff(t_s), GAP * usual_interval(t_s))
    known = ~np.isnan(values[:-1])
    knots = np.empty(2 * len(hold))
    knots[0::2], knots[1::2] = t_s[:-1], t_s[:-1] + hold

    def integral(height: Floats) -> Floats:
        """∫ over the window that ends at each sample."""
        total = np.repeat(np.concatenate(([0.0], np.cumsum(height * hold))), 2)[1:-1]
        before = np.interp(t_s - window_s, knots, total)
        return np.asarray(np.interp(t_s, knots, total) - before, np.float64)

    weight = integral(known.astype(np.float64))
    area = integral(np.where(known, values[:-1], 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(weight > 1e-9, area / weight, np.nan), np.float64)


def width_s(span_s: float, n: int, *, each: int = 4, most: int = 300) -> float:
    """A round bucket width for `n` things in `span_s`: about `each` of them in one, `most` buckets in all."""
    wanted = max(span_s / most, each * span_s / n if n else 0.0)
    return next((float(w) for w in WIDTHS_S if w >= wanted), wanted)


def running_count(instants: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many `instants` lie at or before each of the ascending `at`."""
    first = np.searchsorted(at, instants, side="left")
    return np.cumsum(np.bincount(first, minlength=len(at) + 1)[: len(at)])


def _plain(values: Floats) -> tuple[float, ...]:
    return tuple(values.tolist())


def _known(values: Floats) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(v) else v for v in values.tolist())


def known(values: Sequence[float | None]) -> Floats:
    """Plain values as an array with NaN for None."""
    return np.array([math.nan if v is None else v for v in values], np.float64)

"""Theil and Sen's slope, held against scipy's, every pair by hand, and noise about a known line."""

from __future__ import annotations

import itertools
import math
import statistics
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raybench.analysis import trend
from raybench.analysis.trend import inflation, theil_sen

numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 3))


@given(st.lists(numbers, min_size=8, max_size=40))
def test_it_is_what_scipy_computes_for_independent_points(y: list[float]) -> None:
    x = [float(i) for i in range(len(y))]
    with mock.patch.object(trend, "inflation", lambda rest: 1.0):
        found = theil_sen(x, y, confidence=0.95)
    theirs = stats.theilslopes(y, x, alpha=0.95)
    assert found is not None and found.points == len(y)
    assert found.value == pytest.approx(theirs.slope)
    assert (found.low, found.high) == (pytest.approx(theirs.low_slope), pytest.approx(theirs.high_slope))


@given(st.lists(st.tuples(numbers, st.sampled_from(["a", "b", None])), min_size=2, max_size=15))
def test_only_points_of_one_kind_are_compared(points: list[tuple[float, str | None]]) -> None:
    y, kinds = [p[0] for p in points], [p[1] for p in points]
    pairs = [
        (y[j] - y[i]) / (j - i)
        for i, j in itertools.combinations(range(len(y)), 2)
        if kinds[i] == kinds[j] is not None
    ]
    found = theil_sen([float(i) for i in range(len(y))], y, kinds)
    assert (found is None) == (not pairs)
    if found is not None:
        assert found.value == pytest.approx(statistics.median(pairs))


def test_a_line_is_found_whatever_the_kinds_start_from() -> None:
    """Two kinds of hours, one a hundred times slower than the other: the common rise is still seen."""
    x = [float(i) for i in range(24)]
    y = [0.5 * t + (100.0 if i % 2 else 0.0) for i, t in enumerate(x)]
    found = theil_sen(x, y, [i % 2 for i in range(24)])
    assert found is not None and found.value == found.low == found.high == 0.5


def test_a_constant_has_no_trend_and_no_doubt() -> None:
    found = theil_sen([0.0, 1.0, 2.0], [7.0] * 3)
    assert found is not None and (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_too_few_points_have_a_slope_and_no_interval() -> None:
    found = theil_sen([0.0, 1.0, 2.0], [1.0, 2.0, 4.0])
    assert found is not None and (found.value, found.low, found.high) == (1.5, None, None)
    assert theil_sen([0.0], [1.0]) is None
    assert theil_sen([0.0, 1.0], [1.0, 2.0], ["a", "b"]) is None


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_interval_holds_the_true_slope_as_often_as_it_says(rounds: int) -> None:
    """Of 1,500 series of heavy-tailed noise about a line of slope 2, in one kind and in three."""
    rng = np.random.default_rng(1)
    x, trials = [float(i) for i in range(24)], 1500
    missed = 0
    for _ in range(trials):
        y = 2.0 * np.array(x) + rng.standard_t(2, 24)
        found = theil_sen(x, y.tolist(), [i % rounds for i in range(24)], confidence=0.95)
        assert found is not None and found.low is not None and found.high is not None
        missed += not found.low <= 2.0 <= found.high
    deviation = math.sqrt(0.05 * 0.95 / trials)
    assert abs(missed / trials - 0.05) < 4 * deviation + 0.01


@given(st.lists(st.integers(0, 20), min_size=10, max_size=25))
def test_the_variance_grows_with_the_likeness_of_neighbours(rest: list[int]) -> None:
    """Against the formula written out, with scipy's ranks."""
    n = len(rest)
    ranks = stats.rankdata(rest)
    deviation = [float(r - ranks.mean()) for r in ranks]
    square = sum(d * d for d in deviation)
    r = sum(deviation[t] * deviation[t + 1] for t in range(n - 1)) / square if square else 0.0
    rho = min((n * r + 1) / (n - 4), 0.9) if square else 0.0
    expected = 1.0
    for lag in range(1, n):
        expected += 2 * (1 - lag / n) * max(rho, 0.0) ** lag
    assert inflation(np.array(rest, float)) == pytest.approx(expected)


def test_few_points_cannot_tell_whether_they_hang_together() -> None:
    assert inflation(np.arange(9.0)) == 1.0 < inflation(np.arange(10.0))


def test_slow_waves_are_taken_for_a_trend_less_often() -> None:
    """Autocorrelated noise without a trend: false alarms of 400 series, with and without the correction."""
    rng = np.random.default_rng(7)
    x = [float(i) for i in range(24)]
    alarms = {"corrected": 0, "as if independent": 0}
    for _ in range(400):
        noise = rng.normal(size=60)
        for i in range(1, 60):
            noise[i] += 0.7 * noise[i - 1]
        y = noise[-24:].tolist()
        for how in alarms:
            inflated = trend.inflation if how == "corrected" else lambda rest: 1.0
            with mock.patch.object(trend, "inflation", inflated):
                found = theil_sen(x, y)
            assert found is not None
            if found.low is not None and found.high is not None:
                alarms[how] += not found.low <= 0 <= found.high
    assert alarms["corrected"] < 0.5 * alarms["as if independent"], alarms

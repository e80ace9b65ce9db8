"""Percentiles against the definition, the upper bound against the published table and against SciPy."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from raybench.analysis.quantiles import (
    Value,
    allowed_over,
    distribution,
    is_supported,
    min_samples,
    nearest_rank,
    upper_rank,
)

PERCENTS = st.sampled_from([1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0, 12.5])


@given(PERCENTS, st.integers(1, 3000))
def test_nearest_rank_is_the_smallest_value_with_that_share_at_or_below(p: float, n: int) -> None:
    rank = nearest_rank(p, n)
    assert Fraction(rank + 1, n) >= Fraction(str(p)) / 100
    assert rank == 0 or Fraction(rank, n) < Fraction(str(p)) / 100


def test_ranks_do_not_slip_on_floating_point() -> None:
    """0.99·100 and 0.07·100 are not whole in binary; 0.29·100 rounds up in it."""
    assert nearest_rank(99, 100) == 98
    assert nearest_rank(7, 100) == 6
    assert nearest_rank(29, 100) == 28
    assert nearest_rank(99.9, 1000) == 998
    assert nearest_rank(50, 1) == 0
    assert nearest_rank(100, 7) == 6


def test_a_percentile_is_supported_from_ten_expected_beyond() -> None:
    assert is_supported(90, 100)
    assert not is_supported(90, 99)
    assert is_supported(99, 1000)
    assert is_supported(99.9, 10_000)
    assert not is_supported(100, 10**9)


MLPERF = {  # percentile -> smallest n for t over-latency queries: c = 0.99, d = 0
    90.0: {0: 44, 1: 64, 2: 81, 5: 127, 10: 197, 20: 325},
    95.0: {0: 90, 1: 130, 2: 165, 5: 259, 10: 398, 20: 656},
    99.0: {0: 459, 1: 662, 2: 838, 5: 1307, 10: 2010, 20: 3304},
    99.9: {0: 4603, 1: 6636, 2: 8403, 5: 13105, 10: 20140, 20: 33097},
}


@pytest.mark.parametrize(("p", "t", "n"), [(p, t, n) for p, row in MLPERF.items() for t, n in row.items()])
def test_early_stopping_table(p: float, t: int, n: int) -> None:
    assert min_samples(p, t) == n
    assert allowed_over(p, n) == t
    assert (allowed_over(p, n - 1) or -1) < max(t, 1) if t else allowed_over(p, n - 1) is None
    assert upper_rank(p, n) == n - max(t, 1)


@given(st.sampled_from([50.0, 90.0, 99.0, 99.9]), st.integers(1, 200_000))
def test_allowed_over_is_the_binomial_tail(p: float, n: int) -> None:
    t = allowed_over(p, n)
    q = 1 - p / 100
    if t is None:
        assert binom.cdf(0, n, q) > 0.01 * (1 - 1e-9)
    else:
        assert binom.cdf(t, n, q) <= 0.01 * (1 + 1e-9)
        assert binom.cdf(t + 1, n, q) > 0.01 * (1 - 1e-9)


def test_the_upper_bound_holds_in_99_of_100_samples() -> None:
    """Of an exponential, where the true percentile is known: at most 1% of bounds lie below it."""
    rng = np.random.default_rng(3)
    true = -math.log(0.1)
    misses = sum(
        upper.value < true
        for _ in range(2000)
        if (upper := distribution(rng.exponential(size=500), (90,), per=1).percentiles[0].upper)
    )
    assert misses <= 2000 * 0.01 + 3 * math.sqrt(2000 * 0.01)


@given(
    st.lists(st.integers(0, 10**12), max_size=60),
    st.integers(0, 30),
    st.lists(PERCENTS, min_size=1, max_size=4, unique=True),
)
def test_distribution_against_sorting(values: list[int], censored: int, percents: list[float]) -> None:
    d = distribution(np.array(values, np.int64), percents, censored=censored, censored_at=300.0)
    everything = sorted(v / 1e9 for v in values) + [math.inf] * censored
    assert d.n == len(everything)
    if not everything:
        assert (d.mean, d.min, d.max, d.percentiles) == (None, None, None, ())
        return
    for p in d.percentiles:
        want = everything[math.ceil(Fraction(str(p.percent)) * len(everything) / 100) - 1]
        assert p.value == (Value(300.0, censored=True) if math.isinf(want) else Value(want))
    assert d.max == (Value(300.0, censored=True) if censored else Value(everything[-1]))
    assert d.min == (everything[0] if values else None)
    assert d.mean is None if censored else d.mean == pytest.approx(sum(everything) / len(everything))


def test_a_percentile_among_timeouts_is_a_bound() -> None:
    d = distribution(np.arange(90, dtype=np.int64), (50, 90, 91), censored=10, censored_at=300.0)
    assert [p.value.censored for p in d.percentiles] == [False, False, True]

"""The stimulus is what it is called: gaps and counts of Poisson and gamma arrivals, against theory.

Seeds are fixed, so these cannot fail by chance; the bounds are what the true process stays within for about
99 of 100 seeds and more.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from raybench.scenario.arrivals import Gamma, Poisson
from raybench.schedule import offsets_ns

RATE, DURATION_S = 50.0, 600.0
SHAPES = [0.25, 1.0, 4.0]


def gaps_s(arrival: Poisson | Gamma, seed: int) -> np.ndarray:
    return np.diff(offsets_ns(arrival, DURATION_S, seed, 0), prepend=0) / 1e9


def dispersion(offsets: np.ndarray, window_s: float) -> float:
    """Variance over mean of the counts in windows: 1 for Poisson at every window."""
    edges = np.arange(0, DURATION_S + window_s / 2, window_s) * 1e9
    counts, _ = np.histogram(offsets, bins=edges)
    return float(counts.var(ddof=1) / counts.mean())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_poisson_gaps(seed: int) -> None:
    gaps = gaps_s(Poisson(process="poisson", rate=RATE), seed)
    assert stats.kstest(gaps, stats.expon(scale=1 / RATE).cdf).pvalue > 0.01
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 3.3 / np.sqrt(len(gaps))
    assert abs(len(gaps) - RATE * DURATION_S) < 2.6 * np.sqrt(RATE * DURATION_S)


@pytest.mark.parametrize("window_s", [0.05, 0.2, 1.0, 5.0])
def test_poisson_counts(window_s: float) -> None:
    offsets = offsets_ns(Poisson(process="poisson", rate=RATE), DURATION_S, 1, 0)
    windows = DURATION_S / window_s
    assert dispersion(offsets, window_s) == pytest.approx(1, abs=2.6 * np.sqrt(2 / windows))


@pytest.mark.parametrize("shape", SHAPES)
def test_gamma_gaps(shape: float) -> None:
    gaps = gaps_s(Gamma(process="gamma", rate=RATE, burstiness=shape), 1)
    assert stats.kstest(gaps, stats.gamma(shape, scale=1 / (RATE * shape)).cdf).pvalue > 0.01
    assert gaps.std() / gaps.mean() == pytest.approx(shape**-0.5, rel=0.04)


@pytest.mark.parametrize("shape", SHAPES)
def test_gamma_counts_disperse_as_a_renewal_process_does(shape: float) -> None:
    offsets = offsets_ns(Gamma(process="gamma", rate=RATE, burstiness=shape), DURATION_S, 1, 0)
    # In the limit of long windows the index of dispersion is the squared CV of the gaps, 1/shape.
    assert dispersion(offsets, 1.0) == pytest.approx(1 / shape, rel=0.17)
    assert len(offsets) == pytest.approx(RATE * DURATION_S, abs=2.6 * np.sqrt(RATE * DURATION_S / shape))


def test_arrivals_do_not_favour_any_part_of_a_second() -> None:
    offsets = offsets_ns(Poisson(process="poisson", rate=RATE), DURATION_S, 1, 0)
    assert stats.kstest((offsets % 1_000_000_000) / 1e9, stats.uniform().cdf).pvalue > 0.01

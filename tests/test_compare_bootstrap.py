"""The block bootstrap against its definitions, computed the slow way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from raybench.analysis import bootstrap, student
from raybench.analysis.bootstrap import Member, Quantile, Ratio
from raybench.analysis.contrast import Estimate, Measured, between_runs, contrast
from raybench.analysis.quantiles import nearest_rank


def autoregressive(rng: np.random.Generator, n: int, phi: float) -> np.ndarray:
    noise = rng.normal(size=n)
    noise[0] /= math.sqrt(1 - phi * phi)
    return signal.lfilter([1.0], [1.0, -phi], noise)


# --- student ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dof", [0.5, 1, 2.7, 9, 40, 1e3, 1e5])
@pytest.mark.parametrize("t", [0.0, 1e-3, 0.5, 2.0, 10.0])
def test_student_is_students(t: float, dof: float) -> None:
    assert student.two_sided(t, dof) == pytest.approx(2 * stats.t.sf(t, dof), rel=1e-8, abs=1e-300)
    assert student.two_sided(-t, dof) == student.two_sided(t, dof)


@pytest.mark.parametrize("dof", [0.7, 1, 3.3, 30, 1e4])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_the_critical_value_is_students(confidence: float, dof: float) -> None:
    assert student.critical(confidence, dof) == pytest.approx(
        stats.t.ppf((1 + confidence) / 2, dof), rel=1e-8
    )


@pytest.mark.parametrize("dof", [1e-6, 1e-3, 4e-3, 6e-3, 0.01, 0.03])
def test_hardly_any_freedom_is_an_interval_without_end(dof: float) -> None:
    reach = student.critical(0.95, dof)
    assert reach > 1e20
    low, high = Estimate(1.0, 0.1, dof).interval(0.95)
    assert low < -1e18 and high > 1e18 and Estimate(1.0, 0.1, dof).p > 0.8


# --- drawing ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.data())
def test_every_resample_has_as_many_atoms_as_there_are(atoms: int, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, atoms))
    weights = bootstrap.draw(atoms, length, 7, np.random.default_rng(atoms))
    assert weights.shape == (7, atoms) and (weights >= 0).all()
    assert (weights.sum(axis=1) == atoms).all()


def test_blocks_are_whole_and_go_round_the_end() -> None:
    weights = bootstrap.draw(10, 5, 2000, np.random.default_rng(1))
    expected = {
        tuple(np.bincount(np.r_[np.arange(a, a + 5), np.arange(b, b + 5)] % 10, minlength=10).tolist())
        for a in range(10)
        for b in range(10)
    }
    assert {tuple(int(x) for x in row) for row in weights} == expected
    assert weights.mean(axis=0) == pytest.approx(np.ones(10), abs=0.05)  # no row is favoured


# --- statistics -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(st.integers(0, 9).map(float), st.just(math.nan)), min_size=3, max_size=60),
    st.sampled_from([0.5, 0.9, 0.99]),
    st.integers(1, 5),
)
def test_a_resampled_quantile_is_the_quantile_of_the_resample(
    values: list[float], p: float, size: int
) -> None:
    array = np.array(values)
    starts = np.arange(0, len(array), size)
    weights = bootstrap.draw(len(starts), 1, 20, np.random.default_rng(len(values)))
    statistic = Quantile(array, p)
    found = statistic.resampled(weights, starts, spread=1.0)
    for row, got in zip(weights, found, strict=True):
        repeated = np.repeat(array, np.repeat(row.astype(int), size)[: len(array)])
        known = np.sort(repeated[~np.isnan(repeated)])
        if len(known) == 0:
            assert math.isnan(got)
        else:
            assert got == known[nearest_rank(p * 100, len(known))]
    known = np.sort(array[~np.isnan(array)])
    if len(known):
        assert statistic.value == known[nearest_rank(p * 100, len(known))]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=40))
def test_a_resampled_ratio_is_the_ratio_of_the_resample(values: list[float]) -> None:
    above, below = np.array(values), np.arange(1, len(values) + 1.0)
    weights = bootstrap.draw(len(values), 2, 10, np.random.default_rng(1))
    found = Ratio(above, below).resampled(weights, np.arange(len(values)), 0.0)
    for row, got in zip(weights, found, strict=True):
        taken = np.repeat(np.arange(len(values)), row.astype(int))
        assert got == pytest.approx(above[taken].sum() / below[taken].sum(), rel=1e-9, abs=1e-12)


def test_with_more_values_than_candidates_a_resampled_quantile_is_off_by_far_less_than_its_error() -> None:
    rng = np.random.default_rng(3)
    values = rng.exponential(1, 50_000)
    statistic = Quantile(values, 0.9)
    starts = np.arange(0, len(values), 50)
    weights = bootstrap.draw(len(starts), 1, 50, rng)
    spread = math.sqrt(0.9 * 0.1 / len(values))
    found = statistic.resampled(weights, starts, spread)
    exact = [
        np.sort(np.repeat(values, np.repeat(row.astype(int), 50)))[nearest_rank(90, len(values))]
        for row in weights
    ]
    assert found == pytest.approx(exact, abs=0.1 * np.std(exact))


# --- block length -----------------------------------------------------------------------------------


def slow_politis_white(x: np.ndarray) -> float:
    """From the paper, sum by sum."""
    n, x = len(x), x - x.mean()
    r = [float(np.sum(x[: n - k] * x[k:])) / n for k in range(n // 2)]
    run = max(5, math.ceil(math.log10(n)))
    limit = 2 * math.sqrt(math.log10(n) / n)
    m = next(k for k in range(n // 4 + 1) if all(abs(r[k + i]) / r[0] < limit for i in range(1, run + 1)))
    if m == 0:
        return 1.0
    big = min(2 * m, n // 4)
    window = {k: 1.0 if abs(k) / big <= 0.5 else 2 * (1 - abs(k) / big) for k in range(-big, big + 1)}
    g = sum(w * abs(k) * r[abs(k)] for k, w in window.items())
    d = 4 / 3 * sum(w * r[abs(k)] for k, w in window.items()) ** 2
    return max(1.0, (2 * g * g / d * n) ** (1 / 3))


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_the_block_length_is_politis_and_whites(phi: float) -> None:
    x = autoregressive(np.random.default_rng(5), 2000, phi)
    assert bootstrap.politis_white(x) == pytest.approx(slow_politis_white(x), rel=1e-6)


def test_the_block_length_comes_out_as_theory_has_it_for_an_autoregression() -> None:
    """For x[i] = φ x[i−1] + noise, G/σ² = 2φ/(1 − φ²), so b = (3/2 (2φ/(1 − φ²))² n)^(1/3)."""
    rng, phi, n = np.random.default_rng(6), 0.7, 20_000
    found = [bootstrap.politis_white(autoregressive(rng, n, phi)) for _ in range(5)]
    assert np.median(found) == pytest.approx((1.5 * (2 * phi / (1 - phi**2)) ** 2 * n) ** (1 / 3), rel=0.2)


def test_independent_rows_and_constant_ones_are_drawn_nearly_alone() -> None:
    rng = np.random.default_rng(7)
    assert np.median([bootstrap.choose_block(rng.normal(size=3000)) for _ in range(9)]) <= 6
    assert bootstrap.choose_block(np.full(3000, 0.1)) <= 2
    assert bootstrap.choose_block(np.array([1.0])) == 1


# --- errors -----------------------------------------------------------------------------------------


def test_the_error_of_a_mean_is_the_one_that_repeating_shows() -> None:
    """An autoregression's means, made 300 times, spread as far as one series' bootstrap says, and as theory:
    sd / √n · √((1 + φ)/(1 − φ)). Drawn row by row it would be three times too small.
    """
    rng, n, phi = np.random.default_rng(8), 4000, 0.8
    theory = math.sqrt(1 / (1 - phi) ** 2 / n)
    errors = []
    for _ in range(20):
        x = autoregressive(rng, n, phi)
        found = bootstrap.resample([Member(1.0, Ratio(x, np.ones(n)))], 400, rng)
        errors.append(found.plain.std())
    assert np.mean(errors) == pytest.approx(theory, rel=0.1)
    alone = bootstrap.draw(n, 1, 400, rng) @ x / n
    assert alone.std() < 0.5 * theory


def test_a_quantiles_interval_covers_it_as_often_as_it_says() -> None:
    """The median of an autoregression of exponentials-by-rank is ln 2; 90% intervals, 100 series."""
    rng, n, hits = np.random.default_rng(9), 1000, 0
    for _ in range(100):
        x = autoregressive(rng, n, 0.6) * math.sqrt(1 - 0.36)
        values = -np.log(stats.norm.sf(x))
        found = bootstrap.resample([Member(1.0, Quantile(values, 0.5))], 200, rng)
        low, high = Estimate(Quantile(values, 0.5).value, float(found.plain.std()), found.dof).interval(0.9)
        hits += low <= math.log(2) <= high
    assert stats.binom.cdf(hits, 100, 0.9) > 1e-3 and stats.binom.sf(hits - 1, 100, 0.9) > 1e-3


def test_few_events_leave_few_degrees_of_freedom() -> None:
    n = 4000
    rare, often = np.zeros(n), np.zeros(n)
    rare[[500, 2000, 3100]] = 1
    rng = np.random.default_rng(1)
    often[rng.random(n) < 0.2] = 1
    few = bootstrap.resample([Member(1.0, Ratio(rare, np.ones(n)))], 200, rng)
    many = bootstrap.resample([Member(1.0, Ratio(often, np.ones(n)))], 200, rng)
    assert few.dof < 10 < many.dof


# --- contrasts --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 2))
def test_exchanging_the_sides_changes_the_sign_and_nothing_else(seed: int, paired: bool, runs: int) -> None:
    rng = np.random.default_rng(seed)
    sides = [
        [Measured("s" if paired else f"{k}{i}", Quantile(rng.exponential(1, 80), 0.5)) for i in range(runs)]
        for k in "ab"
    ]
    one = contrast(sides[0], sides[1], resamples=100, seed=1, name="x")
    other = contrast(sides[1], sides[0], resamples=100, seed=1, name="x")
    for a, b in ((one.plain, other.plain), (one.logs, other.logs)):
        assert a is not None and b is not None
        assert a.value == pytest.approx(-b.value, rel=1e-9, abs=1e-12)
        assert a.error == pytest.approx(b.error, rel=1e-9)
        assert a.p == pytest.approx(b.p, rel=1e-6)


def test_the_same_run_twice_differs_in_nothing() -> None:
    values = np.random.default_rng(1).exponential(1, 500)
    same = [Measured("s", Quantile(values, 0.9))]
    found = contrast(same, same, resamples=100, seed=1, name="x")
    assert (found.plain.value, found.plain.error, found.plain.p) == (0, 0, 1)


def test_pairing_takes_out_what_both_runs_share() -> None:
    rng = np.random.default_rng(2)
    shared = np.exp(autoregressive(rng, 3000, 0.9) / 4)
    a, b = shared * rng.lognormal(0, 0.1, 3000), shared * rng.lognormal(0, 0.1, 3000)

    def error(*schedules: str) -> float:
        one, two = (Measured(s, Ratio(v, np.ones(3000))) for s, v in zip(schedules, (a, b), strict=True))
        return contrast([one], [two], resamples=300, seed=1, name="x").plain.error

    assert error("s", "s") < 0.2 * error("s", "t")


def test_repeats_are_judged_by_students_tests() -> None:
    rng = np.random.default_rng(3)
    base, new = rng.normal(10, 1, 4).tolist(), rng.normal(11, 1, 3).tolist()
    unpaired = between_runs(base, new)
    assert unpaired is not None
    assert unpaired.p == pytest.approx(stats.ttest_ind(base, new).pvalue, rel=1e-8)
    paired = between_runs(base[:3], new, [(0, 2), (1, 0), (2, 1)])
    assert paired is not None
    assert paired.p == pytest.approx(stats.ttest_rel(base[:3], [new[2], new[0], new[1]]).pvalue, rel=1e-8)
    assert between_runs([1.0], [2.0]) is None


def test_with_repeats_what_varies_between_runs_counts() -> None:
    """Each run steady in itself, but every start of the system different: within-run errors are tiny."""
    rng = np.random.default_rng(4)

    def side(levels: list[float], name: str) -> list[Measured]:
        return [
            Measured(f"{name}{i}", Ratio(rng.normal(level, 0.01, 400), np.ones(400)))
            for i, level in enumerate(levels)
        ]

    alone = contrast(side([1.0], "a"), side([1.2], "b"), resamples=200, seed=1, name="x").plain
    together = contrast(
        side([1.0, 1.3, 0.8], "c"), side([1.2, 0.9, 1.4], "d"), resamples=200, seed=1, name="x"
    ).plain
    assert alone.p < 1e-6 and together.p > 0.2 and together.dof == 4

"""The exact binomial, against scipy's and by its definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raybench.tuning.confidence import at_most, least_share, misses_allowed, runs_needed
from raybench.tuning.search import Rules

CHANCE = st.floats(0.001, 0.999)


@given(st.integers(-1, 400), st.integers(0, 400), CHANCE)
def test_the_tail_is_the_binomials(most: int, trials: int, chance: float) -> None:
    assert at_most(most, trials, chance) == pytest.approx(stats.binom.cdf(most, trials, chance), abs=1e-12)


@given(st.integers(1, 300), st.floats(0.5, 0.99), st.floats(1e-6, 0.3))
def test_misses_allowed_is_the_greatest_with_so_small_a_tail(runs: int, share: float, error: float) -> None:
    allowed = misses_allowed(runs, share, error)
    tails = [k for k in range(runs) if stats.binom.cdf(k, runs, 1 - share) <= error * (1 + 1e-9)]
    exact = [k for k in range(runs) if stats.binom.cdf(k, runs, 1 - share) <= error * (1 - 1e-9)]
    assert allowed in {max(tails, default=None), max(exact, default=None)}


@given(st.integers(1, 200), st.data())
def test_the_bound_is_clopper_and_pearsons(runs: int, data: st.DataObject) -> None:
    met = data.draw(st.integers(0, runs))
    expected = stats.beta.ppf(0.05, met, runs - met + 1) if met else 0.0
    assert least_share(met, runs, 0.05) == pytest.approx(expected, abs=1e-9)


@given(st.integers(20, 200), st.floats(0.5, 0.95), st.sampled_from([0.05, 0.025, 0.01]), st.data())
def test_passing_and_the_bound_say_the_same(
    runs: int, share: float, error: float, data: st.DataObject
) -> None:
    met = data.draw(st.integers(0, runs))
    bound = least_share(met, runs, error)
    allowed = misses_allowed(runs, share, error)
    if abs(bound - share) > 1e-9:
        assert (allowed is not None and runs - met <= allowed) == (bound > share)


@given(st.floats(0.5, 0.99), st.floats(0.001, 0.3))
def test_runs_needed_are_the_fewest(share: float, error: float) -> None:
    needed = runs_needed(share, error)
    assert misses_allowed(needed, share, error) == 0
    assert needed == 1 or misses_allowed(needed - 1, share, error) is None


def test_known_numbers() -> None:
    assert runs_needed(0.9, 0.05) == 29 and runs_needed(0.95, 0.05) == 59
    assert [Rules().allowed(n) for n in range(11)] == [4, 3, 2, 2, 1, 1, 1, 0, 0, 0, None]
    assert [Rules().error(n) for n in range(3)] == pytest.approx([0.025, 0.0125, 0.00625])


@given(st.integers(0, 60), st.data(), st.floats(0.5, 0.99))
def test_the_chance_is_that_of_a_uniform_prior(met: int, data: st.DataObject, share: float) -> None:
    missed = data.draw(st.integers(0, 60))
    expected = stats.beta.sf(share, met + 1, missed + 1)
    assert Rules(share=share, runs=1000).chance(met, met + missed) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"confidence": 1.0}, "confidence 1: a share from 50% to below 100% is right"),
        ({"share": 0.2}, "share 0.2"),
        ({"runs": 35}, "repeats 35: too few to say with 95% confidence that 90% .* 36 or more"),
    ],
)
def test_rules_that_could_never_be_met_are_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Rules(**values)  # type: ignore[arg-type]


def test_a_setting_that_is_not_good_enough_passes_at_most_as_often_as_is_said() -> None:
    """Exactly 90% is the worst that is not below; the chance to pass is the sum over the binomial itself."""
    rules = Rules()
    total = 0.0
    for candidate in range(8):
        allowed = rules.allowed(candidate)
        assert allowed is not None
        chance = stats.binom.cdf(allowed, rules.runs, 1 - rules.share)
        assert chance <= rules.error(candidate)
        total += chance
    assert total <= 0.05

"""Draws: right against the C library and scipy's distributions, and the same bits for ever."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raybench.workload import draws
from raybench.workload.draws import Draws


def test_elementary_functions_agree_with_the_c_library() -> None:
    x = np.concatenate([np.geomspace(1e-300, 1e300, 2001), 1 + np.linspace(-1e-6, 1e-6, 999)])
    np.testing.assert_allclose(draws.log(x), np.log(x), rtol=4e-15, atol=1e-22)
    y = np.linspace(-700, 700, 5001)
    np.testing.assert_allclose(draws.exp(y), np.exp(y), rtol=2e-13)
    assert 0 <= draws.exp(np.array([-1e9]))[0] < 1e-300
    t = np.linspace(-3, 3, 5001)
    np.testing.assert_allclose(draws.cos_turns(t), np.cos(2 * np.pi * t), atol=5e-15)
    np.testing.assert_allclose(draws.sin_turns(t), np.sin(2 * np.pi * t), atol=5e-15)


@pytest.mark.parametrize(
    ("name", "values", "distribution"),
    [
        ("uniform", Draws(1, 0).uniform(20_000), stats.uniform()),
        ("exponential", Draws(2, 0).exponential(20_000), stats.expon()),
        ("normal", Draws(3, 0).normal(20_000), stats.norm()),
        ("gamma 0.1", Draws(4, 0).gamma(20_000, 0.1), stats.gamma(0.1)),
        ("gamma 0.5", Draws(5, 0).gamma(20_000, 0.5), stats.gamma(0.5)),
        ("gamma 1", Draws(6, 0).gamma(20_000, 1.0), stats.expon()),
        ("gamma 4", Draws(7, 0).gamma(20_000, 4.0), stats.gamma(4.0)),
        ("gamma 100", Draws(8, 0).gamma(20_000, 100.0), stats.gamma(100.0)),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_distributions(name: str, values: np.ndarray, distribution: stats.rv_continuous) -> None:
    assert stats.kstest(values, distribution.cdf).pvalue > 0.01


def test_integers_are_even() -> None:
    counts = np.bincount(Draws(9, 0).below(70_000, 7), minlength=7)
    assert stats.chisquare(counts).pvalue > 0.01


@given(st.integers(0, 400), st.integers(0, 400), st.sampled_from([0.3, 1.0, 2.5]))
def test_every_draw_is_prefix_stable(n: int, more: int, shape: float) -> None:
    stream = Draws(1, 2, 3)
    for draw in (stream.uniform, stream.exponential, stream.normal, lambda k: stream.gamma(k, shape)):
        np.testing.assert_array_equal(draw(n + more)[:n], draw(n))
    np.testing.assert_array_equal(stream.uniform(n + more)[n:], stream.uniform(more, skip=n))
    np.testing.assert_array_equal(stream.normal(n + more)[n:], stream.normal(more, skip=n))


def test_streams_are_those_of_spawned_seeds_and_differ() -> None:
    child = np.random.SeedSequence(5).spawn(4)[3]
    np.testing.assert_array_equal(Draws(5, 3).raw(8), np.random.PCG64(child).random_raw(8))
    first = {tuple(Draws(seed, key).raw(4)) for seed in range(5) for key in range(5)}
    assert len(first) == 25


@given(st.integers(0, 300))
def test_a_permutation_holds_everything_once(n: int) -> None:
    assert sorted(draws.permutation(Draws(1, 3), n).tolist()) == list(range(n))


def test_bits_are_golden() -> None:
    """The hash of every schedule rests on these. If this fails, `DIGEST_VERSION` has to rise."""
    stream = Draws(1, 0, 0)
    total = hashlib.sha256()
    for values in (stream.raw(1000), stream.uniform(1000), stream.exponential(1000), stream.normal(1000),
                   stream.gamma(1000, 0.5), stream.gamma(1000, 3.0), stream.below(1000, 10)):  # fmt: skip
        total.update(values.tobytes())
    total.update(draws.exp(np.linspace(-50, 50, 1001)).tobytes())
    total.update(draws.cos_turns(np.linspace(-1, 1, 1001)).tobytes())
    assert total.hexdigest() == "e19ebff2813d5bf0800cbec6c7df5e642a5206ea1eb6665e739ef3b2bd263875"

"""Draws of whole numbers and of pauses from the scenario's distributions."""

from __future__ import annotations

import numpy as np

from raybench.scenario.distributions import (
    Count,
    Empirical,
    ExponentialPause,
    Fixed,
    FixedPause,
    Lognormal,
    Normal,
    Pause,
    Uniform,
    UniformPause,
)
from raybench.workload import files
from raybench.workload.draws import Draws, Floats, Ints, exp, log


def counts(count: Count, draws: Draws, n: int) -> Ints:
    """`n` whole numbers, at least 1. Raises DataFileError for a file of values that cannot be used.

    uniform      min + floor(u (max - min + 1))
    normal       round(mean + stddev z), clipped
    lognormal    round(exp(ln mean - sigma²/2 + sigma z)), whose mean is mean, clipped
    empirical    values[floor(u k)]
    """
    match count:
        case Fixed():
            return np.full(n, count.value, dtype=np.int64)
        case Uniform():
            return count.min + draws.below(n, count.max - count.min + 1)
        case Normal():
            return _clipped(count, count.mean + count.stddev * draws.normal(n))
        case Lognormal():
            return _clipped(count, _lognormal(count.mean, count.sigma, draws.normal(n)))
        case Empirical():
            values = observed(count)
            return values[draws.below(n, len(values))]


def pauses_ns(pause: Pause, draws: Draws, n: int) -> Ints:
    """`n` pauses in nanoseconds."""
    seconds: Floats
    match pause:
        case FixedPause():
            seconds = np.full(n, pause.value)
        case UniformPause():
            seconds = pause.min + (pause.max - pause.min) * draws.uniform(n)
        case ExponentialPause():
            seconds = pause.mean * draws.exponential(n)
        case _:
            seconds = _lognormal(pause.mean, pause.sigma, draws.normal(n))
    return np.rint(np.minimum(seconds, 1e9) * 1e9).astype(np.int64)


def observed(count: Empirical) -> Ints:
    """The values of an empirical distribution."""
    if count.values is not None:
        return np.array(count.values, dtype=np.int64)
    assert count.file is not None, "checked with the scenario"
    return files.values(count.file, count.column)


def _clipped(count: Normal | Lognormal, drawn: Floats) -> Ints:
    return np.rint(np.clip(drawn, count.min, count.max)).astype(np.int64)


def _lognormal(mean: float, sigma: float, z: Floats) -> Floats:
    mu = log(np.array([mean]))[0] - sigma * sigma / 2
    return exp(np.minimum(mu + sigma * z, 700.0))

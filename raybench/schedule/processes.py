"""Arrival processes: from a stage's description to the instants of its requests.

A process is a rate and a spacing. The rate λ(t) may change with time; Λ(t) is its integral, the number of
requests due by t. The spacing is a sequence of positions S₀ ≤ S₁ ≤ … in *operational time*, where one
request is due per unit:

    even       Sᵢ = i                            the first request at the very start
    poisson    Sᵢ = E₀ + … + Eᵢ                  E exponential with mean 1
    gamma      Sᵢ = G₀ + … + Gᵢ                  G gamma with mean 1 and shape k

and request i is due at tᵢ = Λ⁻¹(Sᵢ). For a constant rate that is Sᵢ/λ; for any other it is the exact
way to draw a process whose rate changes (time rescaling, e.g. Daley and Vere-Jones, section 7.4).

Positions are summed as integers, billionths of a request: no sum depends on the order of additions.
"""

from __future__ import annotations

import math

import numpy as np

from raybench.scenario.arrivals import Arrival, Constant, Gamma
from raybench.workload.draws import ARRIVALS, Draws, Floats, Ints

NS = 1_000_000_000
_UNIT = 1e9  # billionths of a request in a request


def offsets_ns(arrival: Arrival, duration_s: float, seed: int, stage: int) -> Ints:
    """Nanoseconds from the stage's start to each request, ascending, all in [0, duration).

    `seed` is the scenario's; the stage's number picks its own stream of it. A longer stage begins with the
    instants of a shorter one.
    """
    end_ns = round(duration_s * NS)
    if isinstance(arrival, Constant) and arrival.interval is not None:
        return np.arange(0, end_ns, round(arrival.interval * NS), dtype=np.int64)

    expected = arrival.expected(duration_s)
    draws = Draws(seed, ARRIVALS, stage)
    count = math.ceil(expected + 6 * math.sqrt(expected)) + 16
    while True:
        due = np.rint(_inverse(arrival, _positions(arrival, draws, count)) * NS).astype(np.int64)
        if due[-1] >= end_ns:
            return due[: np.searchsorted(due, end_ns)]
        count *= 2


def _positions(arrival: Arrival, draws: Draws, n: int) -> Floats:
    """S₀ … Sₙ₋₁, in requests."""
    if isinstance(arrival, Constant):
        return np.arange(n, dtype=np.float64)
    if isinstance(arrival, Gamma):
        gaps = draws.gamma(n, arrival.burstiness) / arrival.burstiness
    else:
        gaps = draws.exponential(n)
    return np.cumsum(np.rint(gaps * _UNIT).astype(np.int64)) / _UNIT


def _inverse(arrival: Arrival, due: Floats) -> Floats:
    """Λ⁻¹: the seconds after the stage's start by which `due` requests are due."""
    return due / (arrival.per_s if isinstance(arrival, Constant) else arrival.rate)

"""Arrival processes: from a stage's description to the instants of its requests.

A process is a rate and a spacing. The rate λ(t) may change with time; Λ(t) is its integral, the number of
requests due by t. The spacing is a sequence of positions S₀ ≤ S₁ ≤ … in *operational time*, where one
request is due per unit:

    even       Sᵢ = i                            the first request at the very start
    poisson    Sᵢ = E₀ + … + Eᵢ                  E exponential with mean 1
    gamma      Sᵢ = G₀ + … + Gᵢ                  G gamma with mean 1 and shape k

and request i is due at tᵢ = Λ⁻¹(Sᵢ) as long as Sᵢ < Λ(d), d being the stage's duration. For a constant
rate that is Sᵢ/λ; for any other it is the exact way to draw a process whose rate changes (time rescaling,
e.g. Daley and Vere-Jones, "An Introduction to the Theory of Point Processes", section 7.4).

Positions are summed as integers, billionths of a request: no sum depends on the order of additions.
"""

from __future__ import annotations

import math

import numpy as np

from raybench.scenario.arrivals import (
    Arrival,
    Bursts,
    Constant,
    Gamma,
    Poisson,
    Ramp,
    Shaped,
    Sine,
    Steps,
    Trace,
)
from raybench.workload import traces
from raybench.workload.draws import ARRIVALS, Draws, Floats, Ints, cos_turns, sin_turns

NS = 1_000_000_000
_UNIT = 1e9  # billionths of a request in a request
_TWO_PI = 6.283185307179586


def offsets_ns(arrival: Arrival, duration_s: float, seed: int, stage: int) -> Ints:
    """Nanoseconds from the stage's start to each request, ascending, all in [0, duration).

    `seed` is the scenario's; the stage's number picks its own stream of it. A longer stage begins with the
    instants of a shorter one, but for a ramp, whose slope depends on its length.
    """
    if isinstance(arrival, Bursts):
        return _bursts(arrival, duration_s)
    if isinstance(arrival, Trace):
        return traces.replay(arrival, duration_s)[0]
    end_ns = round(duration_s * NS)
    if isinstance(arrival, Constant) and arrival.interval is not None:
        return np.arange(0, end_ns, round(arrival.interval * NS), dtype=np.int64)
    due = inverse(arrival, duration_s, positions(arrival, duration_s, Draws(seed, ARRIVALS, stage)))
    offsets = np.rint(due * NS).astype(np.int64)
    return offsets[: np.searchsorted(offsets, end_ns)]


def positions(arrival: Shaped, duration_s: float, draws: Draws) -> Floats:
    """S₀ … below Λ(d), in requests."""
    total = cumulative(arrival, duration_s, np.array([duration_s]))[0]
    if isinstance(arrival, Constant) or (
        isinstance(arrival, (Ramp, Sine, Steps)) and arrival.spacing == "even"
    ):
        return np.arange(math.ceil(total), dtype=np.float64)
    count = math.ceil(total + 6 * math.sqrt(total)) + 16
    while True:
        if isinstance(arrival, Gamma):
            gaps = draws.gamma(count, arrival.burstiness) / arrival.burstiness
        else:
            gaps = draws.exponential(count)
        drawn = np.cumsum(np.rint(gaps * _UNIT).astype(np.int64)) / _UNIT
        if drawn[-1] >= total:
            return drawn[: np.searchsorted(drawn, total)]
        count *= 2


def rate(arrival: Shaped, duration_s: float, t: Floats) -> Floats:
    """λ(t), requests per second at t seconds after the stage's start."""
    match arrival:
        case Constant():
            return np.full(len(t), arrival.per_s)
        case Poisson() | Gamma():
            return np.full(len(t), arrival.rate)
        case Ramp():
            return arrival.start + (arrival.end - arrival.start) * t / duration_s
        case Sine():
            return arrival.mean + arrival.amplitude * sin_turns(t / arrival.period + arrival.phase)
        case Steps():
            step = np.floor(t / arrival.each).astype(np.int64) % len(arrival.rates)
            rates: Floats = np.array(arrival.rates)
            return rates[step]


def cumulative(arrival: Shaped, duration_s: float, t: Floats) -> Floats:
    """Λ(t) = ∫₀ᵗ λ: how many requests are due by t seconds after the stage's start."""
    due_by: Floats
    match arrival:
        case Constant():
            return arrival.per_s * t
        case Poisson() | Gamma():
            return arrival.rate * t
        case Ramp():
            return arrival.start * t + (arrival.end - arrival.start) * t * t / (2 * duration_s)
        case Sine():
            swing = arrival.amplitude * arrival.period / _TWO_PI
            turns = t / arrival.period + arrival.phase
            due_by = arrival.mean * t + swing * (cos_turns(np.array([arrival.phase]))[0] - cos_turns(turns))
            return due_by
        case Steps():
            ends, due = _knots(arrival, duration_s)
            step = np.minimum(np.searchsorted(ends, t, side="right") - 1, len(ends) - 2)
            due_by = due[step] + (due[step + 1] - due[step]) * (t - ends[step]) / arrival.each
            return due_by


def inverse(arrival: Shaped, duration_s: float, due: Floats) -> Floats:
    """Λ⁻¹: when more than `due` requests are due, seconds after the stage's start. Where the rate is zero
    for a while, that is the end of the while.
    """
    seconds: Floats
    match arrival:
        case Constant():
            return due / arrival.per_s
        case Poisson() | Gamma():
            return due / arrival.rate
        case Ramp():
            # a t²/2 + start t = due with a = slope; this form of the root is also right for a -> 0.
            slope = (arrival.end - arrival.start) / duration_s
            if arrival.start == 0:
                return np.sqrt(2 * due / slope)
            root = np.sqrt(np.maximum(arrival.start * arrival.start + 2 * slope * due, 0))
            seconds = 2 * due / (arrival.start + root)
            return seconds
        case Sine():
            return _bisect(arrival, duration_s, due)
        case Steps():
            ends, steps = _knots(arrival, duration_s)
            step = np.clip(np.searchsorted(steps, due, side="right") - 1, 0, len(ends) - 2)
            gained = steps[step + 1] - steps[step]
            seconds = ends[step] + (due - steps[step]) / np.where(gained > 0, gained, 1) * arrival.each
            return seconds


def _knots(arrival: Steps, duration_s: float) -> tuple[Floats, Floats]:
    """Begin of each step in seconds and Λ there, one step beyond the stage's end."""
    count = math.ceil(duration_s / arrival.each) + 1
    rates = np.resize(np.array(arrival.rates), count)
    gained = np.rint(rates * arrival.each * _UNIT).astype(np.int64)  # exact sums, as for positions
    due: Floats = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(gained)]) / _UNIT
    return np.arange(count + 1, dtype=np.float64) * arrival.each, due


def _bisect(arrival: Sine, duration_s: float, due: Floats) -> Floats:
    """No closed form: 64 halvings of [0, d], far below a nanosecond, one row of numbers at a time."""
    low, high = np.zeros_like(due), np.full_like(due, duration_s)
    for _ in range(64):
        middle = (low + high) / 2
        above = cumulative(arrival, duration_s, middle) > due
        high, low = np.where(above, middle, high), np.where(above, low, middle)
    return high


def _bursts(arrival: Bursts, duration_s: float) -> Ints:
    end_ns, every_ns = round(duration_s * NS), round(arrival.every * NS)
    within = np.rint(np.arange(arrival.size) * (arrival.within * NS / arrival.size)).astype(np.int64)
    bursts = (np.arange(0, end_ns, every_ns, dtype=np.int64)[:, None] + within).ravel()
    if arrival.background:
        steady = Constant(process="constant", rate=arrival.background)
        bursts = np.concatenate([bursts, offsets_ns(steady, duration_s, 0, 0)])
    return np.sort(bursts[bursts < end_ns])

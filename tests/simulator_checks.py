"""Checks of the simulator against what is known without it. `test_simulator_mutations` breaks the simulator
on purpose and asserts that these then fail.
"""

from __future__ import annotations

from math import exp, factorial, inf

import numpy as np
import numpy.typing as npt
import simulations

from raybench.schema import Requests

ERRORS = 4.0
"""Standard errors that a mean may be off. The seeds are fixed: it is in or out for good."""
BIAS = 0.015
"""What whole steps do: a request of 200 steps waits half a step for its batch, 0.25% of its service, and near
saturation a wait answers about four times as strongly."""

MEAN_TOKENS, STEP_S = 200, 0.001
LENGTH_S = MEAN_TOKENS * STEP_S


def queue(
    lengths: dict[str, object], *, rate: float, requests: int, slots: int, replicas: int = 1, seed: int = 1
) -> npt.NDArray[np.float64]:
    """The waits, seconds, of Poisson arrivals at `slots` x `replicas` servers, without the first tenth."""
    run = simulations.run(
        arrival={"process": "poisson", "rate": rate},
        duration=requests / rate,
        slots=slots,
        autoscaling={"min_replicas": replicas, "max_replicas": replicas},
        emulated={
            "step_base": STEP_S,
            "step_per_sequence": 0.0,
            "prefill_tokens_per_s": 1e9,
            "output_tokens": lengths,
        },
        request={"timeout": 10_000.0},
        load={"record_chunks": False},
        seed=seed,
    )
    waits = simulations.waits_s(run)
    return waits[len(waits) // 10 :]


def assert_mean(values: npt.NDArray[np.float64], expected: float) -> None:
    """By batch means: 20 batches, long against the queue's memory, are as good as independent."""
    batches = np.array([batch.mean() for batch in np.array_split(values, 20)])
    error = batches.std(ddof=1) / np.sqrt(len(batches))
    assert error < 0.15 * expected, "the sample is too small to tell anything"
    assert abs(values.mean() - expected) <= ERRORS * error + BIAS * expected


def erlang_c(servers: int, load: float) -> float:
    """The probability to wait in M/M/c: Erlang's formula, `load` in erlangs."""
    last = load**servers / factorial(servers) * servers / (servers - load)
    return last / (sum(load**k / factorial(k) for k in range(servers)) + last)


def markovian(servers: int, utilisation: float, *, slots: int, replicas: int, requests: int = 20_000) -> None:
    """M/M/c: the mean wait, the probability to wait, and the tail: P(W > t) = C exp(-(c mu - lambda) t)."""
    rate = utilisation * servers / LENGTH_S
    lengths = {"distribution": "exponential", "mean": MEAN_TOKENS}
    waits = queue(lengths, rate=rate, requests=requests, slots=slots, replicas=replicas)
    waiting = erlang_c(servers, utilisation * servers)
    drain = servers / LENGTH_S - rate
    assert_mean(waits, waiting / drain)
    assert_mean((waits > 1e-9).astype(float), waiting)
    late_s = 1.0 / drain
    assert_mean((waits > late_s).astype(float), waiting * exp(-drain * late_s))


def general(lengths: dict[str, object], second_moment: float, utilisation: float = 0.7) -> None:
    """M/G/1 by Pollaczek and Khinchine: W = lambda E[S^2] / (2 (1 - rho)). `second_moment` over the squared
    mean."""
    rate = utilisation / LENGTH_S
    waits = queue(lengths, rate=rate, requests=30_000, slots=1)
    assert_mean(waits, rate * second_moment * LENGTH_S**2 / (2 * (1 - utilisation)))


def first_come_first_served() -> None:
    """Requests get their slots in the order in which they came, in a rush with long waits."""
    run = simulations.run(
        arrival={"process": "poisson", "rate": 6.0},
        emulated={"output_tokens": {"distribution": "exponential", "mean": 60}},
    )
    given = simulations.column(run, Requests.headers_ns)
    assert simulations.waits_s(run).max() > 10
    assert np.all(np.diff(given) >= 0)


WINDOW_S, START_S = 10.0, 7.0


def window_and_start_up() -> None:
    """One request a second that nobody answers, on one slot: n(t) = floor(t) + 1, so the mean over a second
    is 5 or more from 5 s on. The depth then only dips with the second replica.

    The step comes a window later, and its replica can serve after the start-up time; each within what pushes
    (0.5 s) and ticks (0.1 s, and one to begin) may add.
    """
    run = simulations.run(
        arrival={"process": "constant", "rate": 1.0},
        duration=40.0,
        slots=1,
        emulated={"startup": START_S, "output_tokens": {"distribution": "fixed", "mean": 4000}},
        autoscaling={"max_replicas": 2, "autoscaling_window": WINDOW_S},
    )
    happened = simulations.events(run)
    (decided, detail) = next((t, d) for t, kind, _, d in happened if kind == "decision")
    assert (detail["from"], detail["to"]) == (1, 2)
    assert 5 + WINDOW_S <= decided <= 5 + WINDOW_S + 0.5 + 0.1 + 0.1
    states = {d["state"]: t for t, kind, who, d in happened if kind == "replica_state" and who == "replica-2"}
    assert abs(states["starting"] - decided - 0.1) < 1e-6
    assert abs(states["running"] - decided - 0.1 - START_S) < 1e-6
    second = [r for r in simulations.rows(run) if r[Requests.replica] == "replica-2"]
    assert abs(second[0][Requests.headers_ns] / 1e9 - states["running"]) < 1e-6


def a_dip_begins_the_window_anew() -> None:
    """Eight from the start, nobody at 20 s (all were answered), eight again at 21 s: no stretch of depth 5
    lasts for the window of 30 s.
    """
    rush = {"process": "bursts", "size": 8, "every": 21.0}
    run = simulations.run(
        arrival=rush,
        duration=63.0,
        slots=8,
        emulated={"step_base": 0.02, "step_per_sequence": 0.0, "output_tokens": {"mean": 1000}},
        autoscaling={"max_replicas": 2, "autoscaling_window": 30.0},
    )
    assert not [e for e in simulations.events(run) if e[1] == "decision" and e[3]["to"] == 2]


def a_quiet_window() -> None:
    """Eight at once whom nobody answers for long: nothing changes any more, and the window passes all the
    same.
    """
    run = simulations.run(
        arrival={"process": "bursts", "size": 8, "every": 60.0},
        slots=8,
        emulated={"step_base": 0.02, "output_tokens": {"mean": 2500}},
        autoscaling={"max_replicas": 2, "autoscaling_window": WINDOW_S},
    )
    first = next((t for t, kind, _, _ in simulations.events(run) if kind == "decision"), inf)
    # At the latest the mean over a second is 5 once 5/8 of it have passed.
    assert WINDOW_S < first <= 5 / 8 + 0.5 + 0.1 + WINDOW_S + 0.1

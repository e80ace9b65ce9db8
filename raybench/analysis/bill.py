"""What the run cost and what for: replica-seconds, GPU-hours, money, and the waste on either side.

All of it is about the whole run, whatever rows the question selects: a replica serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from raybench.analysis.figures import Bill, Provisioning
from raybench.analysis.load import Plan, counts_between
from raybench.analysis.observed import Event, Observed, integral, is_down, is_up, real, step_function
from raybench.analysis.question import Capacity, Question
from raybench.analysis.scaling import replica_time_ns
from raybench.analysis.source import Source

OSCILLATION_WINDOWS = 5
"""Up, down and up again within so many autoscaling windows is an oscillation. Two are the least it can take
(each turn waits for a window); with five, a load that itself comes and goes slowly is not called one."""
OSCILLATION_S = 300.0
"""The same where no window is known."""
PIECE_S = 10.0
"""A stage whose load changes all the time has its rate taken over pieces of this length."""
SLACK = 1e-9
"""A rate that is a whole number of capacities but for the last bit needs no further replica."""


@dataclass(frozen=True)
class Served:
    """What the money bought, over all rows and counted as everywhere in the report: output tokens of the
    answers that say how many they had, good answers that do not say, and requests that ended well within
    every latency objective.
    """

    tokens: int
    without_usage: int
    good: int


def bill(source: Source, seen: Observed, plan: Plan, served: Served, question: Question) -> Bill:
    """The bill of a run whose deployment was observed. Raises nothing of its own."""
    deployment = source.manifest.scenario.get("deployment") or {}
    replica_ns = replica_time_ns(seen)
    hours = None if replica_ns is None else replica_ns / 3.6e12
    gpus = real((deployment.get("replica") or {}).get("gpus"))
    price = question.price_per_replica_hour
    cost = None if hours is None or price is None else hours * price
    window_s = real((deployment.get("autoscaling") or {}).get("autoscaling_window"))
    within_s = OSCILLATION_WINDOWS * window_s if window_s else OSCILLATION_S
    area, unknown_s = queue_area(seen)
    return Bill(
        replica_seconds=None if replica_ns is None else replica_ns / 1e9,
        gpus_per_replica=gpus,
        gpu_hours=None if hours is None or gpus is None else hours * gpus,
        price_per_replica_hour=price,
        cost=cost,
        output_tokens=served.tokens,
        without_usage=served.without_usage,
        cost_per_million_output_tokens=_per(cost, served.tokens / 1e6),
        good=served.good,
        cost_per_good_request=_per(cost, served.good),
        oscillations=oscillations(seen.steps, within_s),
        oscillation_within_s=within_s,
        queue_area=area,
        queue_unknown_s=unknown_s,
        provisioning=provisioning(source, seen, plan, question.capacity),
    )


def _per(cost: float | None, count: float) -> float | None:
    return cost / count if cost is not None and count else None


def oscillations(steps: Sequence[Event], within_s: float) -> int:
    """Steps up that undo a step down that undid a step up at most `within_s` before. Each counts once:
    up, down, up, down, up are two.
    """
    found = 0
    last_up: int | None = None  # the last step up before the last step down
    up_ns: int | None = None
    down = False
    for step in steps:
        if is_up(step):
            if down and last_up is not None and step.t_ns - last_up <= within_s * 1e9:
                found += 1
            up_ns, down = step.t_ns, False
        elif is_down(step):
            last_up, down = (last_up if down else up_ns), True
    return found


def queue_area(seen: Observed) -> tuple[float | None, float]:
    """(request-seconds of waiting, seconds in which nobody knew) from t0 to the end of observation.
    Each sample holds until the next; before the first one nothing is known.
    """
    samples = seen.samples
    end = max(0, seen.last)
    if not len(samples.t) or np.isnan(samples.waiting).all():
        return None, end / 1e9
    edges = np.clip(np.append(samples.t, end), 0, end)
    held = np.diff(edges) / 1e9
    unknown = np.isnan(samples.waiting)
    area = float((np.where(unknown, 0.0, samples.waiting) * held).sum())
    return area, float(held[unknown].sum() + edges[0] / 1e9)


# --- against the replicas that would have sufficed -----------------------------------------------------


def provisioning(
    source: Source, seen: Observed, plan: Plan, capacity: Capacity | None
) -> Provisioning | None:
    """Replicas available against the least number whose capacity covers the planned rate, from t0 to the end
    of observation. None without a capacity, where part of the plan has no instants (a closed loop, later
    turns), and where nothing says how many replicas there were.

    With s(t) available and d(t) = ceil(rate(t) / capacity): over is the integral of max(s − d, 0) in
    replica-seconds, under that of max(d − s, 0); beside them the seconds in which each is above zero.
    """
    if capacity is None or not seen.available or not plan.stages or plan.unplaced:
        return None
    needed = needed_replicas(planned_rate(source, plan), capacity)
    start, end = max(seen.first, 0), seen.last
    gap = _difference(seen.available, needed)
    return Provisioning(
        capacity=capacity,
        needed=tuple((t / 1e9, n) for t, n in needed),
        over_s=integral([(t, n > 0) for t, n in gap], start, end) / 1e9,
        over_area=integral([(t, max(n, 0)) for t, n in gap], start, end) / 1e9,
        under_s=integral([(t, n < 0) for t, n in gap], start, end) / 1e9,
        under_area=integral([(t, max(-n, 0)) for t, n in gap], start, end) / 1e9,
    )


def needed_replicas(rate: Sequence[tuple[int, float]], capacity: Capacity) -> list[tuple[int, int]]:
    """The least number of replicas that sustains each rate: a step function of (from ns, replicas)."""
    return step_function((t, ceil(r / capacity.requests_per_s - SLACK)) for t, r in rate)


def planned_rate(source: Source, plan: Plan) -> list[tuple[int, float]]:
    """Requests per second as planned: (from ns, rate), 0 after the last stage. A stage whose process is
    steady has one rate; others are cut into pieces of about `PIECE_S`.
    """
    edges: list[int] = []
    for stage in plan.stages:
        pieces = 1 if stage.steady else max(1, round((stage.end - stage.start) / (PIECE_S * 1e9)))
        edges += [round(e) for e in np.linspace(stage.start, stage.end, pieces + 1)[:-1]]
    edges.append(plan.stages[-1].end)
    counts = counts_between(source, edges)
    rates = [n / ((b - a) / 1e9) if b > a else 0.0 for n, a, b in zip(counts, edges, edges[1:], strict=False)]
    return [*zip(edges, rates, strict=False), (edges[-1], 0.0)]


def _difference(a: Sequence[tuple[int, int]], b: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """a − b as a step function; either is 0 before its first point."""
    instants = sorted({t for t, _ in [*a, *b]})
    return [(t, _at(a, t) - _at(b, t)) for t in instants]


def _at(points: Sequence[tuple[int, int]], t: int) -> int:
    return next((n for at, n in reversed(points) if at <= t), 0)

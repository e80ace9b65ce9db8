"""Repeats of one scenario: what chance does to each headline figure.

A band holds the 5th, 50th and 95th percentile over the repeats, by the same nearest rank as everywhere. A
latency that lies among the timeouts counts as longer than any; a repeat that cannot say a figure is left out
of that figure's band, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass
from math import inf

from raybench.analysis import Question, Summary, summarise
from raybench.analysis.quantiles import Distribution, nearest_rank
from raybench.scenario import Scenario
from raybench.simulator.simulated import simulate

BAND = (5.0, 50.0, 95.0)

Figures = dict[str, float]
"""Name with its unit at the end (`_s`, `_per_s`, `_share`, else a count) -> value; inf: among timeouts."""


@dataclass(frozen=True)
class Band:
    """One figure over the repeats. `first`: of repeat 0, the run itself; None where it cannot be said."""

    name: str
    first: float | None
    p5: float
    p50: float
    p95: float
    repeats: int  # that could say it


@dataclass(frozen=True)
class Bands:
    """`repeats`: those that were done, of those that were `wanted`."""

    repeats: int
    wanted: int
    figures: tuple[Band, ...]


def headline(summary: Summary) -> Figures:
    """The figures of a report that a glance falls on, without those that cannot be said."""
    found: dict[str, float | None] = {"success_share": summary.success_rate}
    latencies = summary.latencies
    ttft = latencies.ttft_scheduled or latencies.ttft_sent
    e2e = latencies.e2e_scheduled or latencies.e2e_sent
    for name, distribution in (("ttft", ttft), ("e2e", e2e), ("tpot", latencies.tpot)):
        found |= {f"{name}_{key}_s": value for key, value in _of(distribution).items()}
    found["sent_per_s"] = summary.throughput.sent_per_s
    found["goodput_per_s"] = summary.goodput.per_s
    found["tokens_per_s"] = summary.throughput.tokens_per_s
    if summary.scaling is not None:
        found["scaling_steps"] = len(summary.scaling.steps)
        found["nothing_available_s"] = summary.scaling.nothing_available_s
    if summary.bill is not None:
        found["replica_seconds_s"] = summary.bill.replica_seconds
        found["cost"] = summary.bill.cost
    return {name: value for name, value in found.items() if value is not None}


def _of(distribution: Distribution) -> Mapping[str, float | None]:
    found: dict[str, float | None] = {"mean": distribution.mean}
    for percentile in distribution.percentiles:
        value = percentile.value
        found[f"p{percentile.percent:g}"] = inf if value.censored else value.value
    return found


def figures_of(scenario: Scenario, question: Question, repeat: int) -> Figures:
    """One repeat, simulated and summed up; for another process to call."""
    return headline(summarise(simulate(scenario, repeat=repeat), question))


def bands(
    scenario: Scenario,
    question: Question,
    first: Figures,
    repeats: int,
    executor: Executor,
    progress: Callable[[int], None],
) -> Bands:
    """Repeats 1 to `repeats` - 1 beside `first`, that of repeat 0. The same for any executor.

    `progress` is told how many are done. KeyboardInterrupt ends it early, with the repeats that are done.
    """
    waiting: dict[Future[Figures], int] = {}
    done: dict[int, Figures] = {0: first}
    try:
        for repeat in range(1, repeats):
            waiting[executor.submit(figures_of, scenario, question, repeat)] = repeat
        for future in as_completed(waiting):
            done[waiting[future]] = future.result()
            progress(len(done))
    except KeyboardInterrupt:
        for future, repeat in waiting.items():
            if not future.cancel() and future.done() and future.exception() is None:
                done[repeat] = future.result()
    return Bands(len(done), repeats, of(first, [done[repeat] for repeat in sorted(done)]))


def of(first: Figures, repeats: Sequence[Figures]) -> tuple[Band, ...]:
    """A band for every figure that any repeat could say, in the order of `headline`."""
    names = list(dict.fromkeys(name for figures in (first, *repeats) for name in figures))
    found = []
    for name in names:
        values = sorted(figures[name] for figures in repeats if name in figures)
        low, middle, high = (values[nearest_rank(p, len(values))] for p in BAND)
        found.append(Band(name, first.get(name), low, middle, high, len(values)))
    return tuple(found)

"""One simulated run of one setting, as the few figures that tuning looks at."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from raybench.analysis import Question, Summary, summarise
from raybench.analysis.figures import ObjectiveResult
from raybench.analysis.quantiles import Value
from raybench.analysis.question import SUCCESS_RATE, Anchor
from raybench.scenario import Autoscaling, Scenario

_LATENCY = re.compile(r"(ttft|tpot|e2e)_p(\d{1,2}(?:\.\d+)?)")


@dataclass(frozen=True)
class Against:
    """What cost is weighed against: goodput (more is better) or a latency's percentile (less is)."""

    name: str
    metric: str
    percent: float | None = None

    @classmethod
    def of(cls, name: str) -> Against:
        """From its name: `goodput`, or a latency such as `ttft_p95`. Raises ValueError."""
        if name == "goodput":
            return cls(name, name)
        match = _LATENCY.fullmatch(name)
        if match is None or float(match[2]) == 0:
            raise ValueError(f"value {name!r}: goodput, or a latency such as ttft_p95 or e2e_p99, is right")
        return cls(name, match[1], float(match[2]))

    @property
    def more_is_better(self) -> bool:
        return self.percent is None


@dataclass(frozen=True)
class Trial:
    """What came of one run. Latencies are seconds; inf where the percentile is not known: nothing was
    answered, or it lies among the timeouts.
    """

    replica_seconds: float  # as in the report's bill
    goodput_per_s: float  # good requests over the planned time; in a closed loop over the time it took
    against: float  # the value of `Against`
    values: tuple[float, ...]  # of each objective, in their order
    missed: tuple[bool, ...]  # of each objective
    valid: bool  # the verdict of the run
    excess: float  # by how much the objective that is furthest off was missed, relative to its limit; or 0

    @property
    def met(self) -> bool:
        """The run would leave with 0: valid, and every objective met."""
        return self.valid and not any(self.missed)


def trial(scenario: Scenario, against: Against, autoscaling: Autoscaling, repeat: int) -> Trial:
    """Simulates `scenario` with another `autoscaling`. The same repeat draws the same load for every setting
    (common random numbers), so that settings differ by what they do and less by chance.
    """
    from raybench.simulator import simulate  # the package is still being imported where this is first read

    percents = (50.0, 95.0, 99.0, *([against.percent] if against.percent is not None else []))
    question = Question(percentiles=tuple(dict.fromkeys(percents)), drift=False)
    return figures(
        summarise(simulate(with_autoscaling(scenario, autoscaling), repeat=repeat), question),
        scenario,
        against,
    )


def with_autoscaling(scenario: Scenario, autoscaling: Autoscaling) -> Scenario:
    """The same scenario, scaled otherwise. It must have a deployment."""
    assert scenario.deployment is not None
    deployment = scenario.deployment.model_copy(update={"autoscaling": autoscaling})
    return scenario.model_copy(update={"deployment": deployment})


def figures(summary: Summary, scenario: Scenario, against: Against) -> Trial:
    """From the report's own figures, so that tuning and a report never disagree."""
    replica_seconds = summary.bill.replica_seconds if summary.bill else None
    if replica_seconds is None:
        raise ValueError("nothing says how many replicas there were")
    goodput = _goodput_per_s(summary, scenario)
    return Trial(
        replica_seconds=replica_seconds,
        goodput_per_s=goodput,
        against=goodput if against.percent is None else _latency(summary, against),
        values=tuple(_value(o) for o in summary.objectives),
        missed=tuple(not o.met for o in summary.objectives),
        valid=summary.verdict.valid and summary.verdict.unfinished is None,
        excess=max((_excess(o) for o in summary.objectives), default=0.0),
    )


def _goodput_per_s(summary: Summary, scenario: Scenario) -> float:
    """Over the planned time of the rows in question: divided by the time to the last answer, as in a
    report, one slow answer would move it.
    """
    load = scenario.load
    if load.concurrency is not None:
        return summary.goodput.per_s or 0.0
    phased = summary.selected.phase is not None
    planned_s = load.duration_s - (load.warmup + load.cooldown if phased else 0.0)
    return summary.goodput.good / planned_s


def _latency(summary: Summary, against: Against) -> float:
    found: Any = summary.latencies
    scheduled = summary.anchor is Anchor.SCHEDULED
    of = (
        found.tpot
        if against.metric == "tpot"
        else getattr(found, f"{against.metric}_{'scheduled' if scheduled else 'sent'}")
    )
    return _finite(of.at(against.percent) if of is not None else None)


def _finite(value: Value | None) -> float:
    return math.inf if value is None or value.censored else value.value


def _value(result: ObjectiveResult) -> float:
    if result.objective.metric == SUCCESS_RATE:
        return result.value.value if result.value else 0.0
    return _finite(result.value)


def _excess(result: ObjectiveResult) -> float:
    """0.1: a latency 10% over its limit, or a success rate whose limit is 10% above it. A timeout counts as
    long as it waited: more is not known of it.
    """
    if result.met:
        return 0.0
    value = result.value.value if result.value else None
    if result.objective.metric == SUCCESS_RATE:
        return result.objective.limit / value - 1 if value else math.inf
    return math.inf if value is None else max(value / result.objective.limit - 1, 0.0)

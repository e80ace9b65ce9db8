"""What is asked of a run. The tables stay; the question can change as often as one likes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Any

from raybench.schema import Phase


class Anchor(StrEnum):
    """The instant that headline latencies count from."""

    SCHEDULED = "scheduled"
    SENT = "sent"


class PhaseFilter(StrEnum):
    AUTO = "auto"  # steady rows where the scenario has a warm-up or a cool-down, else all
    ALL = "all"
    WARMUP = Phase.WARMUP
    STEADY = Phase.STEADY
    COOLDOWN = Phase.COOLDOWN


GROUPS = ("stage", "phase", "replica", "generator")
METRICS = ("ttft", "tpot", "e2e")
SUCCESS_RATE = "success_rate"

_OBJECTIVE = re.compile(rf"({'|'.join(METRICS)})_p(\d{{1,2}}(?:\.\d+)?)")


@dataclass(frozen=True)
class Objective:
    """A limit that a run is held against.

    `metric` is ttft, tpot or e2e with `limit` in seconds at `percent` (0 to 100), or success_rate with
    `limit` a ratio that must be reached.
    """

    metric: str
    limit: float
    percent: float | None = None

    @property
    def name(self) -> str:
        return self.metric if self.percent is None else f"{self.metric}_p{self.percent:g}"

    @classmethod
    def of(cls, name: str, limit: float) -> Objective:
        """From its name in a scenario. Raises ValueError."""
        if name == SUCCESS_RATE:
            return cls(name, limit)
        match = _OBJECTIVE.fullmatch(name)
        if match is None or float(match[2]) == 0:
            raise ValueError(
                f"objective {name!r}: success_rate, or one of {', '.join(METRICS)} with a percentile "
                "is right, such as ttft_p99 or e2e_p95"
            )
        return cls(match[1], limit, float(match[2]))


@dataclass(frozen=True)
class Capacity:
    """What one replica sustains within the objectives, and where that is known from (a run, a guess)."""

    requests_per_s: float
    source: str

    def __post_init__(self) -> None:
        if not 0 < self.requests_per_s < inf:
            raise ValueError(
                f"capacity {self.requests_per_s:g} requests per second and replica: a positive one is right"
            )


@dataclass(frozen=True)
class Question:
    """Which rows, counted from where, held against what.

    `window`: only requests whose anchor (sent, in a closed loop) lies in [from, to), seconds after t0.
    `anchor`: what headline latencies count from; None is scheduled. Asked for by name, the oha block is
    printed again from the schedule. A closed loop has none and counts from sent whatever is asked.
    `by`: one of GROUPS, or a positive number of seconds for windows of that length; None for no groups.
    `objectives`: replaces the scenario's own; None keeps them.
    `drift`: whether the report shows how the run changed by hour; None does for ten minutes and more.
    `price_per_replica_hour`: in whatever currency; None for a bill without money.
    `capacity`: of one replica; None for a bill that does not say how many would have sufficed.
    """

    window: tuple[float, float] | None = None
    phase: PhaseFilter = PhaseFilter.AUTO
    anchor: Anchor | None = None
    percentiles: tuple[float, ...] = (50, 90, 95, 99)
    objectives: tuple[Objective, ...] | None = None
    by: str | float | None = None
    drift: bool | None = None
    price_per_replica_hour: float | None = None
    capacity: Capacity | None = None

    def __post_init__(self) -> None:
        for p in self.percentiles:
            if not 0 < p <= 100:
                raise ValueError(f"percentile {p:g}: a number above 0 and up to 100 is right")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError(
                f"window {self.window[0]:g}s:{self.window[1]:g}s: its end must lie after its start"
            )
        if isinstance(self.by, str) and self.by not in GROUPS:
            raise ValueError(f"grouping {self.by!r}: {', '.join(GROUPS)} or a length such as 10s is right")
        if isinstance(self.by, int | float) and not self.by > 0:
            raise ValueError(f"grouping by {self.by:g} s: a positive length is right")
        if self.price_per_replica_hour is not None and not 0 <= self.price_per_replica_hour < inf:
            raise ValueError(
                f"price per replica-hour {self.price_per_replica_hour:g}: a number from 0 up is right"
            )


def scenario_objectives(scenario: Mapping[str, Any]) -> tuple[Objective, ...]:
    """The objectives of a resolved scenario, in its own order."""
    stated = scenario.get("objectives") or {}
    return tuple(Objective.of(name, float(limit)) for name, limit in stated.items() if limit is not None)

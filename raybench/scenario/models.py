"""The typed scenario: what one YAML file may say. Validation of single values lives in the types
(`units`), of combinations in each model's `mistakes`, and `load.load()` turns every mistake into one line.

Unknown keys are errors everywhere. Durations are seconds as float, sizes are bytes as int, rates are
requests per second: the units are in the types, the YAML says `60s`, `15Gi`, `10/s`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from raybench.scenario.arrivals import Arrival, Constant, Gamma, Poisson, Trace
from raybench.scenario.base import Mistake, Model
from raybench.scenario.deployment import (
    Autoscaling,
    Deployment,
    Emulated,
    Faults,
    OutputLength,
    Replica,
    Router,
    Serving,
    Target,
)
from raybench.scenario.distributions import Pause
from raybench.scenario.objectives import Bounds, Limit, Objectives
from raybench.scenario.request import Request
from raybench.scenario.simulation import Simulation
from raybench.scenario.units import PositiveSeconds, Seconds

__all__ = [
    "Arrival",
    "Autoscaling",
    "Bounds",
    "Constant",
    "Deployment",
    "Emulated",
    "Faults",
    "Gamma",
    "Limit",
    "Load",
    "Model",
    "Objectives",
    "OutputLength",
    "Poisson",
    "Replica",
    "Request",
    "Router",
    "Scenario",
    "Serving",
    "Settle",
    "Simulation",
    "Stage",
    "Target",
]

MOST_PLANNED = 50_000_000
"""The largest schedule that is built, requests. Every row lives in memory while it is made."""


class Stage(Model):
    """A stretch of load with one arrival process. Stages follow one another without a gap.

    In a closed loop there is one stage with `requests` instead of an arrival process, and its duration is
    the longest it may last.
    """

    duration: PositiveSeconds
    arrival: Arrival | None = None
    requests: PositiveInt | None = None

    @property
    def process(self) -> str:
        return self.arrival.process if self.arrival is not None else "closed loop"

    def mistakes(self) -> Iterator[Mistake]:
        every = {"each": getattr(self.arrival, "each", None), "every": getattr(self.arrival, "every", None)}
        for key, period in every.items():
            if period is not None and self.duration / period > 1e6:
                yield Mistake(("arrival", key), "should be at least a millionth of the stage's duration")

    def expected(self) -> float | None:
        """Requests (or conversations) planned on average; null where only a data file can say."""
        return self.requests if self.arrival is None else self.arrival.expected(self.duration)


class Settle(Model):
    until: Literal["min_replicas"] = "min_replicas"
    at_most: PositiveSeconds = 600


class Load(Model):
    api: Literal["chat", "completions", "raw"] = "chat"
    stages: Annotated[list[Stage], Field(min_length=1)]
    request: Request = Request()
    generators: Annotated[int, Field(gt=0, le=1024)] | Literal["auto"] = "auto"
    max_in_flight: PositiveInt | None = None  # capped client: over all generators
    concurrency: PositiveInt | None = None  # closed loop: callers, over all generators
    think_time: Pause | None = None  # closed loop: of a caller, between an answer and the next request
    warmup: Seconds = 0
    cooldown: Seconds = 0
    settle: Settle | None = None
    record_chunks: bool = True

    @property
    def duration_s(self) -> float:
        """From t0 to the end of the last stage, seconds."""
        return sum(stage.duration for stage in self.stages)

    def mistakes(self) -> Iterator[Mistake]:
        total = self.duration_s
        if self.warmup + self.cooldown >= total:
            key = "warmup" if self.warmup >= self.cooldown else "cooldown"
            yield Mistake((key,), f"warmup and cooldown together should be shorter than the load, {total:g}s")
        planned = sum(stage.expected() or 0 for stage in self.stages)
        if planned > MOST_PLANNED:
            yield Mistake(
                ("stages",),
                f"about {planned:,.0f} requests are planned; at most {MOST_PLANNED:,} fit one schedule: "
                "lower the rates or shorten the stages",
            )
        yield from self._kind_mistakes()
        raw = self.api == "raw"
        for mistake in self.request.raw_mistakes() if raw else self.request.openai_mistakes(self.api):
            yield Mistake(("request", *mistake.key), mistake.right)
        for number, stage in enumerate(self.stages):
            traced = isinstance(stage.arrival, Trace) and stage.arrival.lengths
            if traced and raw:
                yield Mistake(("stages", number, "arrival", "lengths"), "should be false with api raw")
            if not traced and not self.request.sources:
                yield Mistake(
                    ("request", "body" if raw else "prompt"),
                    "required: a body, or a data file of bodies as prompts"
                    if raw
                    else "required: a prompt, a data file of prompts, or input_tokens for synthetic ones",
                )
                break

    def _kind_mistakes(self) -> Iterator[Mistake]:
        """What does not fit the kind of load: open loop, capped client or closed loop."""
        closed = self.concurrency is not None
        if closed and self.max_in_flight is not None:
            yield Mistake(
                ("concurrency",),
                "give max_in_flight (requests keep their instants) or concurrency (they have none), not both",
            )
        for key, most in (("max_in_flight", self.max_in_flight), ("concurrency", self.concurrency)):
            if most is not None and isinstance(self.generators, int) and self.generators > most:
                yield Mistake(
                    ("generators",), f"should be at most {key}, which is {most}: each generator needs a place"
                )
        if not closed and self.think_time is not None:
            yield Mistake(("think_time",), "goes with concurrency; between turns: request.conversation")
        if closed and len(self.stages) > 1:
            yield Mistake(("stages",), "a closed loop has one stage: its requests have an order, no instants")
        for number, stage in enumerate(self.stages):
            at: tuple[str, int] = ("stages", number)
            if closed and stage.arrival is not None:
                yield Mistake((*at, "arrival"), "leave it out: in a closed loop, answers bring requests")
            if closed and stage.requests is None:
                yield Mistake((*at, "requests"), "required in a closed loop: how many, such as 1000")
            if not closed and stage.arrival is None:
                yield Mistake((*at, "arrival"), "required, such as {process: poisson, rate: 10/s}")
            if not closed and stage.requests is not None:
                yield Mistake((*at, "requests"), "goes with concurrency; here the arrival process decides")


class Scenario(Model):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    description: str = ""
    seed: NonNegativeInt = 1
    deployment: Deployment | None = None
    target: Target | None = None
    serving: Serving = Serving()
    load: Load
    objectives: Objectives = Objectives()
    valid: Bounds = Bounds()
    simulation: Simulation = Simulation()  # ignored by a live run

    def mistakes(self) -> Iterator[Mistake]:
        if self.deployment is None and self.target is None:
            yield Mistake(
                ("deployment",), "required: a deployment to set up, or a target that is already there"
            )
        if self.deployment is not None and self.target is not None:
            yield Mistake(("target",), "give a deployment or a target, not both")

"""The typed scenario: what one YAML file may say. Validation of single values lives in the types
(`units`), of combinations in each model's `mistakes`, and `load.load()` turns every mistake into one line.

Unknown keys are errors everywhere. Durations are seconds as float, sizes are bytes as int, rates are
requests per second: the units are in the types, the YAML says `60s`, `15Gi`, `10/s`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from raybench.scenario.arrivals import Arrival, Constant, Gamma, Poisson
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
from raybench.scenario.objectives import Bounds, Limit, Objectives
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
    "Stage",
    "Target",
]

MOST_PLANNED = 50_000_000
"""The largest schedule that is built, requests. Every row lives in memory while it is made."""


class Stage(Model):
    """A stretch of load with one arrival process. Stages follow one another without a gap."""

    duration: PositiveSeconds
    arrival: Arrival


class Request(Model):
    prompt: str | None = None
    prompts: str | None = None  # path of a data file, relative to the scenario
    max_tokens: PositiveInt | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    timeout: PositiveSeconds = 300
    stream: bool = True
    extra: dict[str, Any] = Field(default_factory=dict)  # further keys of the request body, sent as they are

    def mistakes(self) -> Iterator[Mistake]:
        if self.prompt is None and self.prompts is None:
            yield Mistake(("prompt",), "required: a prompt, or a data file of prompts")
        if self.prompt is not None and self.prompts is not None:
            yield Mistake(("prompts",), "give a prompt or a data file of prompts, not both")
        for key in ("model", "messages", "prompt", "stream", "stream_options", "max_tokens"):
            if key in self.extra:
                yield Mistake(("extra", key), "is set by raybench itself; leave it out here")


class Settle(Model):
    until: Literal["min_replicas"] = "min_replicas"
    at_most: PositiveSeconds = 600


class Load(Model):
    api: Literal["chat", "completions"] = "chat"
    stages: Annotated[list[Stage], Field(min_length=1)]
    request: Request
    generators: PositiveInt | Literal["auto"] = "auto"
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
        planned = sum(stage.arrival.expected(stage.duration) for stage in self.stages)
        if planned > MOST_PLANNED:
            yield Mistake(
                ("stages",),
                f"about {planned:,.0f} requests are planned; at most {MOST_PLANNED:,} fit one schedule: "
                "lower the rates or shorten the stages",
            )


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

    def mistakes(self) -> Iterator[Mistake]:
        if self.deployment is None and self.target is None:
            yield Mistake(
                ("deployment",), "required: a deployment to set up, or a target that is already there"
            )
        if self.deployment is not None and self.target is not None:
            yield Mistake(("target",), "give a deployment or a target, not both")

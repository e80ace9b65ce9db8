"""When requests are due: one model per arrival process. `schedule` turns them into instants.

Every process but `bursts` and `trace` is a rate that is a function of time. `expected(d)` is its integral
from 0 to d seconds: how many requests the process plans on average in a stage of that length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from raybench.scenario.base import DataFile, Mistake, Model
from raybench.scenario.units import PositiveSeconds, Rate, RateOrZero, Ratio, Seconds

Spacing = Literal["even", "poisson"]
"""How requests follow a changing rate: as evenly as it allows, or at random as independent users would."""


class Constant(Model):
    """Equal gaps, the first request at the stage's start: `interval: 15s`, or `rate: 4/min`."""

    process: Literal["constant"]
    interval: PositiveSeconds | None = None
    rate: Rate | None = None

    def mistakes(self) -> Iterator[Mistake]:
        if self.interval is None and self.rate is None:
            yield Mistake(("interval",), "required: an interval such as 15s, or a rate such as 4/min")
        if self.interval is not None and self.rate is not None:
            yield Mistake(("rate",), "give an interval or a rate, not both")
        if self.interval is not None and self.interval < 1e-7:
            yield Mistake(("interval",), "should be at least 100ns")

    @property
    def per_s(self) -> float:
        return self.rate if self.rate is not None else 1 / (self.interval or 1)

    def expected(self, duration_s: float) -> float:
        return self.per_s * duration_s


class Poisson(Model):
    """Independent users: exponential gaps with mean 1/rate."""

    process: Literal["poisson"]
    rate: Rate

    def expected(self, duration_s: float) -> float:
        return self.rate * duration_s


class Gamma(Model):
    """Gamma-distributed gaps with mean 1/rate and shape k = `burstiness`: their coefficient of variation
    is 1/sqrt(k). 1 is Poisson, below 1 is burstier, above 1 more regular.
    """

    process: Literal["gamma"]
    rate: Rate
    burstiness: Annotated[float, Field(ge=0.01, le=1000)]

    def expected(self, duration_s: float) -> float:
        return self.rate * duration_s


class Ramp(Model):
    """λ(t) = start + (end - start) t/d: a straight line over the stage's duration d."""

    process: Literal["ramp"]
    start: RateOrZero
    end: RateOrZero
    spacing: Spacing = "even"

    def mistakes(self) -> Iterator[Mistake]:
        if self.start == self.end == 0:
            yield Mistake(("end",), "should be more than 0 where start is 0")

    def expected(self, duration_s: float) -> float:
        return (self.start + self.end) / 2 * duration_s


class Sine(Model):
    """λ(t) = mean + amplitude sin 2π(t/period + phase). `phase` 0 begins at the mean and rises, 75% at the
    trough.
    """

    process: Literal["sine"]
    mean: Rate
    amplitude: RateOrZero
    period: PositiveSeconds
    phase: Ratio = 0.0
    spacing: Spacing = "even"

    def mistakes(self) -> Iterator[Mistake]:
        if self.amplitude > self.mean:
            yield Mistake(("amplitude",), f"should be at most mean, {self.mean:g}/s: no rate is below 0")

    def expected(self, duration_s: float) -> float:
        swing = self.amplitude * self.period / (2 * math.pi)
        turns = duration_s / self.period + self.phase
        return self.mean * duration_s + swing * (
            math.cos(2 * math.pi * self.phase) - math.cos(2 * math.pi * turns)
        )


class Steps(Model):
    """Each of `rates` in turn for the time `each`, and again from the first until the stage ends. With
    0/s among them: pauses.
    """

    process: Literal["steps"]
    rates: Annotated[list[RateOrZero], Field(min_length=1)]
    each: Annotated[PositiveSeconds, Field(ge=0.001)]
    spacing: Spacing = "even"

    def expected(self, duration_s: float) -> float:
        whole, rest = divmod(duration_s, self.each)
        rounds, further = divmod(int(whole), len(self.rates))
        steps = rounds * math.fsum(self.rates) + math.fsum(self.rates[:further])
        return steps * self.each + self.rates[further] * rest


class Bursts(Model):
    """`size` requests at once (or evenly `within` a time) at the stage's start and then `every` so often,
    over an even `background`.
    """

    process: Literal["bursts"]
    size: PositiveInt
    every: Annotated[PositiveSeconds, Field(ge=0.001)]
    within: Seconds = 0
    background: RateOrZero = 0

    def mistakes(self) -> Iterator[Mistake]:
        if self.within > self.every:
            yield Mistake(("within",), f"should be at most every, which is {self.every:g}s")

    def expected(self, duration_s: float) -> float:
        whole, rest = divmod(duration_s, self.every)
        last = 0.0
        if rest:
            last = self.size if rest >= self.within else math.ceil(self.size * rest / self.within)
        return whole * self.size + last + self.background * duration_s


class Trace(Model):
    """Requests replayed at the instants of a recorded trace, `speed` times as fast; the stage's duration
    cuts it off. With `lengths`, prompts and answers have the recorded lengths too.
    """

    process: Literal["trace"]
    path: DataFile
    format: Literal["azure", "burstgpt", "mooncake"] | None = None  # by its columns
    speed: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    skip: Seconds = 0  # this much of the trace, in its own time
    lengths: bool = True

    def expected(self, duration_s: float) -> float | None:
        return None  # only the file can say


Shaped = Constant | Poisson | Gamma | Ramp | Sine | Steps
"""Processes with a rate that is a function of time."""

Arrival = Annotated[Shaped | Bursts | Trace, Field(discriminator="process")]

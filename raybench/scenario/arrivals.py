"""When requests are due: one model per arrival process. `schedule` turns them into instants.

Every process but `trace` is a rate that is a function of time. `expected(d)` is its integral from 0 to d
seconds: how many requests the process plans on average in a stage of that length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from raybench.scenario.base import Mistake, Model
from raybench.scenario.units import PositiveSeconds, Rate


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


Arrival = Annotated[Constant | Poisson | Gamma, Field(discriminator="process")]

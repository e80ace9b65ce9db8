"""Distributions of whole numbers (tokens, turns) and of pauses. `workload.lengths` draws from them.

A plain number or duration is the fixed distribution: `input_tokens: 512`, `think_time: 2s`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from raybench.scenario.base import DataFile, Mistake, Model
from raybench.scenario.units import PositiveSeconds, Seconds

MOST = 2**31 - 1  # columns of lengths are int32


class _Clipped(Model):
    """Draws outside [min, max] are moved to the nearer end."""

    min: PositiveInt = 1
    max: PositiveInt = MOST

    def mistakes(self) -> Iterator[Mistake]:
        if self.min > self.max:
            yield Mistake(("min",), f"should be at most max, which is {self.max}")
        if self.max > MOST:
            yield Mistake(("max",), f"should be at most {MOST}")


class Fixed(Model):
    distribution: Literal["fixed"]
    value: Annotated[int, Field(gt=0, le=MOST)]


class Uniform(Model):
    """Every whole number from min to max, both included, equally often."""

    distribution: Literal["uniform"]
    min: PositiveInt
    max: Annotated[int, Field(gt=0, le=MOST)]

    def mistakes(self) -> Iterator[Mistake]:
        if self.min > self.max:
            yield Mistake(("min",), f"should be at most max, which is {self.max}")


class Normal(_Clipped):
    distribution: Literal["normal"]
    mean: Annotated[float, Field(gt=0)]
    stddev: Annotated[float, Field(ge=0)]


class Lognormal(_Clipped):
    """`mean` is the distribution's own mean; `sigma` the standard deviation of the logarithm."""

    distribution: Literal["lognormal"]
    mean: Annotated[float, Field(gt=0)]
    sigma: Annotated[float, Field(ge=0, le=10)]


class Empirical(Model):
    """Drawn from observed values: a list, or a column of a JSONL, CSV or Parquet file."""

    distribution: Literal["empirical"]
    values: list[Annotated[int, Field(gt=0, le=MOST)]] | None = None
    file: DataFile | None = None
    column: str = "tokens"

    def mistakes(self) -> Iterator[Mistake]:
        if self.values is None and self.file is None:
            yield Mistake(("values",), "required: a list of values, or a file of them")
        if self.values is not None and self.file is not None:
            yield Mistake(("file",), "give values or a file, not both")
        if self.values is not None and not self.values:
            yield Mistake(("values",), "should have at least one entry")


class FixedPause(Model):
    distribution: Literal["fixed"]
    value: Seconds


class UniformPause(Model):
    distribution: Literal["uniform"]
    min: Seconds
    max: Seconds

    def mistakes(self) -> Iterator[Mistake]:
        if self.min > self.max:
            yield Mistake(("min",), f"should be at most max, which is {self.max:g}s")


class ExponentialPause(Model):
    distribution: Literal["exponential"]
    mean: PositiveSeconds


class LognormalPause(Model):
    distribution: Literal["lognormal"]
    mean: PositiveSeconds
    sigma: Annotated[float, Field(ge=0, le=10)]


def _fixed(*plain: type) -> Callable[[Any], Any]:
    def widen(value: Any) -> Any:
        is_plain = isinstance(value, plain) and not isinstance(value, bool)
        return {"distribution": "fixed", "value": value} if is_plain else value

    return widen


Count = Annotated[
    Annotated[Fixed | Uniform | Normal | Lognormal | Empirical, Field(discriminator="distribution")],
    BeforeValidator(_fixed(int, float)),
]
Pause = Annotated[
    Annotated[
        FixedPause | UniformPause | ExponentialPause | LognormalPause, Field(discriminator="distribution")
    ],
    BeforeValidator(_fixed(int, float, str)),
]

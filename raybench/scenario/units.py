"""Values with units, as people write them: `60s`, `15Gi`, `10/s`, `99.9%`.

Each type turns text into one number in one unit: seconds, bytes, requests per second, a ratio from 0 to 1.
A bare number is taken as already being in that unit, as it is in a dumped scenario, unless the validation
context says that a person wrote it (`WRITTEN`): then `60` for a duration is refused, since nobody can tell
whether seconds or minutes were meant. Zero needs no unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo
from pydantic_core import PydanticCustomError

WRITTEN = "written"
"""Key of the validation context: true where values come from a file that a person wrote."""

LONGEST_S = 366 * 86400.0  # a year; keeps every instant far inside int64 nanoseconds

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0}
_SECONDS |= {"h": 3600.0, "d": 86400.0}
_PER = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_BYTES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BYTES |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)"
_DURATION_PART = re.compile(_NUMBER + r"\s*(ns|us|µs|ms|min|s|m|h|d)\s*")
_RATE = re.compile(_NUMBER + r"\s*/\s*(s|min|m|h)")
_SIZE = re.compile(_NUMBER + r"\s*(Ki|[MGT]i?|[kK])?B?")
_PERCENT = re.compile(_NUMBER + r"\s*%")


def wrong(kind: str, right: str) -> PydanticCustomError:
    """A mistake whose message says what would be right, and nothing else."""
    return PydanticCustomError(kind, "{right}", {"right": right})


def seconds(text: str) -> float | None:
    """`1h30m` -> 5400.0; None where the text is not a duration."""
    total, at = 0.0, 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != at:
            return None
        unit, number = part.group(2), float(part.group(1))
        # Dividing keeps 500ms at 0.5 exactly, where 500 * 1e-3 need not be.
        total += number * _SECONDS[unit] if _SECONDS[unit] >= 1 else number / round(1 / _SECONDS[unit])
        at = part.end()
    return total if at == len(text) and at else None


def rate(text: str) -> float | None:
    """`4/min` -> 0.0667 requests per second; None where the text is not a rate."""
    found = _RATE.fullmatch(text)
    return float(found.group(1)) / _PER[found.group(2)] if found else None


def size(text: str) -> float | None:
    """`15Gi` -> bytes; None where the text is not a size."""
    found = _SIZE.fullmatch(text)
    return float(found.group(1)) * _BYTES[found.group(2) or ""] if found else None


def ratio(text: str) -> float | None:
    """`99.9%` -> 0.999; None where the text is not a percentage."""
    found = _PERCENT.fullmatch(text)
    return float(Decimal(found.group(1)).scaleb(-2)) if found else None  # 99.9 / 100 is not 0.999


def _reader(
    kind: str,
    parse: Callable[[str], float | None],
    suffixes: tuple[str, ...],
    examples: str,
    *,
    low: float = 0.0,
    above: bool = False,
    high: float = math.inf,
    bare: bool = False,
    whole: bool = False,
) -> BeforeValidator:
    """A validator for one unit: what it reads, what it refuses, and what it then says.

    `low` is the least value (`above`: must be exceeded), `high` the greatest; `bare` lets a written number
    pass without a unit; `whole` gives an int.
    """

    def read(value: Any, info: ValidationInfo) -> float | int:
        written = bool(info.context and info.context.get(WRITTEN))
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise wrong(kind, f"should be a {kind}, such as {examples}")
        if isinstance(value, str):
            number = parse(value.strip().removeprefix("+"))
            if number is None:
                if value.strip().startswith("-") and parse(value.strip()[1:]) is not None:
                    raise wrong(kind, f"a {kind} cannot be negative; such as {examples}")
                raise wrong(kind, f"is not a {kind}; such as {examples}")
        else:
            number = value
            if written and not bare and number != 0 and math.isfinite(number):
                units = " or ".join(f"{number:g}{unit}" for unit in suffixes)
                raise wrong(kind, f"a {kind} needs a unit, such as {units}")
        if not math.isfinite(number):
            raise wrong(kind, f"should be a finite {kind}, such as {examples}")
        if number < low or (above and number == low):
            bound = f"more than {low:g}" if above else f"at least {low:g}"
            raise wrong(kind, f"should be {bound}, such as {examples}")
        if number > high:
            hint = f", or {number:g}% for the share" if kind == "ratio" else ""
            raise wrong(kind, f"should be at most {high:g}{suffixes[0]}{hint}")
        return round(number) if whole else float(number)

    return BeforeValidator(read)


Seconds = Annotated[float, _reader("duration", seconds, ("s", "m"), "60s, 5m or 500ms", high=LONGEST_S)]
PositiveSeconds = Annotated[
    float, _reader("duration", seconds, ("s", "m"), "60s, 5m or 500ms", above=True, high=LONGEST_S)
]
Bytes = Annotated[int, _reader("size", size, ("Gi", "Mi"), "15Gi or 512Mi", above=True, whole=True)]
Rate = Annotated[float, _reader("rate", rate, ("/s", "/min"), "10/s or 4/min", above=True, high=1e7)]
RateOrZero = Annotated[float, _reader("rate", rate, ("/s", "/min"), "10/s or 4/min", high=1e7)]
Ratio = Annotated[float, _reader("ratio", ratio, ("",), "99.9% or 0.999", high=1.0, bare=True)]

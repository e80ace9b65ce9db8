"""Values with units: what is read, what is refused, and that the refusal says what would be right."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from raybench.scenario import units

WRITTEN = {units.WRITTEN: True}


def read(type_: Any, value: Any, written: bool = True) -> Any:
    return TypeAdapter(type_).validate_python(value, context=WRITTEN if written else None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("40m", 2400.0),
        ("40min", 2400.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("1h30m", 5400.0),
        ("1m 30s", 90.0),
        ("500ms", 0.5),
        ("100ms", 0.1),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("7ns", 7e-9),
        ("0s", 0.0),
        (0, 0.0),
    ],
)
def test_durations(text: Any, seconds: float) -> None:
    assert read(units.Seconds, text) == seconds


@pytest.mark.parametrize(
    ("type_", "value", "says"),
    [
        (units.Seconds, 60, "needs a unit, such as 60s or 60m"),
        (units.Seconds, 1.5, "needs a unit, such as 1.5s"),
        (units.Seconds, "60", "is not a duration"),
        (units.Seconds, "soon", "is not a duration"),
        (units.Seconds, "5 s later", "is not a duration"),
        (units.Seconds, "", "is not a duration"),
        (units.Seconds, "-5s", "cannot be negative"),
        (units.Seconds, True, "should be a duration"),
        (units.Seconds, None, "should be a duration"),
        (units.Seconds, ["1s"], "should be a duration"),
        (units.Seconds, float("inf"), "finite"),
        (units.Seconds, "9999d", "at most"),
        (units.PositiveSeconds, "0s", "more than 0"),
        (units.PositiveSeconds, 0, "more than 0"),
        (units.Rate, 5, "needs a unit, such as 5/s or 5/min"),
        (units.Rate, "0/s", "more than 0"),
        (units.Rate, "-1/s", "cannot be negative"),
        (units.Rate, "5/fortnight", "is not a rate"),
        (units.Bytes, 15, "such as 15Gi"),
        (units.Bytes, "15Gx", "is not a size"),
        (units.Bytes, "15ki", "is not a size"),
        (units.Ratio, 99.9, "99.9%"),
        (units.Ratio, "101%", "at most 1"),
        (units.Ratio, "0.5", "is not a ratio"),
    ],
)
def test_refusals_say_what_would_be_right(type_: Any, value: Any, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read(type_, value)
    assert says in str(caught.value)


def test_rates_sizes_and_ratios() -> None:
    assert read(units.Rate, "10/s") == 10
    assert read(units.Rate, "4/min") == read(units.Rate, "4/m") == 4 / 60
    assert read(units.Rate, "36 / h") == 0.01
    assert read(units.RateOrZero, "0/s") == 0
    assert read(units.Bytes, "15Gi") == read(units.Bytes, "15GiB") == 15 * 2**30
    assert read(units.Bytes, "1.5k") == 1500
    assert read(units.Bytes, "2GB") == 2 * 10**9
    assert read(units.Ratio, "99.9%") == 0.999
    assert read(units.Ratio, 0.25) == 0.25


def test_a_dump_needs_no_units() -> None:
    assert read(units.Seconds, 60.0, written=False) == 60.0
    assert read(units.Rate, 2, written=False) == 2.0
    assert read(units.Bytes, 1024, written=False) == 1024
    with pytest.raises(ValidationError):
        read(units.Seconds, -1.0, written=False)


@given(st.integers(0, 10**6), st.sampled_from(["ns", "us", "ms", "s", "m", "h"]))
def test_whole_numbers_of_a_unit_become_whole_nanoseconds(number: int, unit: str) -> None:
    ns = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}[unit]
    if number * ns <= units.LONGEST_S * 10**9:
        assert round(read(units.Seconds, f"{number}{unit}") * 1e9) == number * ns


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    for type_ in (units.Seconds, units.Rate, units.Bytes, units.Ratio):
        with contextlib.suppress(ValidationError):
            assert read(type_, text) >= 0

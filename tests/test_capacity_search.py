"""The search for the greatest rate that is sustained: which rate comes next, and for how long."""

from __future__ import annotations

from math import ceil, inf, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raybench.analysis.question import Objective
from raybench.analysis.sustained import (
    Bracket,
    bracket,
    enough_requests,
    first_rate,
    length,
    lowest_rate,
    next_rate,
)

P99, P95 = Objective("ttft", 2.0, 99), Objective("e2e", 60.0, 95)


def search(capacity: float, start: float, precision: float, least: float = 0.0) -> list[tuple[float, bool]]:
    """Every rate tried against a replica that sustains all rates up to `capacity` and none beyond."""
    tried: list[tuple[float, bool]] = []
    while (rate := next_rate(bracket(tried), start, precision, least)) is not None:
        assert len(tried) < 200
        tried.append((rate, rate <= capacity))
    return tried


@given(st.floats(1e-3, 1e5), st.floats(1e-3, 1e5), st.floats(0.01, 1.0))
def test_the_capacity_is_bracketed_as_narrowly_as_asked_for(
    capacity: float, start: float, precision: float
) -> None:
    tried = search(capacity, start, precision)
    found = bracket(tried)
    assert found.low is not None and found.high is not None
    assert found.low <= capacity < found.high
    assert found.high <= found.low * (1 + precision) * 1.0001
    assert len(tried) <= abs(log2(capacity / start)) + max(0.0, log2(1 / log2(1 + precision))) + 4
    rates = [rate for rate, _ in tried]
    assert len(set(rates)) == len(rates), "no rate is tried twice"


def test_up_by_doubling_and_then_the_geometric_middle() -> None:
    rates = [rate for rate, _ in search(capacity=10.0, start=1.0, precision=0.1)]
    assert rates[:5] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert rates[5] == pytest.approx((8 * 16) ** 0.5, rel=1e-3)


def test_down_by_halving_where_the_start_is_too_much() -> None:
    assert [rate for rate, _ in search(capacity=3.0, start=16.0, precision=1.0)] == [16.0, 8.0, 4.0, 2.0]


def test_hopeless_ends_at_the_lowest_rate() -> None:
    tried = search(capacity=0.0, start=4.0, precision=0.1, least=0.75)
    assert tried == [(4.0, False), (2.0, False), (1.0, False), (0.75, False)]
    assert bracket(tried) == Bracket(None, 0.75)
    assert bracket(tried).width == inf


def test_the_greatest_rate_ends_the_rise() -> None:
    assert next_rate(Bracket(6.0, None), 1.0, most=10.0) == 10.0
    assert next_rate(Bracket(10.0, None), 1.0, most=10.0) is None


@given(st.lists(st.tuples(st.floats(0.1, 100), st.booleans()), max_size=12))
def test_of_contradictions_the_lowest_failure_counts(tried: list[tuple[float, bool]]) -> None:
    found = bracket(tried)
    if found.high is not None:
        assert all(rate >= found.high for rate, sustained in tried if not sustained)
    if found.low is not None:
        assert (found.low, True) in tried
        assert found.high is None or found.low < found.high


@pytest.mark.parametrize(
    "wrong", [{"start": 0.0}, {"start": inf}, {"precision": 0.001}, {"least": 5.0, "most": 5.0}]
)
def test_what_cannot_be_searched_for_is_said(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="/s"):
        next_rate(Bracket(), **({"start": 1.0} | wrong))


# --- how long a probe is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objectives", "wanted"),
    [
        ([P95], 200),  # ten beyond p95: 10 / 0.05
        ([P95, P99], 1000),
        ([Objective("ttft", 1.0, 50)], 20),
        ([Objective("ttft", 1.0, 99.9)], 10_000),
        ([Objective("success_rate", 0.99)], 100),  # one failure is just allowed
        ([Objective("success_rate", 0.999), P95], 1000),
        ([Objective("success_rate", 1.0)], 20),  # no number of requests would do
        ([], 20),
    ],
)
def test_enough_requests_for_the_objectives(objectives: list[Objective], wanted: int) -> None:
    assert enough_requests(objectives) == wanted


def test_a_probe_lasts_for_its_requests_its_answers_and_ten_seconds() -> None:
    assert length(10.0, 200, alone_s=0.2, at_most_s=120.0).judged_s == 20.0  # 200 requests
    assert length(1000.0, 200, alone_s=0.2, at_most_s=120.0).judged_s == 10.0  # ten seconds
    assert length(100.0, 200, alone_s=4.0, at_most_s=120.0).judged_s == 40.0  # ten answers
    short = length(1.0, 200, alone_s=4.0, at_most_s=120.0)
    assert (short.judged_s, short.enough) == (120.0, False)
    assert length(2.0, 200, alone_s=4.0, at_most_s=120.0).enough


def test_the_warm_up_is_three_answers_or_a_fifth() -> None:
    assert length(10.0, 200, alone_s=0.2, at_most_s=120.0).warmup_s == 4.0
    takes = length(10.0, 200, alone_s=4.0, at_most_s=120.0)
    assert (takes.warmup_s, takes.total_s) == (12.0, 52.0)
    assert length(10.0, 200, alone_s=60.0, at_most_s=20.0).warmup_s == 20.0, (
        "never longer than what is judged"
    )


@given(st.floats(1e-3, 1e4), st.integers(20, 10_000), st.floats(1e-3, 1e3), st.floats(5, 600))
def test_a_probe_is_never_longer_than_twice_what_is_allowed(
    rate: float, wanted: int, alone_s: float, at_most_s: float
) -> None:
    takes = length(rate, wanted, alone_s, at_most_s)
    assert 0 < takes.warmup_s <= at_most_s and 0 < takes.judged_s <= at_most_s
    assert (
        takes.enough == (ceil(takes.judged_s * rate * (1 + 1e-6)) >= wanted)
        or abs(takes.judged_s * rate - wanted) < 1
    )


def test_where_to_begin_and_where_to_give_up() -> None:
    assert first_rate(2.0, slots=8) == 1.0  # 8 slots of 2 s each get at most 4/s done: a quarter
    assert first_rate(2.0, slots=1) == first_rate(2.0, slots=None) == 0.25
    assert lowest_rate(2.0, at_most_s=1000.0) == 0.025
    assert lowest_rate(2.0, at_most_s=20.0) == 0.5  # ten requests in 20 s

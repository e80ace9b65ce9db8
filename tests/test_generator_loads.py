"""Loads that are not an open loop: the capped client, the closed loop, and conversations in each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from servers.hostile import HostileServer
from slices import BODY, MS, drive, make_slice, null_server, schedule

from raybench.client.null_server import Answer
from raybench.schema import LoadKind, Outcome, Requests


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with null_server() as url:
        yield url


@pytest.fixture(scope="module")
def slow_url() -> Iterator[str]:
    """Answers 30 ms after the request."""
    with null_server(Answer(tokens=2, first_s=0.03)) as url:
        yield url


@pytest.fixture(scope="module")
def hostile() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


def at_once(rows: list[dict[str, Any]]) -> int:
    """The most requests that were in flight together, by their own instants."""
    steps = [(row[Requests.sent_ns], 1) for row in rows if row[Requests.sent_ns] is not None]
    steps += [(row[Requests.done_ns], -1) for row in rows if row[Requests.sent_ns] is not None]
    level = most = 0
    for _, step in sorted(steps):
        level += step
        most = max(most, level)
    return most


# --- capped client ----------------------------------------------------------------------------------


def test_a_capped_client_keeps_instants_and_lets_rows_wait(slow_url: str) -> None:
    planned = [i * MS for i in range(12)]
    _, memory = drive(
        make_slice(slow_url, schedule(planned), load_kind=LoadKind.CAPPED, max_in_flight=3), lead_ms=400
    )
    rows = memory.rows()
    assert at_once(rows) == 3
    assert [row[Requests.anchor_ns] for row in rows] == planned
    lateness = [row[Requests.sent_ns] - row[Requests.anchor_ns] for row in rows]
    assert lateness[11] >= 3 * 30 * MS - 11 * MS  # three rounds of 30 ms before it


def test_rows_still_waiting_when_the_load_ends_are_not_sent(hostile: HostileServer) -> None:
    table = schedule([i * MS for i in range(10)])
    url = hostile.url("never_answers")
    progress, memory = drive(
        make_slice(
            url, table, load_kind=LoadKind.CAPPED, max_in_flight=2, load_end_ns=1000 * MS, timeout_s=1.6
        ),
        lead_ms=400,
    )
    assert progress.outcomes == {Outcome.TIMEOUT: 2, Outcome.NOT_SENT: 8}
    for row in memory.rows()[2:]:
        assert row[Requests.outcome] == Outcome.NOT_SENT
        assert row[Requests.error] == "still waiting when the load ended"
        assert row[Requests.sent_ns] is None and row[Requests.done_ns] is None
        assert row[Requests.anchor_ns] == row[Requests.request_id] * MS


# --- closed loop ------------------------------------------------------------------------------------


def test_a_closed_loop_keeps_its_callers_busy(slow_url: str) -> None:
    table = schedule(None, rows=20)
    progress, memory = drive(make_slice(slow_url, table, load_kind=LoadKind.CLOSED, concurrency=4))
    rows = memory.rows()
    assert at_once(rows) == 4 and progress.outcomes == {Outcome.OK: 20}
    assert all(row[Requests.anchor_ns] is None for row in rows)
    assert progress.lateness_p99_ns is None


def test_think_time_passes_before_the_next_row(url: str) -> None:
    table = schedule(None, rows=4, think_ns=[20 * MS] * 4)
    _, memory = drive(make_slice(url, table, load_kind=LoadKind.CLOSED, concurrency=1))
    rows = memory.rows()
    for before, after in pairwise(rows):
        assert after[Requests.sent_ns] - before[Requests.done_ns] >= 19 * MS


def test_a_closed_loop_ends_with_its_load(slow_url: str) -> None:
    table = schedule(None, rows=10_000)
    progress, memory = drive(
        make_slice(slow_url, table, load_kind=LoadKind.CLOSED, concurrency=2, load_end_ns=300 * MS),
        lead_ms=400,
    )
    assert progress.accounted == 10_000 and len(memory.rows()) == 10_000
    sent = [row for row in memory.rows() if row[Requests.outcome] != Outcome.NOT_SENT]
    assert all(row[Requests.sent_ns] < 310 * MS for row in sent) and len(sent) < 50
    assert progress.in_flight == 0


def test_fewer_rows_than_callers(url: str) -> None:
    progress, _ = drive(make_slice(url, schedule(None, rows=2), load_kind=LoadKind.CLOSED, concurrency=9))
    assert progress.outcomes == {Outcome.OK: 2}


# --- conversations ----------------------------------------------------------------------------------


def talks(count: int, turns: int, think_ms: int, apart_ms: int | None, **columns: Any) -> pa.Table:
    """`count` conversations of `turns` rows each; only first turns have instants."""
    rows = [(c, t) for c in range(count) for t in range(turns)]
    planned = [None if t or apart_ms is None else c * apart_ms * MS for c, t in rows]
    return schedule(
        planned,
        conversation=[c for c, _ in rows],
        turn=[t for _, t in rows],
        think_ns=[think_ms * MS if t else None for _, t in rows],
        **columns,
    )


@pytest.mark.parametrize("distinct", [1, 2000])
def test_a_later_turn_goes_a_think_time_after_the_answer_before_it(slow_url: str, distinct: int) -> None:
    table = talks(3, 4, 20, 10, prompt_id=[i % distinct for i in range(12)])
    progress, memory = drive(make_slice(slow_url, table))
    rows = memory.rows()
    assert progress.outcomes == {Outcome.OK: 12}
    for before, row in pairwise(rows):
        if row[Requests.request_id] % 4:
            assert row[Requests.anchor_ns] == before[Requests.done_ns] + 20 * MS
        else:
            assert row[Requests.anchor_ns] == row[Requests.request_id] // 4 * 10 * MS
        assert row[Requests.sent_ns] >= row[Requests.anchor_ns]
    assert at_once(rows) >= 2  # conversations do not wait for each other


def test_many_bodies_of_conversations(url: str) -> None:
    seen = []

    def bodies(prompt: int, limit: int | None) -> bytes:
        seen.append(prompt)
        return BODY

    table = talks(700, 2, 0, 0, prompt_id=range(1400))
    progress, _ = drive(make_slice(url, table, bodies=bodies))
    assert progress.outcomes == {Outcome.OK: 1400}
    assert sorted(seen) == list(range(1400))


def test_a_conversation_goes_on_after_a_failed_turn(hostile: HostileServer) -> None:
    progress, memory = drive(make_slice(hostile.url("status_500"), talks(2, 3, 0, 5)))
    assert progress.outcomes == {Outcome.HTTP_ERROR: 6}
    assert [row[Requests.sent_ns] for row in memory.rows()[:3]] == sorted(
        row[Requests.sent_ns] for row in memory.rows()[:3]
    )


def test_a_closed_loop_caller_keeps_its_conversation(slow_url: str) -> None:
    slice = make_slice(slow_url, talks(4, 3, 5, None), load_kind=LoadKind.CLOSED, concurrency=2)
    progress, memory = drive(slice)
    rows = memory.rows()
    assert progress.outcomes == {Outcome.OK: 12} and at_once(rows) <= 2
    for before, row in pairwise(rows):
        if row[Requests.request_id] % 3:
            assert row[Requests.sent_ns] >= before[Requests.done_ns] + 4 * MS
        assert row[Requests.anchor_ns] is None


def test_a_capped_client_counts_turns_like_any_request(slow_url: str) -> None:
    slice = make_slice(slow_url, talks(6, 2, 0, 1), load_kind=LoadKind.CAPPED, max_in_flight=2)
    progress, memory = drive(slice)
    assert progress.outcomes == {Outcome.OK: 12} and at_once(memory.rows()) == 2


def test_turns_of_an_interrupted_conversation_are_not_sent(hostile: HostileServer) -> None:
    table = talks(2, 5, 0, 1)
    slice = make_slice(
        hostile.url("never_answers"), table, load_kind=LoadKind.CAPPED, max_in_flight=9,
        load_end_ns=1000 * MS, timeout_s=1.6,
    )  # fmt: skip
    progress, memory = drive(slice, lead_ms=400)
    assert progress.outcomes == {Outcome.TIMEOUT: 2, Outcome.NOT_SENT: 8}
    assert all(row[Requests.anchor_ns] is None for row in memory.rows() if row[Requests.sent_ns] is None)


def test_turns_without_the_one_before_them_are_not_sent(url: str) -> None:
    """A generator that takes over from a dead one may be given the rest of a conversation."""
    progress, memory = drive(make_slice(url, talks(2, 3, 0, 1).slice(1)))
    assert progress.outcomes == {Outcome.OK: 3, Outcome.NOT_SENT: 2}
    assert [row[Requests.outcome] for row in memory.rows()][:2] == [Outcome.NOT_SENT] * 2

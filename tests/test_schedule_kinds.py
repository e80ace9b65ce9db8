"""Capped clients, closed loops and conversations: what their schedules hold and what they leave open."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench import schedule
from raybench.scenario import Scenario
from raybench.schema import LoadKind, Schedule

S = 1_000_000_000


def scenario(load: dict[str, Any], request: dict[str, Any] | None = None, seed: int = 1) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "t",
            "seed": seed,
            "target": {"url": "http://127.0.0.1:1", "model": "m"},
            "load": {"request": request or {"prompt": "p"}, **load},
        }
    )


POISSON = {"stages": [{"duration": 60.0, "arrival": {"process": "poisson", "rate": 2.0}}]}
TALK = {
    "input_tokens": {"distribution": "uniform", "min": 5, "max": 50},
    "max_tokens": 20,
    "conversation": {
        "turns": {"distribution": "uniform", "min": 1, "max": 4},
        "think_time": {"distribution": "exponential", "mean": 2.0},
    },
}


def test_a_capped_client_has_the_open_loop_s_schedule() -> None:
    capped = scenario(POISSON | {"max_in_flight": 4})
    assert schedule.load_kind(capped) is LoadKind.CAPPED
    assert schedule.load_kind(scenario(POISSON)) is LoadKind.OPEN
    assert schedule.digest(schedule.build(capped)) == schedule.digest(schedule.build(scenario(POISSON)))


def test_a_closed_loop_has_an_order_and_no_instants() -> None:
    closed = scenario({"concurrency": 4, "think_time": 1.5, "stages": [{"duration": 60.0, "requests": 30}]})
    table = schedule.build(closed)
    assert schedule.load_kind(closed) is LoadKind.CLOSED
    assert table[Schedule.scheduled_ns].null_count == table.num_rows == 30
    assert set(table[Schedule.think_ns].to_pylist()) == {3 * S // 2}
    assert schedule.planned_ns(table).tolist() == [0] * 30


def test_no_think_time_is_null() -> None:
    closed = scenario({"concurrency": 4, "stages": [{"duration": 60.0, "requests": 30}]})
    assert schedule.build(closed)[Schedule.think_ns].null_count == 30


def test_conversations() -> None:
    table = schedule.build(scenario(POISSON, TALK))
    rows = table.to_pylist()
    arrivals = len(schedule.build(scenario(POISSON)))
    firsts = [row for row in rows if row[Schedule.turn] == 0]
    assert [row[Schedule.conversation] for row in firsts] == list(range(arrivals))
    assert [row[Schedule.scheduled_ns] for row in firsts] == schedule.build(scenario(POISSON))[
        Schedule.scheduled_ns
    ].to_pylist()
    for before, row in itertools.pairwise(rows):
        if row[Schedule.turn]:
            assert row[Schedule.turn] == before[Schedule.turn] + 1
            assert row[Schedule.conversation] == before[Schedule.conversation]
            assert row[Schedule.scheduled_ns] is None
            assert row[Schedule.think_ns] > 0
            # What was said before, its answer, and something new.
            assert row[Schedule.prompt_tokens] >= before[Schedule.prompt_tokens] + 20 + 5
        else:
            assert row[Schedule.think_ns] is None
    turns = np.bincount(table[Schedule.conversation].to_numpy())
    assert set(turns) == {1, 2, 3, 4}
    think = table[Schedule.think_ns].drop_null().to_numpy() / S
    assert think.mean() == pytest.approx(2, rel=0.25)


def test_later_turns_are_planned_where_their_conversation_is() -> None:
    table = schedule.build(scenario(POISSON, TALK))
    planned = schedule.planned_ns(table)
    assert (np.diff(planned) >= 0).all()
    known = table[Schedule.scheduled_ns].is_valid().to_numpy()
    np.testing.assert_array_equal(planned[known], table[Schedule.scheduled_ns].drop_null().to_numpy())
    conversation = table[Schedule.conversation].to_numpy()
    for one in range(conversation.max() + 1):
        assert len(set(planned[conversation == one])) == 1


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(0, 5))
def test_a_conversation_goes_whole_to_one_generator(generators: int, seed: int) -> None:
    table = schedule.build(scenario(POISSON, TALK, seed))
    parts = [schedule.part(table, g, generators) for g in range(generators)]
    owners: dict[int, set[int]] = {}
    for g, one in enumerate(parts):
        assert one[Schedule.request_id].to_pylist() == sorted(one[Schedule.request_id].to_pylist())
        for conversation in one[Schedule.conversation].to_pylist():
            owners.setdefault(conversation, set()).add(g)
    assert owners == {c: {c % generators} for c in owners}
    union = pa.concat_tables(parts).sort_by(Schedule.request_id)
    assert schedule.digest(union) == schedule.digest(table)


def test_conversations_in_a_closed_loop() -> None:
    closed = scenario(
        {"concurrency": 4, "think_time": 1.5, "stages": [{"duration": 60.0, "requests": 30}]}, TALK
    )
    table = schedule.build(closed)
    assert table[Schedule.scheduled_ns].null_count == table.num_rows
    assert table[Schedule.conversation].to_numpy().max() == 29
    first = table[Schedule.turn].to_numpy() == 0
    think = table[Schedule.think_ns].to_numpy()
    assert set(think[first]) == {3 * S // 2}
    assert (think[~first] != 3 * S // 2).all()


def test_too_many_turns_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["raybench.schedule.build"], "MOST_PLANNED", 100)
    with pytest.raises(ValueError, match="with all turns") as caught:
        schedule.build(scenario(POISSON, TALK))
    assert type(caught.value).__name__ == "ScenarioError"


@given(st.integers(1, 500), st.integers(1, 64))
def test_shares_add_up(total: int, generators: int) -> None:
    shares = [schedule.share(total, g, generators) for g in range(generators)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert min(shares) > 0 or generators > total

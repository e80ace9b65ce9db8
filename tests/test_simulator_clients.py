"""The kinds of load in virtual time: as the generator sends them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import simulations

from raybench.analysis import Question, summarise
from raybench.schema import Generators, LoadKind, Outcome, Requests, Timeline

SECOND = {
    "step_base": 0.1,
    "step_per_sequence": 0.0,
    "prefill_tokens_per_s": 1e9,
    "output_tokens": {"distribution": "fixed", "mean": 10},
}


def ns(values: list[dict[str, Any]], name: str) -> list[float]:
    return [None if r[name] is None else round(r[name] / 1e9, 3) for r in values]  # type: ignore[misc]


def test_a_capped_client_waits_for_a_place_and_its_lateness_grows() -> None:
    """Two places, answers of 1 s on many slots, four requests a second: rows 2k and 2k + 1 go at k s."""
    run = simulations.run(
        arrival={"process": "constant", "rate": 4.0},
        duration=3.0,
        slots=8,
        emulated=SECOND,
        load={"max_in_flight": 2},
    )
    rows = simulations.rows(run)
    assert run.manifest.load_kind is LoadKind.CAPPED
    assert ns(rows, Requests.anchor_ns) == [i / 4 for i in range(12)]
    sent = [0.0, 0.25, 1.0, 1.25, 2.0, 2.25]
    assert [t for t in ns(rows, Requests.sent_ns) if t is not None][:2] == sent[:2]
    given = [t for t in ns(rows, Requests.sent_ns) if t is not None]
    assert all(abs(a - b) < 0.11 * (1 + i) for i, (a, b) in enumerate(zip(given, sent, strict=False)))
    unsent = [r for r in rows if r[Requests.outcome] == Outcome.NOT_SENT]
    assert len(unsent) == 12 - len(given) >= 5
    assert all(r[Requests.sent_ns] is None and r[Requests.error] for r in unsent)
    in_flight = simulations.column(run, Timeline.in_flight, Timeline)
    assert in_flight.max() <= 2
    late = simulations.column(run, Generators.lateness_max_ns, Generators)
    assert np.nanmax(late) == max(
        r[Requests.sent_ns] - r[Requests.anchor_ns] for r in rows if r[Requests.sent_ns] is not None
    )


def test_a_closed_loop_goes_on_after_think_time() -> None:
    """Two callers; 1 s an answer, 0.25 s on the way there and back, 0.5 s to think: every 2 s."""
    run = simulations.run(
        stages=[{"duration": 60.0, "requests": 12}],
        slots=8,
        emulated=SECOND,
        load={"concurrency": 2, "think_time": 0.5},
        serve={"network": 0.25},
    )
    rows = simulations.rows(run)
    assert run.manifest.load_kind is LoadKind.CLOSED
    assert all(r[Requests.anchor_ns] is None for r in rows)
    sent = ns(rows, Requests.sent_ns)
    assert sent == [2.0 * (i // 2) for i in range(12)]
    assert run.manifest.load_total_s == pytest.approx(11.5, abs=1e-6)
    assert summarise(run, Question()).verdict.valid


def test_a_closed_loop_ends_with_its_duration() -> None:
    run = simulations.run(
        stages=[{"duration": 4.5, "requests": 100}], slots=8, emulated=SECOND, load={"concurrency": 2}
    )
    outcomes = [r[Requests.outcome] for r in simulations.rows(run)]
    assert outcomes == [Outcome.OK] * 10 + [Outcome.NOT_SENT] * 90


def test_turns_of_a_conversation_follow_the_answer_before_them() -> None:
    run = simulations.run(
        arrival={"process": "constant", "interval": 2.0},
        duration=4.0,
        slots=8,
        emulated=SECOND,
        request={"conversation": {"turns": 3, "think_time": 0.75}},
    )
    rows = simulations.rows(run)
    assert len(rows) == 6
    for i in (0, 3):
        first, second, third = rows[i : i + 3]
        assert first[Requests.anchor_ns] == (2e9 if i else 0)
        assert second[Requests.anchor_ns] == first[Requests.done_ns] + 0.75e9
        assert third[Requests.anchor_ns] == second[Requests.done_ns] + 0.75e9
        assert all(r[Requests.sent_ns] == r[Requests.anchor_ns] for r in (first, second, third))
    # Later turns repeat what was said, so their prompts are longer.
    assert rows[0][Requests.prompt_tokens] < rows[2][Requests.prompt_tokens]


def test_a_capped_clients_turns_wait_for_a_place_too() -> None:
    run = simulations.run(
        arrival={"process": "constant", "interval": 0.5},
        duration=20.0,
        slots=8,
        emulated=SECOND,
        request={"conversation": {"turns": 2, "think_time": 0.1}},
        load={"max_in_flight": 1},
    )
    rows = [r for r in simulations.rows(run) if r[Requests.sent_ns] is not None]
    order = sorted(rows, key=lambda r: r[Requests.sent_ns])
    for before, after in pairwise(order):
        assert after[Requests.sent_ns] >= before[Requests.done_ns]


def test_phases_are_those_of_the_plan() -> None:
    run = simulations.run(duration=20.0, load={"warmup": 5.0, "cooldown": 4.0})
    phases = [r[Requests.phase] for r in simulations.rows(run)]
    assert phases == ["warmup"] * 5 + ["steady"] * 11 + ["cooldown"] * 4

"""Gateway, router, faults, timeouts and draining, each in a story small enough to work out by hand.

One slot, a step of 0.1 s and 100 tokens: an answer takes 10 s, and prefill nothing to speak of.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import simulations

from raybench.schema import Outcome, Requests, Timeline

TEN_SECONDS = {
    "step_base": 0.1,
    "step_per_sequence": 0.0,
    "prefill_tokens_per_s": 1e9,
    "startup": 5.0,
    "output_tokens": {"distribution": "fixed", "mean": 100},
}


def story(count: int = 3, interval: float = 1.0, **keys: Any) -> list[dict[str, Any]]:
    """`count` requests, `interval` seconds apart from 0 on, at one slot."""
    keys = {"slots": 1, "emulated": TEN_SECONDS, **keys}
    arrival = {"process": "constant", "interval": interval}
    return simulations.rows(simulations.run(arrival=arrival, duration=count * interval, **keys))


def done_s(rows: list[dict[str, Any]]) -> list[float]:
    return [round(r[Requests.done_ns] / 1e9, 3) for r in rows]


def test_one_after_another_at_one_slot() -> None:
    assert done_s(story()) == [10.0, 20.0, 30.0]


def test_two_replicas_take_turns() -> None:
    rows = story(4, autoscaling={"min_replicas": 2, "max_replicas": 2})
    assert done_s(rows) == [10.0, 11.0, 20.0, 21.0]
    assert {r[Requests.replica] for r in rows} == {"replica-1", "replica-2"}


def test_a_timeout_frees_the_slot_and_the_queue() -> None:
    """Timeout 12 s: the second has 2 s of its answer by then, the third begins at 13 s."""
    rows = story(request={"timeout": 12.0})
    assert [r[Requests.outcome] for r in rows] == [Outcome.OK, Outcome.TIMEOUT, Outcome.TIMEOUT]
    assert done_s(rows) == [10.0, 13.0, 14.0]
    assert rows[1][Requests.chunks] in (29, 30)  # from 10 s on, and one each 0.1 s
    assert rows[1][Requests.http_status] == 200 and rows[1][Requests.output_tokens] is None
    # At the end of the step under way, at most 0.1 s after 13 s, the third is admitted.
    assert 13.0 <= rows[2][Requests.headers_ns] / 1e9 <= 13.1
    assert rows[2][Requests.chunks] in (8, 9, 10)


def test_a_timeout_in_the_queue_has_no_status() -> None:
    run = simulations.run(
        arrival={"process": "bursts", "size": 3, "every": 10.0},
        duration=10.0,
        slots=1,
        emulated=TEN_SECONDS,
        request={"timeout": 6.0},
    )
    last = simulations.rows(run)[-1]
    assert last[Requests.outcome] == Outcome.TIMEOUT
    assert last[Requests.http_status] is None and last[Requests.replica] is None
    assert last[Requests.done_ns] == 6e9


def test_the_gateway_cuts_what_takes_too_long_and_the_slot_is_free() -> None:
    rows = story(request={"stream": False}, gateway={"cut_off": 12.0})
    assert [r[Requests.http_status] for r in rows] == [200, 504, 504]
    assert [r[Requests.outcome] for r in rows] == [Outcome.OK, Outcome.HTTP_ERROR, Outcome.HTTP_ERROR]
    assert done_s(rows) == [10.0, 13.0, 14.0]


def test_a_cut_request_may_keep_its_slot() -> None:
    rows = story(4, request={"stream": False}, gateway={"cut_off": 12.0, "cut_keeps_slot": True})
    assert done_s(rows) == [10.0, 13.0, 14.0, 15.0]
    # The second holds the slot from 10 s to 20 s, so the others never had it.
    short = story(4, request={"stream": False}, gateway={"cut_off": 19.5, "cut_keeps_slot": True})
    assert [r[Requests.outcome] for r in short] == [Outcome.OK, Outcome.OK, *[Outcome.HTTP_ERROR] * 2]


def test_the_gateway_breaks_a_stream_that_has_begun() -> None:
    second = story(gateway={"cut_off": 12.0})[1]
    assert (second[Requests.outcome], second[Requests.http_status]) == (Outcome.STREAM_CUT, 200)
    assert second[Requests.chunks] > 0


def test_nothing_is_available_and_the_gateway_refuses() -> None:
    """From zero: the first is refused and brings up a replica, 5 s and a few ticks later."""
    rows = story(
        10,
        autoscaling={"min_replicas": 0, "max_replicas": 1},
        gateway={"refuse_when": "unavailable", "refuse_latency": 0.25},
        emulated={**TEN_SECONDS, "output_tokens": {"mean": 1}},
    )
    refused = [r for r in rows if r[Requests.http_status] == 503]
    assert [r[Requests.request_id] for r in refused] == [0, 1, 2, 3, 4, 5]
    assert all(r[Requests.done_ns] - r[Requests.sent_ns] == 0.25e9 for r in refused)
    assert {r[Requests.outcome] for r in rows[6:]} == {Outcome.OK}


def test_the_gateway_refuses_beyond_so_many_waiting() -> None:
    rows = story(5, interval=0.5, gateway={"queue_limit": 2, "refuse_latency": 0.1})
    assert [r[Requests.http_status] for r in rows] == [200, 200, 200, 503, 503]


def test_the_router_refuses_beyond_its_limit() -> None:
    rows = story(5, interval=0.5, deployment={"max_queued_requests": 1})
    assert [r[Requests.http_status] for r in rows] == [200, 200, 503, 503, 503]
    assert "full" in rows[-1][Requests.error]


def test_a_drain_cuts_what_is_not_done_in_time() -> None:
    """Towards the end of a rush a busy replica is one too many; what it serves has the drain and no more."""
    keys: dict[str, Any] = {
        "autoscaling": {
            "min_replicas": 1,
            "max_replicas": 2,
            "autoscaling_window": 3.0,
            "scale_up_queue_depth": 5.0,
            "scale_down_queue_depth": 1.0,
        }
    }
    rush = [
        {"duration": 1.0, "arrival": {"process": "bursts", "size": 14, "every": 1.0}},
        {"duration": 60.0, "arrival": {"process": "constant", "interval": 60.0}},
    ]
    cut = simulations.run(stages=rush, slots=2, emulated=TEN_SECONDS, deployment={"drain": 1.0}, **keys)
    whole = simulations.run(stages=rush, slots=2, emulated=TEN_SECONDS, deployment={"drain": 60.0}, **keys)
    assert Counter(r[Requests.outcome] for r in simulations.rows(whole)) == {Outcome.OK: 15}
    rows = simulations.rows(cut)
    torn = [r for r in rows if r[Requests.outcome] == Outcome.STREAM_CUT]
    assert torn and len(torn) + sum(r[Requests.outcome] == Outcome.OK for r in rows) == 15
    stopping = [t for t, kind, _, d in simulations.events(cut) if d.get("state") == "stopping"]
    for r in torn:
        assert "drain" in r[Requests.error] and 0 < r[Requests.chunks] < 100
        assert min(abs(r[Requests.done_ns] / 1e9 - t - 1.0) for t in stopping) < 1e-6


def test_the_network_is_added_on_both_ways() -> None:
    near, far = (story(1, serve={"network": n})[0] for n in (0.0, 0.2))
    assert far[Requests.done_ns] - near[Requests.done_ns] == 0.4e9
    assert far[Requests.first_token_ns] - near[Requests.first_token_ns] == 0.4e9
    assert far[Requests.sent_ns] == near[Requests.sent_ns]


def test_faults_come_as_often_as_they_are_asked_for_and_as_they_look_live() -> None:
    shares = {
        "error_500": 0.1,
        "cut_stream": 0.15,
        "error_event": 0.2,
        "never_answer": 0.05,
        "refuse_429": 0.1,
    }
    run = simulations.run(
        arrival={"process": "constant", "rate": 20.0},
        duration=100.0,
        slots=200,
        emulated={"faults": shares},
        request={"timeout": 9.0},
    )
    rows = simulations.rows(run)
    found = Counter((r[Requests.outcome], r[Requests.http_status]) for r in rows)
    expected = {
        (Outcome.OK, 200): 0.4,
        (Outcome.HTTP_ERROR, 500): 0.1,
        (Outcome.HTTP_ERROR, 429): 0.1,
        (Outcome.STREAM_CUT, 200): 0.35,
        (Outcome.TIMEOUT, 200): 0.05,
    }
    assert set(found) == set(expected)
    for key, share in expected.items():
        error = 4 * np.sqrt(share * (1 - share) / len(rows))
        assert abs(found[key] / len(rows) - share) < error, key
    for r in rows:
        if r[Requests.outcome] == Outcome.STREAM_CUT:
            assert r[Requests.chunks] == 20  # half of 40
        if r[Requests.outcome] == Outcome.TIMEOUT:
            assert r[Requests.chunks] == 0 and r[Requests.first_token_ns] is None


@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_that_leaves_no_room_is_refused(stream: bool) -> None:
    rows = story(1, request={"max_tokens": 5000, "stream": stream})
    assert (rows[0][Requests.outcome], rows[0][Requests.http_status]) == (Outcome.HTTP_ERROR, 400)


def test_a_whole_answer_has_neither_chunks_nor_a_first_token() -> None:
    row = story(1, request={"stream": False})[0]
    assert row[Requests.chunks] == 0 and row[Requests.first_token_ns] is None
    assert row[Requests.headers_ns] == row[Requests.done_ns] and row[Requests.output_tokens] == 100


def test_back_off_leaves_a_free_slot_idle_for_a_while() -> None:
    """Two pollers at most for the second that waits: the gap is below the back-off, and rarely nothing."""
    rows = story(30, deployment={"router": {"initial_backoff": 0.5, "max_backoff": 0.5}})
    gaps = np.diff(done_s(rows)) - 10.0
    assert gaps.min() > 0 and gaps.max() < 0.5
    # The least of two uniform draws is a third of the interval on average; the last waits alone.
    assert gaps.mean() == pytest.approx(0.5 / 3, rel=0.35)


class Broken:
    """A policy of somebody's own."""

    name = "broken"

    def decide(self, seen: Any) -> Any:
        raise ZeroDivisionError("replicas")


def test_a_policy_that_fails_is_named_with_the_time() -> None:
    with pytest.raises(ValueError, match=r"^the policy failed at 0\.\d+ s: ZeroDivisionError: replicas$"):
        simulations.run(autoscaling={"policy": f"{__name__}:Broken", "max_replicas": 2})


def test_what_waits_inside_the_engine_counts_where_the_engine_is_asked() -> None:
    """A cache for one request at a time: the router sees nobody waiting, the engine knows better."""
    keys: dict[str, Any] = {
        "arrival": {"process": "bursts", "size": 6, "every": 60.0},
        "slots": 8,
        "emulated": {**TEN_SECONDS, "kv_cache_tokens": 130},
        "request": {"prompt": "x" * 360},  # 94 tokens
    }
    for source, waiting, serving in (("serve", 0.0, 6.0), ("engine", 5.0, 1.0)):
        run = simulations.run(**keys, autoscaling={"max_replicas": 1, "depth_source": source})
        found = simulations.rows(run, Timeline)[2]
        assert (found[Timeline.waiting], found[Timeline.serving]) == (waiting, serving)

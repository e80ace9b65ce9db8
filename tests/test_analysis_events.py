"""Scaling events taken apart, from stories whose every instant is known."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.analysis import Objective, Question, summarise
from raybench.analysis.answers import Course, Waiting
from raybench.analysis.figures import Chain, Link, Scaling
from raybench.rundir import open_run
from raybench.schema import EventKind, LoadKind, Requests, Schedule, Timeline

E = EventKind


def decision(
    t_s: float, before: int, after: int, policy: str = "queue_depth", **detail: Any
) -> dict[str, Any]:
    said = {"from": before, "to": after, "reason": "because", "window_s": 5.0, **detail}
    return runs.event(t_s, E.DECISION, policy, **said)


def from_zero(t_s: float) -> dict[str, Any]:
    return runs.event(t_s, E.TARGET_CHANGED, "llm", **{"from": 0, "to": 1, "reason": "from_zero"})


def state(t_s: float, replica: str, state: str) -> dict[str, Any]:
    return runs.event(t_s, E.REPLICA_STATE, replica, state=state)


def sample(t_s: float, depth: float | None, available: int = 1, nodes: int | None = 1) -> dict[str, Any]:
    total = (depth or 0.0) * available
    return {
        Timeline.t_ns: runs.ns(t_s),
        Timeline.queue_depth: depth,
        Timeline.waiting: max(0.0, total - 1),
        Timeline.serving: min(1.0, total),
        Timeline.replicas_available: available,
        Timeline.nodes: nodes,
    }


def plan(*stages: tuple[float, float, float]) -> list[dict[str, Any]]:
    """(start, duration, per second) of constant stages, as rows of the schedule."""
    rows: list[dict[str, Any]] = []
    for number, (start, duration, rate) in enumerate(stages):
        for i in range(round(duration * rate)):
            at = {Schedule.scheduled_ns: runs.ns(start + i / rate), Schedule.stage: number}
            rows.append({Schedule.request_id: len(rows), **at})
    return rows


SCENARIO = {
    "deployment": {
        "autoscaling": {"scale_up_queue_depth": 5.0, "scale_down_queue_depth": 1.0, "autoscaling_window": 5.0}
    },
    "load": {"stages": [{"duration": d, "arrival": {"process": "constant"}} for d in (10.0, 20.0, 10.0)]},
    "objectives": {"ttft_p90": 1.0},
}
PLAN = plan((0, 10, 1), (10, 20, 4), (30, 10, 1))


def rush() -> dict[str, Any]:
    """From 10 s on four a second. Depth 5 from 12 s, so at 17 s a second replica, 17.5 starting, 20 running,
    with a node more from 18.5 s on; its first answer is at 20.4 s. Every answer before 25 s is 2 s late, none
    after. From 30 s on one a second; depth 1 from 33 s, so at 38 s one fewer, gone at 41 s.
    """
    depths = [1.0] * 11 + [3.0] + [6.0] * 16 + [3.0] * 5 + [0.5] * 12
    nodes = [1] * 19 + [2] * 26
    replicas = [1] * 20 + [2] * 18 + [1] * 7
    felt = [12 + 0.5 * i for i in range(40)]
    late = [2.0 if t < 25 else 0.5 for t in felt]
    requests = [
        runs.ok(i, anchor_s=t - by, first_s=t, done_s=t + 0.1, replica="a")
        for i, (t, by) in enumerate(zip(felt, late, strict=True))
    ]
    requests.append(runs.ok(40, anchor_s=18.4, first_s=20.4, done_s=20.5, replica="b"))
    return {
        "requests": requests,
        "schedule": PLAN,
        "scenario": SCENARIO,
        "timeline": [
            sample(t, d, r, n) for t, (d, r, n) in enumerate(zip(depths, replicas, nodes, strict=True))
        ],
        "events": [
            state(-1.0, "a", "running"),
            decision(17.0, 1, 2, queue_depth=6.0),
            state(17.5, "b", "starting"),
            state(20.0, "b", "running"),
            decision(38.0, 2, 1, queue_depth=0.5),
            state(38.5, "b", "stopping"),
            state(41.0, "b", "stopped"),
            runs.event(45.0, E.RUN_ENDED),
        ],
    }


def scaling(path: Path, story: dict[str, Any], question: Question | None = None) -> Scaling:
    values = dict(story)
    requests = values.pop("requests", [])
    values.setdefault("schedule", PLAN)
    values.setdefault("scenario", SCENARIO)
    found = summarise(open_run(runs.write(path, requests, **values)), question or Question()).scaling
    assert found is not None
    return found


def chains(path: Path, story: dict[str, Any], question: Question | None = None) -> tuple[Chain, ...]:
    return scaling(path, story, question).chains


def at(chain: Chain) -> dict[str, float | None]:
    return {link.name: link.at_s for link in chain.links}


def link(chain: Chain, name: str) -> Link:
    return next(x for x in chain.links if x.name == name)


def adds_up(chain: Chain) -> bool:
    known = [x.at_s for x in chain.links if x.at_s is not None]
    took = sum(x.took_s for x in chain.links if x.took_s is not None)
    return known == sorted(known) and took == pytest.approx(known[-1] - known[0]) == chain.total_s


def test_every_link_of_a_rush(tmp_path: Path) -> None:
    up, down = chains(tmp_path / "r", rush())
    assert up.up and not down.up
    assert at(up) == {
        "load changed": 10.0,
        "threshold crossed": 12.0,
        "window elapsed": 17.0,
        "decision": 17.0,
        "replica starting": 17.5,
        "node joined": 19.0,  # the first sample that counts it
        "ready": 20.0,
        "first token": 20.4,
        "objective met": 25.0,
    }
    assert [x.took_s for x in up.links] == pytest.approx([None, 2.0, 5.0, 0.0, 0.5, 1.5, 1.0, 0.4, 4.6])
    assert link(up, "threshold crossed").not_before_s == 11.0
    assert link(up, "node joined").not_before_s == 18.0
    assert "1/s → 4/s" in link(up, "load changed").note
    assert up.replicas == down.replicas == ("b",)
    assert up.total_s == pytest.approx(15.0)
    assert at(down) == {
        "load changed": 30.0,
        "threshold crossed": 33.0,
        "window elapsed": 38.0,
        "decision": 38.0,
        "replica stopping": 38.5,
        "stopped": 41.0,
    }
    assert adds_up(up) and adds_up(down)


def test_who_waited_while_the_second_replica_started(tmp_path: Path) -> None:
    """17 s to 20 s: answers at 17.5, 18 … 21.5 s wait from 2 s before on; the one on b from 18.4 s."""
    up, _ = chains(tmp_path / "r", rush())
    firsts = [17.5 + 0.5 * i for i in range(9)]
    want = [min(t, 20.0) - max(t - 2.0, 17.0) for t in firsts] + [20.0 - 18.4]
    want = [w for w in want if w > 0]
    assert up.waited is not None and up.cold is not None
    assert up.waited.requests == len(want)
    assert up.waited.total_s == pytest.approx(sum(want))
    assert up.waited.max_s == pytest.approx(max(want))
    assert up.cold.requests == 0  # the first replica was there all the time


def test_a_cold_start_is_charged_to_who_waited_for_it(tmp_path: Path) -> None:
    story = {
        "requests": [
            runs.ok(0, anchor_s=0.5, first_s=4.2, done_s=5, replica="a"),
            runs.ok(1, anchor_s=2.0, first_s=4.3, done_s=5, replica="a"),
            runs.ok(2, anchor_s=5.0, first_s=5.1, done_s=6, replica="a"),
        ],
        "events": [
            from_zero(1.0),
            state(1.2, "a", "starting"),
            state(4.0, "a", "running"),
            runs.event(9, E.RUN_ENDED),
        ],
    }
    (up,) = chains(tmp_path / "r", story)
    assert at(up)["load changed"] == 0.0
    assert at(up)["threshold crossed"] == 0.5  # the request that found nothing
    assert (at(up)["window elapsed"], at(up)["decision"]) == (None, 1.0)
    assert "did not ask the policy" in link(up, "window elapsed").note
    assert (at(up)["ready"], at(up)["first token"]) == (4.0, 4.2)
    assert up.cold == up.waited
    assert up.cold is not None
    assert (up.cold.requests, up.cold.total_s, up.cold.max_s) == (2, 5.0, 3.0)
    assert [(w.request_id, w.wait_s) for w in up.cold.longest] == [(0, 3.0), (1, 2.0)]
    assert adds_up(up)


def test_the_second_cold_start_begins_with_the_request_that_found_nothing_again(tmp_path: Path) -> None:
    story = {
        "requests": [runs.ok(0, anchor_s=0.5, first_s=2.2, done_s=3), runs.ok(1, anchor_s=9.0, first_s=12.2)],
        "events": [
            from_zero(1.0),
            state(2.0, "a", "running"),
            decision(7.0, 1, 0, queue_depth=0.0),
            state(7.1, "a", "stopping"),
            state(8.0, "a", "stopped"),
            from_zero(9.5),
            state(12.0, "b", "running"),
            runs.event(15, E.RUN_ENDED),
        ],
    }
    _, _, again = chains(tmp_path / "r", story)
    assert at(again)["threshold crossed"] == 9.0
    assert at(again)["load changed"] is None  # the plan had one a second all along
    assert (
        link(again, "load changed").note == "the planned rate had not changed since the step down at 7.00 s"
    )
    assert again.cold is not None and again.cold.total_s == 2.5


def test_a_first_token_proves_readiness_before_the_poll_does(tmp_path: Path) -> None:
    story = rush()
    story["events"][3] = state(20.6, "b", "running")
    up, _ = chains(tmp_path / "r", story)
    assert (at(up)["ready"], at(up)["first token"]) == (20.4, 20.4)
    assert link(up, "ready").note == "its first token came before it was seen running at 20.60 s"
    assert adds_up(up)


def test_a_step_that_waits_for_a_starting_replica(tmp_path: Path) -> None:
    """A replica takes from 10 to 30 s to start: the next step comes at 30 s, its window over at 15 s."""
    story = {
        "timeline": [sample(t, 1.0 if t < 5 else 9.0) for t in range(40)],
        "events": [
            state(-1.0, "a", "running"),
            decision(10.0, 1, 2, queue_depth=9.0),
            state(30.0, "b", "running"),
            decision(30.0, 2, 3, queue_depth=9.0),
            state(33.0, "c", "running"),
            runs.event(40, E.RUN_ENDED),
        ],
    }
    first, second = chains(tmp_path / "r", story)
    assert [at(first)[n] for n in ("threshold crossed", "window elapsed", "decision")] == [5.0, 10.0, 10.0]
    assert [at(second)[n] for n in ("threshold crossed", "window elapsed", "decision")] == [5.0, 15.0, 30.0]
    note = link(second, "window elapsed").note
    assert "from the step before" in note and "waited for a replica that was starting" in note


def test_the_policy_knows_better_than_the_samples(tmp_path: Path) -> None:
    """Samples at 11 and 12 s; the policy, which looks oftener, decided at 16.4 s by a whole window of 5 s."""
    story = rush()
    story["events"][1] = decision(16.4, 1, 2, queue_depth=6.0)
    up, _ = chains(tmp_path / "r", story)
    crossed = link(up, "threshold crossed")
    assert (crossed.at_s, crossed.not_before_s) == (pytest.approx(11.4), 11.0)
    assert at(up)["window elapsed"] == pytest.approx(16.4)


@pytest.mark.parametrize(
    ("change", "name", "note"),
    [
        ({"load_kind": LoadKind.CLOSED}, "load changed", "a closed loop has no planned rate"),
        ({"schedule": [{Schedule.request_id: 0}]}, "load changed", "the schedule has no instants"),
        ({"timeline": [], "scenario": {}}, "threshold crossed", "does not state the threshold"),
        (
            {"scenario": {k: v for k, v in SCENARIO.items() if k != "objectives"}},
            "objective met",
            "no objective",
        ),
        ({"scenario": SCENARIO | {"objectives": {"ttft_p90": 60.0}}}, "objective met", "no answer missed"),
        ({"scenario": SCENARIO | {"objectives": {"ttft_p90": 0.1}}}, "objective met", "not before 38.00 s"),
    ],
)
def test_what_is_not_visible_is_said(tmp_path: Path, change: dict[str, Any], name: str, note: str) -> None:
    up, _ = chains(tmp_path / "r", rush() | change)
    assert link(up, name).at_s is None
    assert note in link(up, name).note
    assert adds_up(up)


def test_a_load_that_changes_all_the_time_has_no_instant_of_change(tmp_path: Path) -> None:
    scenario = SCENARIO | {"load": {"stages": [{"duration": 40.0, "arrival": {"process": "sine"}}]}}
    story = rush() | {"scenario": scenario, "schedule": plan((0, 40, 1))}
    up, down = chains(tmp_path / "r", story)
    assert link(up, "load changed").note == "the load of stage 0 (sine) changes all the time"
    assert at(down)["load changed"] is None


def test_other_policies_have_no_threshold_of_depth(tmp_path: Path) -> None:
    story = rush()
    story["events"][1] = decision(17.0, 1, 2, policy="hpa")
    up, _ = chains(tmp_path / "r", story)
    assert (at(up)["threshold crossed"], at(up)["window elapsed"], at(up)["decision"]) == (None, None, 17.0)
    assert "policy hpa does not decide by a threshold" in link(up, "threshold crossed").note


def test_a_replica_that_never_came_and_answers_that_name_nobody(tmp_path: Path) -> None:
    story = rush()
    story["events"] = [e for e in story["events"] if e["subject"] != "b"]
    up, down = chains(tmp_path / "never", story)
    assert "no replica was seen" in link(up, "ready").note
    assert "no replica came" in link(up, "objective met").note
    assert (up.waited, up.cold, up.replicas) == (None, None, ())
    assert "no replica was seen to stop" in link(down, "stopped").note
    nameless = rush()
    for row in nameless["requests"]:
        row[Requests.replica] = None
    up, _ = chains(tmp_path / "nameless", nameless)
    assert link(up, "first token").note == "the answers do not name their replicas"
    assert at(up)["ready"] == 20.0


def test_two_replicas_of_one_step(tmp_path: Path) -> None:
    story = rush()
    story["events"][1] = decision(17.0, 1, 3, queue_depth=6.0)
    story["events"] += [state(17.8, "c", "starting"), state(19.5, "c", "running")]
    up = chains(tmp_path / "r", story)[0]
    assert up.replicas == ("b", "c")
    assert (at(up)["replica starting"], at(up)["ready"]) == (17.5, 19.5)
    assert link(up, "ready").note == "the first of 2"


def test_one_step_that_both_report_is_one_event(tmp_path: Path) -> None:
    story = rush()
    story["events"].append(
        runs.event(17.2, E.TARGET_CHANGED, "llm", **{"from": 1, "to": 2, "reason": "host"})
    )
    s = scaling(tmp_path / "r", story)
    assert len(s.steps) == 3
    assert [c.step for c in s.chains] == [0, 2]


def test_another_objective_is_asked_for(tmp_path: Path) -> None:
    question = Question(objectives=(Objective.of("e2e_p50", 1.0),))
    up, _ = chains(tmp_path / "r", rush(), question)
    # The middle of the window's ten answers: felt at the end, so a tenth of a second after the first token.
    assert at(up)["objective met"] == pytest.approx(25.1)
    assert link(up, "objective met").note == "e2e_p50: from here through 5 s"


# --- the parts, against counting by hand ---------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=40),
    st.sampled_from([50.0, 90.0, 99.0]),
    st.integers(1, 20),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_when_an_objective_is_met_again(
    answers: list[tuple[int, bool]], percent: float, window: int, a: int, b: int
) -> None:
    start, end = min(a, b), max(a, b)
    answers.sort(key=lambda x: x[0])
    felt = np.array([t for t, _ in answers], np.int64)
    course = Course(Objective("ttft", 1.0, percent), felt, np.array([m for _, m in answers], np.bool_))
    want = None
    for i, (t, missed) in enumerate(answers):
        if missed or not start <= t < end:
            continue
        within = sorted(m for u, m in answers[i:] if u < min(t + window, end))
        if not within[ceil(percent / 100 * len(within)) - 1]:  # its percentile is no miss
            want = t
            break
    assert course.met_from(start, end, window) == want
    assert course.is_missed_in(start, end) == any(m for t, m in answers if start <= t < end)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=30),
    st.lists(st.integers(0, 30), min_size=2, max_size=6, unique=True),
)
@settings(max_examples=50)
def test_waiting_second_by_second(requests: list[tuple[int, int]], edges: list[int]) -> None:
    edges = sorted(edges)[: len(edges) // 2 * 2]
    pieces = list(zip(edges[::2], edges[1::2], strict=True))
    sent = np.array([min(r) for r in requests], np.int64)
    until = np.array([max(r) for r in requests], np.int64)
    waiting = Waiting(pieces)
    for half in (slice(None, 7), slice(7, None)):
        waiting.add(np.arange(len(requests))[half], sent[half], until[half])
    covered = {s for start, end in pieces for s in range(start, end)}
    each = [sum(s in covered for s in range(a, b)) for a, b in zip(sent, until, strict=True)]
    found = waiting.figures()
    assert found.requests == sum(w > 0 for w in each)
    assert found.total_s == pytest.approx(sum(each) / 1e9)
    assert [w.wait_s for w in found.longest] == sorted((w / 1e9 for w in each if w), reverse=True)[:10]
    assert all(w.wait_s == each[w.request_id] / 1e9 for w in found.longest)

"""Scaling figures from small stories whose answers can be counted on fingers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.analysis import Question, summarise
from raybench.analysis.figures import Scaling
from raybench.report.scaling import strip
from raybench.rundir import open_run
from raybench.schema import EventKind, Timeline

E = EventKind


def decision(t_s: float, before: int, after: int, **detail: Any) -> dict[str, Any]:
    return runs.event(
        t_s, E.DECISION, "queue_depth", **{"from": before, "to": after, "reason": "because", **detail}
    )


def state(t_s: float, replica: str, state: str) -> dict[str, Any]:
    return runs.event(t_s, E.REPLICA_STATE, replica, state=state)


def zero_to_two_to_zero() -> list[dict[str, Any]]:
    return [
        runs.event(0, E.LOAD_STARTED, "made"),
        state(1.0, "a", "starting"),
        runs.event(1.0, E.TARGET_CHANGED, "llm", **{"from": 0, "to": 1, "reason": "from_zero"}),
        state(4.0, "a", "running"),
        decision(10.0, 1, 2, queue_depth=6.0, window_s=5.0, serving=4, available=1),
        state(10.5, "b", "starting"),
        state(14.0, "b", "running"),
        decision(20.0, 2, 1, queue_depth=1.0, window_s=5.0, serving=2, available=2),
        state(20.5, "b", "stopping"),
        state(22.0, "b", "stopped"),
        decision(30.0, 1, 0, queue_depth=0.0, window_s=5.0, serving=0, available=1),
        state(30.5, "a", "stopping"),
        state(31.0, "a", "stopped"),
        runs.event(33, E.RUN_ENDED, "made"),
    ]


def scaling(path: Path, *, requests: list[dict[str, Any]] | None = None, **tables: Any) -> Scaling | None:
    return summarise(open_run(runs.write(path, requests or [], **tables)), Question()).scaling


def test_up_and_down_again(tmp_path: Path) -> None:
    s = scaling(tmp_path / "r", events=zero_to_two_to_zero(), load_total_s=25.0)
    assert s is not None
    assert [(p.t_s, p.from_replicas, p.to_replicas, p.by, p.reason) for p in s.steps] == [
        (1.0, 0, 1, "host", "from_zero"),
        (10.0, 1, 2, "policy", "because"),
        (20.0, 2, 1, "policy", "because"),
        (30.0, 1, 0, "policy", "because"),
    ]
    assert s.available == ((1.0, 0), (4.0, 1), (14.0, 2), (20.5, 1), (30.5, 0))
    assert s.replica_seconds == (31.0 - 1.0) + (22.0 - 10.0)
    assert s.nothing_available_s == 4.0
    assert s.observed_s == (0.0, 33.0)
    assert [p.busy for p in s.steps] == [None, None, True, False]
    assert (s.steps_down_busy, s.steps_down_unknown) == (1, 0)


def test_what_still_runs_counts_to_the_end_of_observation(tmp_path: Path) -> None:
    s = scaling(tmp_path / "r", events=[state(2.0, "a", "running"), runs.event(12.0, E.NOTE, "x", text="y")])
    assert s is not None
    assert s.replica_seconds == 10.0


def test_a_request_to_start_that_was_taken_back_costs_nothing(tmp_path: Path) -> None:
    """Asked for at 10, taken back at 11 before it was seen; the replica of 20 is not charged from 10."""
    events = [
        state(0.0, "a", "running"),
        decision(10.0, 1, 2),
        decision(11.0, 2, 1),
        decision(20.0, 1, 2),
        state(21.0, "b", "starting"),
        runs.event(30.0, E.RUN_ENDED),
    ]
    s = scaling(tmp_path / "r", events=events)
    assert s is not None
    assert s.replica_seconds == 30.0 + 10.0


def test_requests_tell_whether_a_stopped_replica_was_busy(tmp_path: Path) -> None:
    events = zero_to_two_to_zero()
    on_b = runs.ok(0, anchor_s=19.0, done_s=21.0, replica="b")
    idle_b = runs.ok(0, anchor_s=15.0, done_s=20.0, replica="b")
    busy = scaling(tmp_path / "busy", requests=[on_b], events=events)
    idle = scaling(tmp_path / "idle", requests=[idle_b], events=events)
    assert busy is not None and idle is not None
    assert [p.busy for p in busy.steps] == [None, None, True, False]
    assert [p.busy for p in idle.steps] == [None, None, False, False]


def test_without_evidence_it_is_unknown(tmp_path: Path) -> None:
    s = scaling(tmp_path / "r", events=[decision(5.0, 2, 1, serving=1, available=2), decision(9.0, 1, 0)])
    assert s is not None
    assert (s.steps_down_busy, s.steps_down_unknown) == (0, 2)


def test_nothing_was_observed(tmp_path: Path) -> None:
    assert scaling(tmp_path / "r", events=[runs.event(0, E.LOAD_STARTED, "made")]) is None


@given(
    st.lists(
        st.tuples(st.integers(1, 10), st.integers(0, 4), st.integers(0, 2), st.integers(0, 2)), min_size=1
    )
)
@settings(max_examples=25, deadline=None)
def test_from_samples_alone(
    tmp_path_factory: pytest.TempPathFactory, samples: list[tuple[int, int, int, int]]
) -> None:
    """A target that tells no events: every sample holds until the next one."""
    times = np.cumsum([gap for gap, *_ in samples])
    rows = [
        {
            Timeline.t_ns: int(t) * 10**9,
            Timeline.replicas_available: available,
            Timeline.replicas_starting: starting,
            Timeline.replicas_stopping: stopping,
        }
        for t, (_, available, starting, stopping) in zip(times, samples, strict=True)
    ]
    s = scaling(tmp_path_factory.mktemp("s") / "r", timeline=rows)
    assert s is not None
    want, absent = 0, 0
    for second in range(int(times[0]), int(times[-1])):
        _, available, starting, stopping = samples[int(np.searchsorted(times, second, side="right")) - 1]
        want += available + starting + stopping
        absent += available == 0
    assert s.replica_seconds == want
    assert (s.nothing_available_s or 0) == absent


def test_the_line_of_text() -> None:
    steps = [(0.0, 0), (2.0, 1), (4.0, 2), (6.0, 12), (8.0, 0)]
    assert strip(steps, 0.0, 10.0, width=10) == "001122++00"
    assert strip(steps, -2.0, 2.0, width=4) == "  00"

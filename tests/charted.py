"""Runs for the tests of charts and of the page: one that scales, and those at the edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import runs

from raybench.analysis import Question, Summary, summarise
from raybench.analysis.series import Series, series
from raybench.rundir import open_run
from raybench.schema import EventKind, LoadKind, Outcome, Requests, Timeline

HOSTILE = "</script><img src=x onerror=alert(1)><b>&\"'</style>"

SCENARIO: dict[str, Any] = {
    "deployment": {
        "autoscaling": {
            "policy": "queue_depth",
            "scale_up_queue_depth": 5.0,
            "scale_down_queue_depth": 1.0,
            "autoscaling_window": 5.0,
            "min_replicas": 0,
            "max_replicas": 2,
        }
    },
    "load": {
        "stages": [{"duration": 40.0, "arrival": {"process": "constant", "interval": 0.5, "rate": None}}],
        "request": {"prompt": HOSTILE, "timeout": 20.0},
    },
    "objectives": {"ttft_p99": 2.0, "e2e_p95": 60.0},
}


def scaling_rows(hostile: bool = False) -> list[dict[str, Any]]:
    """80 requests, one every half second: ok, but for a timeout and a failure in their midst."""
    a, b = (HOSTILE, "b" + HOSTILE) if hostile else ("a", "b")
    rows = []
    for i in range(80):
        t = 0.5 * i
        first = max(t, 4.0) + 0.1 + (i % 7) * 0.3
        on = a if i % 2 == 0 or t < 16 else b
        rows.append(
            runs.ok(i, anchor_s=t, sent_s=t + 0.001, first_s=first, done_s=first + 2.0, tokens=41, replica=on)
        )
    rows[30] = runs.failed(30, Outcome.TIMEOUT, "no complete answer in 20s", anchor_s=15.0, done_s=35.0)
    error = HOSTILE if hostile else "went away"
    rows[31] = runs.failed(31, Outcome.STREAM_CUT, error, anchor_s=15.5, done_s=17.0)
    return rows


def timeline(until: int = 60) -> list[dict[str, Any]]:
    """One sample a second from -2 s: nothing until 4 s, one replica, two from 16 s to 50 s."""
    made = []
    for t in range(-2, until):
        available = 0 if t < 4 else 2 if 16 <= t < 50 else 1
        waiting, serving = float(max(0, 10 - abs(t - 12))), float(min(4, max(0, t)))
        made.append(
            {
                Timeline.t_ns: runs.ns(float(t)),
                Timeline.waiting: waiting,
                Timeline.serving: serving,
                Timeline.queue_depth: (waiting + serving) / available if available else None,
                Timeline.replicas_available: available,
                Timeline.replicas_starting: int(0 <= t < 4) + int(10 <= t < 16),
                Timeline.replicas_stopping: int(50 <= t < 53),
                Timeline.replicas_target: 0 if t < 0 else 2 if 10 <= t < 50 else 1,
                Timeline.in_flight: int(waiting + serving),
            }
        )
    return made


def events(hostile: bool = False) -> list[dict[str, Any]]:
    reason = HOSTILE if hostile else "queue depth 12 >= 5 through 5 s"
    a, b = (HOSTILE, "b" + HOSTILE) if hostile else ("a", "b")
    step = {"from": 1, "to": 2, "reason": reason, "queue_depth": 12.0, "window_s": 5.0}
    return [
        runs.event(0.0, EventKind.TARGET_CHANGED, "llm", **{"from": 0, "to": 1, "reason": "from_zero"}),
        runs.event(0.2, EventKind.REPLICA_STATE, a, state="starting"),
        runs.event(4.0, EventKind.REPLICA_STATE, a, state="running"),
        runs.event(10.0, EventKind.DECISION, "queue_depth", **step),
        runs.event(10.2, EventKind.REPLICA_STATE, b, state="starting"),
        runs.event(16.0, EventKind.REPLICA_STATE, b, state="running"),
        runs.event(50.0, EventKind.DECISION, "queue_depth", **{"from": 2, "to": 1, "reason": "calm"}),
        runs.event(50.2, EventKind.REPLICA_STATE, b, state="stopping"),
        runs.event(53.0, EventKind.REPLICA_STATE, b, state="stopped"),
        runs.event(60.0, EventKind.RUN_ENDED, "made"),
    ]


def read(path: Path, question: Question | None = None) -> tuple[Summary, Series]:
    source, question = open_run(path), question or Question()
    summary = summarise(source, question)
    return summary, series(source, question, summary)


def scaled(path: Path, question: Question | None = None, *, hostile: bool = False) -> tuple[Summary, Series]:
    """The run that goes from nothing to one replica, to two and back to one."""
    name = HOSTILE if hostile else "made"
    run = runs.write(
        path,
        scaling_rows(hostile),
        timeline=timeline(),
        events=events(hostile),
        scenario=SCENARIO,
        load_total_s=45.0,
        name=name,
        measured={"engine": "emulated", "model": name},
        problems=[HOSTILE] if hostile else [],
    )
    return read(run, question)


EDGES: dict[str, dict[str, Any]] = {
    "empty": {"requests": []},
    "never sent": {"requests": [runs.failed(0, Outcome.NOT_SENT, "the run ended", anchor_s=1.0)]},
    "one row": {"requests": [runs.ok(0, anchor_s=0.0, first_s=0.5, done_s=1.0, tokens=1)]},
    "at once": {"requests": [runs.ok(0, anchor_s=0.0, first_s=0.0, done_s=0.0, tokens=5)]},
    "all failed": {
        "requests": [
            runs.failed(i, Outcome.HTTP_ERROR, "503", anchor_s=float(i), done_s=i + 0.1) for i in range(5)
        ]
    },
    "all timed out": {
        "requests": [
            runs.failed(i, Outcome.TIMEOUT, "late", anchor_s=float(i), done_s=i + 20.0) for i in range(3)
        ]
    },
    "target without timeline": {
        "requests": [
            runs.ok(i, anchor_s=float(i), first_s=i + 0.2, done_s=i + 1.0, tokens=9) for i in range(9)
        ],
        "scenario": {"target": {"url": "http://127.0.0.1:1"}},
    },
    "closed loop": {
        "requests": [
            runs.ok(i, sent_s=float(i), first_s=i + 0.2, done_s=i + 1.0, **{Requests.anchor_ns: None})
            for i in range(9)
        ],
        "load_kind": LoadKind.CLOSED,
    },
    "one sample": {
        "requests": [],
        "timeline": [{Timeline.t_ns: 0, Timeline.replicas_available: 1, Timeline.queue_depth: 0.0}],
    },
}


def edge(path: Path, name: str) -> tuple[Summary, Series]:
    return read(runs.write(path, **EDGES[name]))

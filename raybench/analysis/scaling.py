"""What the autoscaler did: steps with their reasons, replicas over time, replica-seconds.

Replicas over time come from the replica events where there are any, else from the timeline's samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raybench.analysis.figures import ReplicaChange, Scaling, Step
from raybench.analysis.source import Source
from raybench.schema import EventKind, Events, Manifest, ReplicaState, Requests, Timeline

STEP_KINDS = (EventKind.DECISION, EventKind.TARGET_CHANGED)


@dataclass(frozen=True)
class _Event:
    t_ns: int
    kind: str
    subject: str
    detail: dict[str, Any]


@dataclass(frozen=True)
class _Life:
    """One replica, in ns; None for what was not seen."""

    replica: str
    requested: int
    running: int | None
    stopping: int | None
    stopped: int | None


def scaling(source: Source) -> Scaling | None:
    """The scaling figures of a run; None where no deployment was observed. Raises nothing of its own."""
    # At one instant the step comes before the replica that it brought: one poll saw both.
    events = sorted(_events(source), key=lambda e: (e.t_ns, e.kind == EventKind.REPLICA_STATE))
    samples = _samples(source)
    about_scaling = [e for e in events if e.kind in (*STEP_KINDS, EventKind.REPLICA_STATE)]
    if not about_scaling and not samples:
        return None
    instants = [e.t_ns for e in events] + [t for t, _, _ in samples]
    first, last = min(instants), max(instants)
    lives = _lives(about_scaling)
    if lives:
        available = _steps_of_lives(lives)
        replica_ns: float | None = sum((life.stopped or last) - life.requested for life in lives)
    else:
        available = _step_function((t, n) for t, n, _ in samples)
        replica_ns = _integral([(t, alive) for t, _, alive in samples], first, last) if samples else None
    steps = _steps(source, about_scaling, lives)
    down = [s for s in steps if _is_down(s)]
    return Scaling(
        steps=tuple(steps),
        changes=tuple(
            ReplicaChange(e.t_ns / 1e9, e.subject, str(e.detail.get("state", "")))
            for e in about_scaling
            if e.kind == EventKind.REPLICA_STATE
        ),
        available=tuple((t / 1e9, n) for t, n in available),
        observed_s=(first / 1e9, last / 1e9),
        replica_seconds=replica_ns / 1e9 if replica_ns is not None else None,
        nothing_available_s=_nothing_available_s(available, first, last, source.manifest),
        steps_down_busy=sum(s.busy is True for s in down),
        steps_down_unknown=sum(s.busy is None for s in down),
    )


def _events(source: Source) -> Iterable[_Event]:
    columns = [Events.t_ns, Events.kind, Events.subject, Events.detail]
    for batch in source.batches(Events, columns):
        for t, kind, subject, detail in zip(*(c.to_pylist() for c in batch.columns), strict=True):
            yield _Event(t, kind, subject, _object(detail))


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _samples(source: Source) -> list[tuple[int, int, int]]:
    """(t, available, starting + available + stopping) of the samples that counted replicas, in order."""
    counted = [Timeline.replicas_available, Timeline.replicas_starting, Timeline.replicas_stopping]
    found = []
    for batch in source.batches(Timeline, [Timeline.t_ns, *counted]):
        for t, available, starting, stopping in zip(*(c.to_pylist() for c in batch.columns), strict=True):
            if available is not None:
                found.append((t, available, available + (starting or 0) + (stopping or 0)))
    return sorted(found)


def _lives(events: list[_Event]) -> list[_Life]:
    """Each replica's life. A raise of the target asks for replicas; the next ones that are seen are theirs,
    and a lower target takes back the latest that were never seen.
    """
    asked: list[int] = []
    target: int | None = None
    seen: dict[str, dict[str, int]] = {}
    for e in events:
        if e.kind in STEP_KINDS:
            to, before = e.detail.get("to"), e.detail.get("from", target)
            if isinstance(to, int):
                # The policy's decision and the host's change of target can report the same step.
                before = target if target is not None else (before if isinstance(before, int) else 0)
                asked += [e.t_ns] * max(0, to - before)
                del asked[len(asked) - min(len(asked), max(0, before - to)) :]
                target = to
        elif e.kind == EventKind.REPLICA_STATE:
            state = str(e.detail.get("state", ""))
            if e.subject not in seen:
                seen[e.subject] = {"requested": asked.pop(0) if asked else e.t_ns}
            seen[e.subject].setdefault(state, e.t_ns)
    return [
        _Life(
            replica,
            at["requested"],
            at.get(ReplicaState.RUNNING),
            at.get(ReplicaState.STOPPING),
            at.get(ReplicaState.STOPPED),
        )
        for replica, at in seen.items()
    ]


def _steps_of_lives(lives: list[_Life]) -> list[tuple[int, int]]:
    """Replicas able to serve: each from running to stopping (or stopped, where stopping was not seen)."""
    edges: dict[int, int] = {min(life.requested for life in lives): 0}
    for life in lives:
        if life.running is not None:
            edges[life.running] = edges.get(life.running, 0) + 1
            end = life.stopping if life.stopping is not None else life.stopped
            if end is not None:
                edges[end] = edges.get(end, 0) - 1
    counts = np.cumsum([edges[t] for t in sorted(edges)])
    return _step_function(zip(sorted(edges), (int(n) for n in counts), strict=True))


def _step_function(points: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Only the points where the value changes."""
    steps: list[tuple[int, int]] = []
    for t, n in points:
        if not steps or steps[-1][1] != n:
            steps.append((t, n))
    return steps


def _integral(points: list[tuple[int, int]], start: int, end: int) -> float:
    """Value times ns over [start, end]; each value holds until the next point."""
    total = 0.0
    for (t, n), (until, _) in zip(points, [*points[1:], (end, 0)], strict=True):
        total += n * max(0, min(until, end) - max(t, start))
    return total


def _nothing_available_s(
    available: list[tuple[int, int]], first: int, last: int, manifest: Manifest
) -> float | None:
    """Time without a replica able to serve, from t0 to the end of the load (or of observation, if sooner)."""
    end = last if manifest.load_total_s is None else min(last, round(manifest.load_total_s * 1e9))
    start = max(first, 0)
    if not available or end <= start:
        return None
    absent = [(t, int(n == 0)) for t, n in [(min(first, available[0][0]), 0), *available]]
    return _integral(absent, start, end) / 1e9


def _is_down(step: Step) -> bool:
    return None not in (step.from_replicas, step.to_replicas) and step.to_replicas < step.from_replicas  # type: ignore[operator]


def _steps(source: Source, events: list[_Event], lives: list[_Life]) -> list[Step]:
    found = []
    busy_stops = _busy_stops(source, lives)
    for e in events:
        if e.kind not in STEP_KINDS:
            continue
        step = Step(
            t_s=e.t_ns / 1e9,
            from_replicas=_int(e.detail.get("from")),
            to_replicas=_int(e.detail.get("to")),
            reason=str(e.detail.get("reason", "")),
            by="policy" if e.kind == EventKind.DECISION else "host",
            queue_depth=_float(e.detail.get("queue_depth")),
            window_s=_float(e.detail.get("window_s")),
            busy=None,
        )
        if _is_down(step):
            step = _with_busy(step, e, busy_stops)
        found.append(step)
    return found


def _with_busy(step: Step, event: _Event, busy_stops: list[tuple[int, bool]] | None) -> Step:
    """Seen in the requests where they name their replicas; else certain only if every replica was serving
    (at least one request each, evenly spread) or none was.
    """
    if busy_stops is not None:
        stops = [busy for t, busy in busy_stops if t >= event.t_ns]
        if stops:
            return replace(step, busy=any(stops[: (step.from_replicas or 0) - (step.to_replicas or 0)]))
    serving, available = _float(event.detail.get("serving")), _int(event.detail.get("available"))
    if serving is None or not available:
        return step
    if serving == 0:
        return replace(step, busy=False)
    return replace(step, busy=True) if serving >= available else step


def _busy_stops(source: Source, lives: list[_Life]) -> list[tuple[int, bool]] | None:
    """(instant, whether a request was under way on it) of each replica that began to stop, in order of time.
    None where no request names a replica that was seen.
    """
    stops = {life.replica: life.stopping for life in lives if life.stopping is not None}
    if not stops:
        return None
    names = pa.array(list(stops), pa.utf8())
    busy = dict.fromkeys(stops, False)
    named = False
    for batch in source.batches(Requests, [Requests.replica, Requests.sent_ns, Requests.done_ns]):
        batch = batch.filter(pc.is_in(batch.column(0), names))
        for replica, sent, done in zip(*(c.to_pylist() for c in batch.columns), strict=True):
            named = True
            if sent is not None and sent <= stops[replica] and (done is None or done > stops[replica]):
                busy[replica] = True
    return sorted((stops[r], busy[r]) for r in stops) if named else None


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

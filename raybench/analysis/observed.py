"""What was seen of a deployment: its events, its sampled state, and each replica's life. Read once.

Instants are ns after t0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raybench.analysis.source import Source
from raybench.schema import EventKind, Events, ReplicaState, Timeline

STEP_KINDS = (EventKind.DECISION, EventKind.TARGET_CHANGED)


@dataclass(frozen=True)
class Event:
    t_ns: int
    kind: str
    subject: str
    detail: dict[str, Any]


@dataclass(frozen=True)
class Life:
    """One replica, in ns; None for what was not seen. `step`: which of `Observed.steps` asked for it."""

    replica: str
    requested: int
    starting: int | None
    running: int | None
    stopping: int | None
    stopped: int | None
    step: int | None


@dataclass(frozen=True)
class Samples:
    """Columns of `timeline` in order of time; NaN where unknown. `alive`: starting, available or stopping."""

    t: NDArray[np.int64]
    waiting: NDArray[np.float64]
    serving: NDArray[np.float64]
    depth: NDArray[np.float64]
    available: NDArray[np.float64]
    alive: NDArray[np.float64]
    nodes: NDArray[np.float64]

    def at(self, where: NDArray[np.bool_]) -> Samples:
        return Samples(*(getattr(self, name)[where] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Observed:
    """`steps` are the events that changed the target; `available` is a step function (from when, how many),
    from the replicas' own events where there are any, else from the samples that counted them.
    """

    events: Sequence[Event]
    steps: Sequence[Event]
    samples: Samples
    lives: Sequence[Life]
    available: Sequence[tuple[int, int]]
    first: int
    last: int


def observe(source: Source) -> Observed | None:
    """None where no deployment was seen. Raises nothing of its own."""
    # At one instant the step comes before the replica that it brought: one poll saw both.
    events = sorted(_events(source), key=lambda e: (e.t_ns, e.kind == EventKind.REPLICA_STATE))
    samples = _samples(source)
    counted = samples.at(~np.isnan(samples.available))
    about_scaling = [e for e in events if e.kind in (*STEP_KINDS, EventKind.REPLICA_STATE)]
    if not about_scaling and not len(counted.t):
        return None
    instants = [e.t_ns for e in events] + counted.t[[0, -1] if len(counted.t) else []].tolist()
    steps = [e for e in about_scaling if e.kind in STEP_KINDS]
    lives = _lives(about_scaling)
    sampled = ((int(t), int(n)) for t, n in zip(counted.t, counted.available, strict=True))
    return Observed(
        events=events,
        steps=steps,
        samples=samples,
        lives=lives,
        available=_of_lives(lives) if lives else step_function(sampled),
        first=min(instants),
        last=max(instants),
    )


def _events(source: Source) -> Iterable[Event]:
    columns = [Events.t_ns, Events.kind, Events.subject, Events.detail]
    for batch in source.batches(Events, columns):
        for t, kind, subject, detail in zip(*(c.to_pylist() for c in batch.columns), strict=True):
            yield Event(t, kind, subject, _object(detail))


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _samples(source: Source) -> Samples:
    numbers = [
        Timeline.waiting,
        Timeline.serving,
        Timeline.queue_depth,
        Timeline.replicas_available,
        Timeline.replicas_starting,
        Timeline.replicas_stopping,
        Timeline.nodes,
    ]
    parts: list[list[NDArray[Any]]] = [[np.empty(0, np.int64), *(np.empty(0) for _ in numbers)]]
    for batch in source.batches(Timeline, [Timeline.t_ns, *numbers]):
        floats = (c.cast(pa.float64()).to_numpy(zero_copy_only=False) for c in batch.columns[1:])
        parts.append([batch.column(0).to_numpy(), *floats])
    t, waiting, serving, depth, available, starting, stopping, nodes = map(
        np.concatenate, zip(*parts, strict=True)
    )
    alive = available + np.nan_to_num(starting) + np.nan_to_num(stopping)
    order = np.argsort(t, kind="stable")
    return Samples(*(a[order] for a in (t, waiting, serving, depth, available, alive, nodes)))


def _lives(events: Sequence[Event]) -> list[Life]:
    """Each replica's life. A raise of the target asks for replicas; the next ones that are seen are theirs,
    and a lower target takes back the latest that were never seen.
    """
    asked: list[tuple[int, int]] = []  # (when, by which step)
    target: int | None = None
    seen: dict[str, dict[str, int]] = {}
    asked_by: dict[str, tuple[int, int | None]] = {}
    step = -1
    for e in events:
        if e.kind in STEP_KINDS:
            step += 1
            to, before = e.detail.get("to"), e.detail.get("from", target)
            if isinstance(to, int):
                # The policy's decision and the host's change of target can report the same step.
                before = target if target is not None else (before if isinstance(before, int) else 0)
                asked += [(e.t_ns, step)] * max(0, to - before)
                del asked[len(asked) - min(len(asked), max(0, before - to)) :]
                target = to
        elif e.kind == EventKind.REPLICA_STATE:
            if e.subject not in seen:
                seen[e.subject] = {}
                asked_by[e.subject] = asked.pop(0) if asked else (e.t_ns, None)
            seen[e.subject].setdefault(str(e.detail.get("state", "")), e.t_ns)
    return [
        Life(
            replica,
            requested=asked_by[replica][0],
            starting=at.get(ReplicaState.STARTING),
            running=at.get(ReplicaState.RUNNING),
            stopping=at.get(ReplicaState.STOPPING),
            stopped=at.get(ReplicaState.STOPPED),
            step=asked_by[replica][1],
        )
        for replica, at in seen.items()
    ]


def _of_lives(lives: Sequence[Life]) -> list[tuple[int, int]]:
    """Replicas able to serve: each from running to stopping (or stopped, where stopping was not seen)."""
    edges: dict[int, int] = {min(life.requested for life in lives): 0}
    for life in lives:
        if life.running is not None:
            edges[life.running] = edges.get(life.running, 0) + 1
            end = life.stopping if life.stopping is not None else life.stopped
            if end is not None:
                edges[end] = edges.get(end, 0) - 1
    counts = np.cumsum([edges[t] for t in sorted(edges)])
    return step_function(zip(sorted(edges), (int(n) for n in counts), strict=True))


# --- step functions: (from this instant, value), each until the next -----------------------------------


def step_function(points: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Only the points where the value changes."""
    steps: list[tuple[int, int]] = []
    for t, n in points:
        if not steps or steps[-1][1] != n:
            steps.append((t, n))
    return steps


def integral(points: Sequence[tuple[int, float]], start: int, end: int) -> float:
    """Value times ns over [start, end]; each value holds until the next point."""
    total = 0.0
    for (t, n), (until, _) in zip(points, [*points[1:], (end, 0)], strict=True):
        total += n * max(0, min(until, end) - max(t, start))
    return total


def stretches(points: Sequence[tuple[int, int]], value: int, start: int, end: int) -> list[tuple[int, int]]:
    """The parts of [start, end] in which the step function has this value."""
    found = []
    for (t, n), (until, _) in zip(points, [*points[1:], (end, 0)], strict=True):
        if n == value and min(until, end) > max(t, start):
            found.append((max(t, start), min(until, end)))
    return found


def is_up(step: Event) -> bool:
    before, after = replicas(step)
    return before is not None and after is not None and after > before


def is_down(step: Event) -> bool:
    before, after = replicas(step)
    return before is not None and after is not None and after < before


def replicas(step: Event) -> tuple[int | None, int | None]:
    """(before, after) as the event says."""
    return whole(step.detail.get("from")), whole(step.detail.get("to"))


def whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def real(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

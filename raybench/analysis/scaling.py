"""What the autoscaler did: steps with their reasons, replicas over time, replica-seconds.

Replicas over time come from the replica events where there are any, else from the timeline's samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raybench.analysis.columns import MISSING, instants
from raybench.analysis.figures import ReplicaChange, Scaling, Step
from raybench.analysis.observed import (
    Event,
    Life,
    Observed,
    integral,
    is_down,
    observe,
    real,
    replicas,
    whole,
)
from raybench.analysis.source import Source
from raybench.schema import EventKind, Manifest, Requests


def scaling(source: Source, seen: Observed | None = None) -> Scaling | None:
    """The scaling figures of a run; None where no deployment was observed. Raises nothing of its own.
    `seen`: what `observe` found, where that is known already.
    """
    seen = seen or observe(source)
    if seen is None:
        return None
    steps = _steps(source, seen)
    down = [s for s, e in zip(steps, seen.steps, strict=True) if is_down(e)]
    replica_ns = replica_time_ns(seen)
    return Scaling(
        steps=tuple(steps),
        changes=tuple(
            ReplicaChange(e.t_ns / 1e9, e.subject, str(e.detail.get("state", "")))
            for e in seen.events
            if e.kind == EventKind.REPLICA_STATE
        ),
        available=tuple((t / 1e9, n) for t, n in seen.available),
        observed_s=(seen.first / 1e9, seen.last / 1e9),
        replica_seconds=replica_ns / 1e9 if replica_ns is not None else None,
        nothing_available_s=_nothing_available_s(seen, source.manifest),
        steps_down_busy=sum(s.busy is True for s in down),
        steps_down_unknown=sum(s.busy is None for s in down),
    )


def replica_time_ns(seen: Observed) -> float | None:
    """From each replica's start requested to stopped (or the end of observation), added up."""
    if seen.lives:
        return float(sum((life.stopped or seen.last) - life.requested for life in seen.lives))
    counted = seen.samples.at(~np.isnan(seen.samples.available))
    if not len(counted.t):
        return None
    points = list(zip(counted.t.tolist(), counted.alive.tolist(), strict=True))
    return integral(points, seen.first, seen.last)


def _nothing_available_s(seen: Observed, manifest: Manifest) -> float | None:
    """Time without a replica able to serve, from t0 to the end of the load (or of observation, if sooner)."""
    end = seen.last
    if manifest.load_total_s is not None:
        end = min(end, round(manifest.load_total_s * 1e9))
    start = max(seen.first, 0)
    if not seen.available or end <= start:
        return None
    points = [(min(seen.first, seen.available[0][0]), 0), *seen.available]
    return integral([(t, int(n == 0)) for t, n in points], start, end) / 1e9


def _steps(source: Source, seen: Observed) -> list[Step]:
    found = []
    busy_stops = _busy_stops(source, seen.lives)
    for e in seen.steps:
        before, after = replicas(e)
        step = Step(
            t_s=e.t_ns / 1e9,
            from_replicas=before,
            to_replicas=after,
            reason=str(e.detail.get("reason", "")),
            by="policy" if e.kind == EventKind.DECISION else "host",
            queue_depth=real(e.detail.get("queue_depth")),
            window_s=real(e.detail.get("window_s")),
            busy=None,
        )
        found.append(_with_busy(step, e, busy_stops) if is_down(e) else step)
    return found


def _with_busy(step: Step, event: Event, busy_stops: list[tuple[int, bool]] | None) -> Step:
    """Seen in the requests where they name their replicas; else certain only if every replica was serving
    (at least one request each, evenly spread) or none was.
    """
    if busy_stops is not None:
        stops = [busy for t, busy in busy_stops if t >= event.t_ns]
        if stops:
            return replace(step, busy=any(stops[: (step.from_replicas or 0) - (step.to_replicas or 0)]))
    serving, available = real(event.detail.get("serving")), whole(event.detail.get("available"))
    if serving is None or not available:
        return step
    if serving == 0:
        return replace(step, busy=False)
    return replace(step, busy=True) if serving >= available else step


def _busy_stops(source: Source, lives: Sequence[Life]) -> list[tuple[int, bool]] | None:
    """(instant, whether a request was under way on it) of each replica that began to stop, in order of time.
    None where no request names a replica that was seen.
    """
    stops = {life.replica: life.stopping for life in lives if life.stopping is not None}
    if not stops:
        return None
    names, at = pa.array(list(stops), pa.utf8()), np.array(list(stops.values()), np.int64)
    busy = np.zeros(len(stops), np.bool_)
    named = False
    for batch in source.batches(Requests, [Requests.replica, Requests.sent_ns, Requests.done_ns]):
        which = pc.index_in(batch.column(0), names).fill_null(-1).to_numpy()
        sent, done = instants(batch, Requests.sent_ns), instants(batch, Requests.done_ns)
        named = named or bool((which >= 0).any())
        stop = at[which]  # of the last one where it is none of them, left out below
        hit = (which >= 0) & (sent != MISSING) & (sent <= stop) & ((done == MISSING) | (done > stop))
        busy[np.unique(which[hit])] = True
    return sorted(zip(at.tolist(), busy.tolist(), strict=True)) if named else None

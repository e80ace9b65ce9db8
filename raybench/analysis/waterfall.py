"""Requests through a scaling event: who waited, from when to when, and which replica answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raybench.analysis.columns import MISSING, instants
from raybench.analysis.figures import ReplicaChange, Step
from raybench.analysis.source import Source
from raybench.schema import ReplicaState, Requests

MOST_EVENTS = 3
"""Steps up that are drawn, the first ones."""
MOST_BARS = 100
UNSEEN_S = 30.0
"""How long after a step is looked at where no new replica was seen to run."""


@dataclass(frozen=True)
class Bar:
    """One request; None is an instant that never came. Without an `end_s` it was still going."""

    request_id: int
    start_s: float  # planned, or sent without a plan
    first_s: float | None
    end_s: float | None
    outcome: str
    replica: str | None


@dataclass(frozen=True)
class Waterfall:
    """Requests under way in [from_s, to_s], in order of their start: of `requests`, those whose request_id is
    a multiple of `every`.
    """

    step: Step
    running_s: float | None  # the first replica that was able to serve after the step
    from_s: float
    to_s: float
    requests: int
    every: int
    bars: tuple[Bar, ...]


class _Window:
    """Takes requests in; halves what it keeps whenever that grows too many."""

    def __init__(self, step: Step, running_s: float | None, from_s: float, to_s: float) -> None:
        self.step, self.running_s, self.from_s, self.to_s = step, running_s, from_s, to_s
        self.every, self.requests = 1, 0
        self.kept: list[Bar] = []

    def add(self, batch: pa.RecordBatch) -> None:
        anchor, sent = instants(batch, Requests.anchor_ns), instants(batch, Requests.sent_ns)
        done = instants(batch, Requests.done_ns)
        start = np.where(anchor == MISSING, sent, anchor)
        inside = (start != MISSING) & (sent != MISSING) & (start <= self.to_s * 1e9)
        inside &= (done == MISSING) | (done >= self.from_s * 1e9)
        self.requests += int(inside.sum())
        ids = batch.column(Requests.request_id).to_numpy()
        while True:
            chosen = np.flatnonzero(inside & (ids % self.every == 0))
            if len(self.kept) + len(chosen) <= 2 * MOST_BARS:
                break
            self._halve()
        self.kept += _bars(batch.take(pa.array(chosen)), start[chosen])

    def _halve(self) -> None:
        self.every *= 2
        self.kept = [b for b in self.kept if b.request_id % self.every == 0]

    def waterfall(self) -> Waterfall:
        while len(self.kept) > MOST_BARS:
            self._halve()
        bars = tuple(sorted(self.kept, key=lambda b: (b.start_s, b.request_id)))
        return Waterfall(self.step, self.running_s, self.from_s, self.to_s, self.requests, self.every, bars)


def waterfalls(
    source: Source, steps: Sequence[Step], changes: Iterable[ReplicaChange], span_s: tuple[float, float]
) -> tuple[Waterfall, ...]:
    """One for each of the first MOST_EVENTS of `steps` (steps up), from a window before it until the
    queue had as long again to shrink as the replica took to start. Requests are read once.
    """
    running = sorted(c.t_s for c in changes if c.state == ReplicaState.RUNNING)
    windows = []
    for step in steps[:MOST_EVENTS]:
        ready = next((t for t in running if t > step.t_s), None)
        until = step.t_s + UNSEEN_S if ready is None else ready + max(1.0, ready - step.t_s)
        before = step.window_s if step.window_s is not None else 0.2 * (until - step.t_s)
        windows.append(_Window(step, ready, max(step.t_s - before, span_s[0]), min(until, span_s[1])))
    columns = [
        Requests.request_id,
        Requests.anchor_ns,
        Requests.sent_ns,
        Requests.first_token_ns,
        Requests.done_ns,
        Requests.outcome,
        Requests.replica,
    ]
    if windows:
        for batch in source.batches(Requests, columns):
            for window in windows:
                window.add(batch)
    return tuple(w.waterfall() for w in windows)


def _bars(batch: pa.RecordBatch, start: Any) -> list[Bar]:
    def of(name: str) -> list[Any]:
        return list(batch.column(name).to_pylist())

    return [
        Bar(i, s / 1e9, f if f is None else f / 1e9, d if d is None else d / 1e9, str(o), r)
        for i, s, f, d, o, r in zip(
            of(Requests.request_id),
            start.tolist(),
            of(Requests.first_token_ns),
            of(Requests.done_ns),
            of(Requests.outcome),
            of(Requests.replica),
            strict=True,
        )
    ]

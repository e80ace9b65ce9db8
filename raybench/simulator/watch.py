"""What would be seen of a deployment: its events, and its state sampled as a live run's monitor does.

A sample a second; of a simulation longer than `MOST_SAMPLES` seconds fewer, whole seconds apart.
"""

from __future__ import annotations

import json
from array import array
from math import ceil
from typing import Any

from raybench.schema import EventKind, Events, Replicas, ReplicaState, Timeline
from raybench.simulator.engine import NS

MOST_SAMPLES = 100_000


def period_ns(duration_s: float) -> int:
    """Between two samples of a run whose load lasts so long."""
    return max(1, ceil(duration_s / MOST_SAMPLES)) * NS


class Watch:
    """Collects rows, column by column; nan and -1 are null."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.t_ns = array("q")
        self.load: dict[str, array[float]] = {
            name: array("d") for name in (Timeline.waiting, Timeline.serving, Timeline.queue_depth)
        }
        self.counts: dict[str, array[int]] = {
            name: array("i")
            for name in (
                Timeline.replicas_target,
                Timeline.replicas_starting,
                Timeline.replicas_available,
                Timeline.replicas_stopping,
            )
        }
        self.replica_t_ns = array("q")
        self.replica_number = array("i")
        self.replica_state = array("b")
        self.engine: dict[str, array[float]] = {
            name: array("d")
            for name in (Replicas.engine_waiting, Replicas.engine_running, Replicas.kv_cache_usage)
        }

    def event(self, t_ns: int, kind: EventKind, subject: str, **detail: Any) -> None:
        self.events.append(
            {
                Events.t_ns: t_ns,
                Events.kind: str(kind),
                Events.subject: subject,
                Events.detail: json.dumps(detail, allow_nan=False),
            }
        )

    def state(
        self,
        t_ns: int,
        waiting: float,
        serving: float,
        target: int,
        starting: int,
        available: int,
        stopping: int,
    ) -> None:
        """One row of `timeline`."""
        self.t_ns.append(t_ns)
        depth = (waiting + serving) / available if available else float("nan")
        for column, value in zip(self.load.values(), (waiting, serving, depth), strict=True):
            column.append(value)
        for counts, count in zip(self.counts.values(), (target, starting, available, stopping), strict=True):
            counts.append(count)

    def replica(
        self, t_ns: int, number: int, state: ReplicaState, waiting: float, running: float, kv_usage: float
    ) -> None:
        """One row of `replicas`; nan for what a replica that does not run cannot say."""
        self.replica_t_ns.append(t_ns)
        self.replica_number.append(number)
        self.replica_state.append(STATES.index(state))
        for column, value in zip(self.engine.values(), (waiting, running, kv_usage), strict=True):
            column.append(value)


STATES = tuple(ReplicaState)

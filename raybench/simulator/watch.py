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


STATES = tuple(ReplicaState)

TIMELINE = (
    Timeline.waiting,
    Timeline.serving,
    Timeline.queue_depth,
    Timeline.replicas_target,
    Timeline.replicas_starting,
    Timeline.replicas_available,
    Timeline.replicas_stopping,
)
REPLICAS = (
    Replicas.replica,
    Replicas.state,
    Replicas.engine_waiting,
    Replicas.engine_running,
    Replicas.kv_cache_usage,
)
"""What a row of `Watch.timeline` and of `Watch.replicas` holds."""


class Watch:
    """Collects rows: instants, and figures row after row; nan is null."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.timeline_ns, self.timeline = array("q"), array("d")
        self.replicas_ns, self.replicas = array("q"), array("d")

    def event(self, t_ns: int, kind: EventKind, subject: str, **detail: Any) -> None:
        self.events.append(
            {
                Events.t_ns: t_ns,
                Events.kind: str(kind),
                Events.subject: subject,
                Events.detail: json.dumps(detail, allow_nan=False),
            }
        )

    def state(self, t_ns: int, row: tuple[float, ...]) -> None:
        """One row of `timeline`: see `TIMELINE`."""
        self.timeline_ns.append(t_ns)
        self.timeline.extend(row)

    def replica(self, t_ns: int, row: tuple[float, ...]) -> None:
        """One row of `replicas`, which is named by its number, its state by its place in `STATES`."""
        self.replicas_ns.append(t_ns)
        self.replicas.extend(row)

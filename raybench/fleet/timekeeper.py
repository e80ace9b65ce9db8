"""What the monitor knows and writes, without Ray: samples in, rows of `timeline`, `replicas`, `events` out.

Two witnesses are joined here. The policy tells what it saw and decided at each tick of Serve's
controller (waiting, serving, target, reason); polling Serve tells the state of each replica and the
target. Serve goes from 0 to 1 without asking the policy, so a change of target that no decision
explains within `GRACE_NS` becomes an event of its own.

Instants come in on the coordinator's monotonic clock and are written relative to t0, which is known
only when the load starts: rows wait in memory until then.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from raybench.generator import Sink
from raybench.schema import EventKind, Events, Replicas, ReplicaState, Table, Timeline

GRACE_NS = 1_500_000_000
"""How long a change of target waits for the decision that explains it (decisions come in batches)."""
FRESH_NS = 1_500_000_000
"""How long the policy's last sample stands for the present."""


@dataclass(frozen=True)
class ReplicaSeen:
    """One replica as Serve tells it. `engine` holds what the replica itself exports, where it does."""

    replica: str
    node: str | None
    state: ReplicaState
    engine: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """One poll of Serve: the target, each replica, and the requests it counts (None where unknown)."""

    t_ns: int
    target: int | None
    replicas: Sequence[ReplicaSeen]
    total_requests: float | None = None


@dataclass(frozen=True)
class Sample:
    """One tick of the policy."""

    t_ns: int
    waiting: float
    serving: float
    available: int
    target_before: int
    target: int
    reason: str
    window_s: float | None
    policy: str
    engine: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Now:
    """The latest state, for the live display."""

    waiting: float | None = None
    serving: float | None = None
    target: int | None = None
    starting: int = 0
    available: int = 0
    stopping: int = 0
    problems: tuple[str, ...] = ()  # the monitor's own, so far


class Timekeeper:
    """Collects rows and hands them to a sink in batches. Not thread-safe: the caller holds a lock."""

    def __init__(self, sink: Sink, deployment: str) -> None:
        self._sink, self._deployment = sink, deployment
        self._t0_ns: int | None = None
        self._rows: dict[type[Table], list[dict[str, Any]]] = {Timeline: [], Replicas: [], Events: []}
        self._states: dict[str, ReplicaState] = {}
        self._nodes_of: dict[str, str | None] = {}
        self._sample: Sample | None = None
        self._engine: dict[str, Mapping[str, float]] = {}  # replica -> its engine's figures, as last told
        self._target: int | None = None
        self._decided: list[tuple[int, int]] = []  # (t_ns, target) of recent decisions
        self._unexplained: tuple[int, int, int, int] | None = None  # t_ns, from, to, available then
        self._present: Seen | None = None
        self.in_flight: int | None = None
        self.nodes: int | None = None
        self.now = Now()

    # --- what comes in -------------------------------------------------------------------------

    def start(self, t0_ns: int) -> None:
        """Sets t0; rows collected before it get negative instants."""
        self._t0_ns = t0_ns

    def event(self, t_ns: int, kind: EventKind, subject: str, **detail: Any) -> None:
        self._rows[Events].append(
            {
                Events.t_ns: t_ns,
                Events.kind: str(kind),
                Events.subject: subject,
                Events.detail: json.dumps(detail, allow_nan=False, default=str),
            }
        )

    def observed(self, sample: Sample) -> None:
        """A tick of the policy; a change of target becomes a decision event."""
        self._sample = sample
        self._engine.update(sample.engine)
        if sample.target == sample.target_before:
            return
        depth = (sample.waiting + sample.serving) / sample.available if sample.available else None
        self.event(
            sample.t_ns,
            EventKind.DECISION,
            sample.policy,
            **{
                "from": sample.target_before,
                "to": sample.target,
                "reason": sample.reason,
                "queue_depth": depth,
                "waiting": sample.waiting,
                "serving": sample.serving,
                "available": sample.available,
                "window_s": sample.window_s,
            },
        )
        self._decided.append((sample.t_ns, sample.target))
        if self._unexplained and self._unexplained[2] == sample.target:
            self._unexplained = None
            self._decided.pop()

    def is_in_the_dark(self, t_ns: int) -> bool:
        """Whether the policy tells nothing of late, as while nothing is available: then Serve's own count
        of requests is worth asking for."""
        return (
            self.now.available == 0 or self._sample is None or not 0 <= t_ns - self._sample.t_ns <= FRESH_NS
        )

    def seen(self, seen: Seen) -> None:
        """A poll of Serve: replica transitions, and changes of target that nobody decided."""
        present = {r.replica: r for r in seen.replicas}
        for replica in present.values():
            self._moved(seen.t_ns, replica.replica, replica.node, replica.state)
        for gone in [r for r, s in self._states.items() if r not in present and s != ReplicaState.STOPPED]:
            self._moved(seen.t_ns, gone, self._nodes_of.get(gone), ReplicaState.STOPPED)
        self._target_seen(seen)
        count = [0, 0, 0]
        order = (ReplicaState.STARTING, ReplicaState.RUNNING, ReplicaState.STOPPING)
        for replica in present.values():
            if replica.state in order:
                count[order.index(replica.state)] += 1
        waiting, serving = self._load(seen, count[1])
        self.now = Now(waiting, serving, seen.target, count[0], count[1], count[2])
        self._present = seen

    def sample(self, t_ns: int) -> None:
        """One row of `timeline`, and one of `replicas` for each replica there is."""
        now = self.now
        known = now.waiting is not None and now.serving is not None and now.available > 0
        depth = (now.waiting + now.serving) / now.available if known else None  # type: ignore[operator]
        self._rows[Timeline].append(
            {
                Timeline.t_ns: t_ns,
                Timeline.waiting: now.waiting,
                Timeline.serving: now.serving,
                Timeline.queue_depth: depth,
                Timeline.replicas_target: now.target,
                Timeline.replicas_starting: now.starting,
                Timeline.replicas_available: now.available,
                Timeline.replicas_stopping: now.stopping,
                Timeline.nodes: self.nodes,
                Timeline.in_flight: self.in_flight,
            }
        )
        for replica in self._present.replicas if self._present else ():
            running = replica.state == ReplicaState.RUNNING
            engine = replica.engine or (self._engine.get(replica.replica, {}) if running else {})
            self._rows[Replicas].append(
                {
                    Replicas.t_ns: t_ns,
                    Replicas.replica: replica.replica,
                    Replicas.node: replica.node,
                    Replicas.state: str(replica.state),
                    Replicas.engine_waiting: engine.get(Replicas.engine_waiting),
                    Replicas.engine_running: engine.get(Replicas.engine_running),
                    Replicas.kv_cache_usage: engine.get(Replicas.kv_cache_usage),
                }
            )

    # --- what goes out -------------------------------------------------------------------------

    def flush(self) -> None:
        """Hands every collected row to the sink. Before t0 is known nothing is written."""
        if self._t0_ns is None:
            return
        for table, rows in self._rows.items():
            if not rows:
                continue
            taken = rows[:]
            t_column = next(iter(table.columns))
            for row in taken:
                row[t_column] -= self._t0_ns
            batch = pa.RecordBatch.from_pylist(taken, schema=table.schema)
            rows.clear()
            self._sink.write(table, batch)

    # --- inside --------------------------------------------------------------------------------

    def _moved(self, t_ns: int, replica: str, node: str | None, state: ReplicaState) -> None:
        previous = self._states.get(replica)
        if previous == state:
            return
        self._states[replica] = state
        self._nodes_of[replica] = node
        self.event(
            t_ns,
            EventKind.REPLICA_STATE,
            replica,
            state=str(state),
            node=node,
            previous=str(previous) if previous else None,
        )

    def _target_seen(self, seen: Seen) -> None:
        horizon = seen.t_ns - 4 * GRACE_NS
        self._decided = [d for d in self._decided if d[0] >= horizon]
        pending = self._unexplained
        if pending and seen.t_ns - pending[0] > GRACE_NS:
            self._unexplained = None
            t_ns, before, after, available = pending
            reason = "from_zero" if before == 0 and after >= 1 and available == 0 else "host"
            self.event(
                t_ns,
                EventKind.TARGET_CHANGED,
                self._deployment,
                **{"from": before, "to": after, "reason": reason},
            )
        if seen.target is None or seen.target == self._target:
            return
        known, self._target = self._target, seen.target
        if known is None:
            return
        for i, (_, target) in enumerate(self._decided):
            if target == seen.target:
                del self._decided[: i + 1]
                return
        available = sum(1 for r in seen.replicas if r.state == ReplicaState.RUNNING)
        self._unexplained = (seen.t_ns, known, seen.target, available)

    def _load(self, seen: Seen, available: int) -> tuple[float | None, float | None]:
        """Waiting and serving now. While nothing is available Serve does not ask the policy, and
        whatever it counts is waiting."""
        if available == 0 and seen.total_requests is not None:
            return seen.total_requests, 0.0
        if self._sample and 0 <= seen.t_ns - self._sample.t_ns <= FRESH_NS:
            return self._sample.waiting, self._sample.serving
        if seen.total_requests is not None and math.isclose(seen.total_requests, 0.0):
            return 0.0, 0.0
        return None, None

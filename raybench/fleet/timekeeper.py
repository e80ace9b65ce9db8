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

from raybench.fleet.scrape import Engine, Page, Reads
from raybench.generator import Sink
from raybench.schema import EventKind, Events, Replicas, ReplicaState, Table, Timeline

GRACE_NS = 1_500_000_000
"""How long a change of target waits for the decision that explains it (decisions come in batches)."""
FRESH_NS = 1_500_000_000
"""How long the policy's last sample stands for the present."""


@dataclass(frozen=True)
class ReplicaSeen:
    """One replica as Serve tells it. `engine` holds what the replica itself exports, where it does;
    `started_ns` when Serve says that it was started."""

    replica: str
    node: str | None
    state: ReplicaState
    engine: Mapping[str, float] = field(default_factory=dict)
    started_ns: int | None = None


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
    page: Reads | None = None  # of a target's metrics page, where one is read

    @property
    def in_motion(self) -> bool:
        """Whether a replica is on its way up or down, or is yet to be."""
        return bool(self.starting or self.stopping or self.target not in (None, self.available))


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
        self._page: Page | None = None
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
        began = seen.t_ns
        for replica in present.values():
            t_ns = self._since(replica, seen) if replica.replica not in self._states else seen.t_ns
            began = min(began, t_ns)
            self._moved(t_ns, replica.replica, replica.node, replica.state)
        for gone in [r for r, s in self._states.items() if r not in present and s != ReplicaState.STOPPED]:
            self._moved(seen.t_ns, gone, self._nodes_of.get(gone), ReplicaState.STOPPED)
        self._target_seen(seen, began)
        count = [0, 0, 0]
        order = (ReplicaState.STARTING, ReplicaState.RUNNING, ReplicaState.STOPPING)
        for replica in present.values():
            if replica.state in order:
                count[order.index(replica.state)] += 1
        waiting, serving = self._load(seen, count[1])
        self.now = Now(waiting, serving, seen.target, count[0], count[1], count[2])
        self._present = seen

    def page_read(self, page: Page) -> None:
        """A target's metrics page: its engines stand for replicas that are available, running requests for
        serving. A figure that an engine does not tell is not known in sum either."""

        def total(figures: Sequence[float | None]) -> float | None:
            known = [f for f in figures if f is not None]
            return sum(known) if len(known) == len(figures) else None

        self._page = page
        waiting, serving = ([e.waiting for e in page.engines], [e.running for e in page.engines])
        self.now = Now(total(waiting), total(serving), available=len(page.engines))

    def page_lost(self) -> None:
        """The page could not be read, or not in time: nothing is known until it is read again."""
        self._page, self.now = None, Now()

    def sample(self, t_ns: int) -> None:
        """One row of `timeline`, and one of `replicas` for each replica there is."""
        if self._page is not None and not 0 <= t_ns - self._page.t_ns <= FRESH_NS:
            self.page_lost()
        now, counted = self.now, self._present is not None
        known = now.waiting is not None and now.serving is not None and now.available > 0
        depth = (now.waiting + now.serving) / now.available if known else None  # type: ignore[operator]
        self._rows[Timeline].append(
            {
                Timeline.t_ns: t_ns,
                Timeline.waiting: now.waiting,
                Timeline.serving: now.serving,
                Timeline.queue_depth: depth,
                Timeline.replicas_target: now.target,
                Timeline.replicas_starting: now.starting if counted else None,
                Timeline.replicas_available: now.available if counted or self._page else None,
                Timeline.replicas_stopping: now.stopping if counted else None,
                Timeline.nodes: self.nodes,
                Timeline.in_flight: self.in_flight,
            }
        )
        for engine in self._page.engines if self._page else ():
            self._rows[Replicas].append(_row_of(engine, t_ns))
        for replica in self._present.replicas if self._present else ():
            running = replica.state == ReplicaState.RUNNING
            figures = replica.engine or (self._engine.get(replica.replica, {}) if running else {})
            self._rows[Replicas].append(
                {
                    Replicas.t_ns: t_ns,
                    Replicas.replica: replica.replica,
                    Replicas.node: replica.node,
                    Replicas.state: str(replica.state),
                    Replicas.engine_waiting: figures.get(Replicas.engine_waiting),
                    Replicas.engine_running: figures.get(Replicas.engine_running),
                    Replicas.kv_cache_usage: figures.get(Replicas.kv_cache_usage),
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

    def _since(self, replica: ReplicaSeen, seen: Seen) -> int:
        """When a replica that is new began to start: as Serve says, but within the time since the last poll,
        in which it did (Serve tells by the wall clock, and maybe another host's)."""
        if replica.started_ns is None or self._present is None or replica.state != ReplicaState.STARTING:
            return seen.t_ns
        return min(max(replica.started_ns, self._present.t_ns), seen.t_ns)

    def _target_seen(self, seen: Seen, began_ns: int) -> None:
        """`began_ns`: when the first replica came that this poll is the first to see, else the poll's own
        instant; a target that nobody decided had changed by then."""
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
        rose = seen.target > known
        self._unexplained = (began_ns if rose else seen.t_ns, known, seen.target, available)

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


def _row_of(engine: Engine, t_ns: int) -> dict[str, Any]:
    """An engine of a target's metrics page as a row of `replicas`."""
    return {
        Replicas.t_ns: t_ns,
        Replicas.replica: engine.name,
        Replicas.node: None,
        Replicas.state: str(ReplicaState.RUNNING),
        Replicas.engine_waiting: engine.waiting,
        Replicas.engine_running: engine.running,
        Replicas.kv_cache_usage: engine.kv_cache,
    }

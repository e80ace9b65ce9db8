"""The timekeeper: what Serve and the policy tell becomes rows, told as stories in time."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from raybench.fleet.timekeeper import GRACE_NS, ReplicaSeen, Sample, Seen, Timekeeper
from raybench.schema import EventKind, Events, Replicas, ReplicaState, Table, Timeline

S = 1_000_000_000


class Memory:
    """A sink that keeps rows."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None:
        assert batch.schema.equals(table.schema)
        batch.validate(full=True)
        self.rows.setdefault(table.name, []).extend(batch.to_pylist())

    def close(self) -> None: ...

    def events(self, kind: EventKind) -> list[dict[str, Any]]:
        return [
            r | {"detail": json.loads(r[Events.detail])}
            for r in self.rows.get(Events.name, [])
            if r[Events.kind] == kind
        ]


def keeper() -> tuple[Timekeeper, Memory]:
    memory = Memory()
    return Timekeeper(memory, "llm"), memory


def seen(t_s: float, target: int | None, *states: ReplicaState, total: float | None = None) -> Seen:
    return Seen(int(t_s * S), target, [ReplicaSeen(f"r{i}", "n", s) for i, s in enumerate(states)], total)


def tick(
    t_s: float, before: int, after: int, *, waiting: float = 0, serving: float = 0, available: int = 1
) -> Sample:
    return Sample(int(t_s * S), waiting, serving, available, before, after, "because", 5.0, "queue_depth")


def test_from_zero_is_an_event_of_the_host_since_no_policy_decided_it() -> None:
    k, memory = keeper()
    k.start(0)
    k.seen(seen(1.0, 0))
    k.seen(seen(2.0, 1, ReplicaState.STARTING, total=1))
    k.seen(seen(2.1 + GRACE_NS / S, 1, ReplicaState.STARTING, total=1))
    k.flush()
    (event,) = memory.events(EventKind.TARGET_CHANGED)
    assert event[Events.t_ns] == 2 * S
    assert event["detail"] == {"from": 0, "to": 1, "reason": "from_zero"}
    assert not memory.events(EventKind.DECISION)


@pytest.mark.parametrize("decision_first", [True, False])
def test_a_decision_explains_the_change_whichever_is_told_first(decision_first: bool) -> None:
    k, memory = keeper()
    k.start(0)
    k.seen(seen(1.0, 1, ReplicaState.RUNNING))
    told = [
        lambda: k.observed(tick(2.0, 1, 2, waiting=4, serving=2)),
        lambda: k.seen(seen(2.2, 2, ReplicaState.RUNNING)),
    ]
    for tell in told if decision_first else reversed(told):
        tell()
    k.seen(seen(9.0, 2, ReplicaState.RUNNING, ReplicaState.RUNNING))
    k.flush()
    (event,) = memory.events(EventKind.DECISION)
    assert event["detail"]["queue_depth"] == 6
    assert event["detail"]["window_s"] == 5.0
    assert set(event["detail"]) == set(EventKind.DECISION.detail_keys)
    assert not memory.events(EventKind.TARGET_CHANGED)


def test_each_change_of_a_replica_is_one_event_and_one_that_vanishes_has_stopped() -> None:
    k, memory = keeper()
    k.start(0)
    for t, state in enumerate(
        [ReplicaState.STARTING, ReplicaState.STARTING, ReplicaState.RUNNING, ReplicaState.STOPPING]
    ):
        k.seen(seen(float(t), 1, state))
    k.seen(seen(5.0, 0))
    k.seen(seen(6.0, 0))
    k.flush()
    moves = [(e["detail"]["previous"], e["detail"]["state"]) for e in memory.events(EventKind.REPLICA_STATE)]
    assert moves == [
        (None, "starting"),
        ("starting", "running"),
        ("running", "stopping"),
        ("stopping", "stopped"),
    ]


def test_while_nothing_is_available_everything_counted_is_waiting_and_depth_is_null() -> None:
    k, memory = keeper()
    k.start(0)
    k.seen(seen(1.0, 1, ReplicaState.STARTING, total=7))
    k.sample(1 * S)
    k.observed(tick(2.0, 1, 1, waiting=5, serving=2))
    k.seen(seen(2.0, 1, ReplicaState.RUNNING, total=7))
    k.sample(2 * S)
    k.flush()
    cold, warm = memory.rows[Timeline.name]
    assert (cold[Timeline.waiting], cold[Timeline.serving], cold[Timeline.queue_depth]) == (7, 0, None)
    assert (warm[Timeline.waiting], warm[Timeline.serving], warm[Timeline.queue_depth]) == (5, 2, 7)
    assert cold[Timeline.replicas_starting] == 1 and warm[Timeline.replicas_available] == 1


def test_a_stale_sample_of_the_policy_is_not_taken_for_the_present() -> None:
    k, memory = keeper()
    k.start(0)
    k.observed(tick(1.0, 1, 1, waiting=5, serving=2))
    k.seen(seen(60.0, 1, ReplicaState.RUNNING, total=3))
    k.sample(60 * S)
    k.flush()
    assert memory.rows[Timeline.name][0][Timeline.waiting] is None


def test_rows_from_before_t0_wait_and_get_negative_instants() -> None:
    k, memory = keeper()
    k.event(1 * S, EventKind.RUN_STARTED, "demo")
    k.sample(2 * S)
    k.flush()
    assert memory.rows == {}
    k.start(10 * S)
    k.flush()
    assert memory.rows[Events.name][0][Events.t_ns] == -9 * S
    assert memory.rows[Timeline.name][0][Timeline.t_ns] == -8 * S


def test_what_an_engine_exports_reaches_the_replicas_table() -> None:
    k, memory = keeper()
    k.start(0)
    stats = {"engine_waiting": 3.0, "engine_running": 2.0, "kv_cache_usage": 0.5}
    k.observed(Sample(S, 0, 2, 1, 1, 1, "", 5.0, "queue_depth", engine={"r0": stats}))
    k.observed(tick(1.1, 1, 1, serving=2))  # most ticks carry none: the last told still stands
    k.seen(seen(1.2, 1, ReplicaState.RUNNING))
    k.sample(S)
    k.flush()
    (row,) = memory.rows[Replicas.name]
    assert {name: row[name] for name in stats} == stats


def test_serves_own_count_is_asked_for_only_while_the_policy_tells_nothing() -> None:
    k, _ = keeper()
    assert k.is_in_the_dark(0)
    k.observed(tick(1.0, 1, 1, serving=1))
    k.seen(seen(1.0, 1, ReplicaState.RUNNING))
    assert not k.is_in_the_dark(1 * S)
    assert k.is_in_the_dark(60 * S), "the policy has fallen silent"
    k.seen(seen(1.1, 1, ReplicaState.STARTING))
    assert k.is_in_the_dark(1 * S), "nothing available: Serve does not ask the policy"

"""What a run says of its scaling against Serve's own controller, by the log that the controller keeps.

One run on one private cluster: from zero to one and to two, and back. Both clocks are this host's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raybench.analysis import Question, Summary, summarise
from raybench.analysis.figures import Chain
from raybench.fleet.conductor import Conductor
from raybench.fleet.monitor import Beat
from raybench.fleet.output import Output
from raybench.fleet.timekeeper import GRACE_NS, Now, ReplicaSeen, Seen, Timekeeper
from raybench.rundir import Run, open_run
from raybench.scenario import load
from raybench.schema import EventKind, Events, ReplicaState, RunStatus, Table

WITHIN_S = 0.2

SCENARIO = {
    "name": "steps",
    "deployment": {
        "engine": "emulated",
        "model": "m",
        "slots_per_replica": 1,
        "emulated": {"startup": "1s", "output_tokens": {"distribution": "fixed", "mean": 32}},
        "autoscaling": {
            "policy": "queue_depth",
            "scale_up_queue_depth": 2,
            "scale_down_queue_depth": 0,
            "autoscaling_window": "1s",
            "min_replicas": 0,
            "max_replicas": 2,
        },
    },
    "load": {
        "stages": [{"duration": "6s", "arrival": {"process": "constant", "rate": "3/s"}}],
        "request": {"prompt": "x", "max_tokens": 32},
        "settle": {"at_most": "30s"},
    },
}


@dataclass(frozen=True)
class Line:
    """One line of the controller's log about the application; `t_s` after the run's t0."""

    t_s: float
    text: str


Told = tuple[Run, Summary, list[Line]]


@pytest.fixture(scope="module")
def told(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    import ray

    directory = tmp_path_factory.mktemp("steps")
    path = directory / "scenario.yaml"
    path.write_text(yaml.safe_dump(SCENARIO))
    conductor = Conductor(load(path), Output(directory / "run"))
    conductor.run()
    assert conductor.manifest.status is RunStatus.COMPLETE
    found = open_run(directory / "run")
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    t0_s = (found.manifest.t0_unix_ns or 0) / 1e9
    lines = []
    for log in (session / "logs" / "serve").glob("controller_*.log"):
        lines += [line for text in log.read_text().splitlines() if (line := _line(text, t0_s))]
    yield found, summarise(found, Question()), lines


def _line(text: str, t0_s: float) -> Line | None:
    """`INFO 2026-11-22 23:53:01,726 controller 6007 -- …`, local time."""
    found = re.match(r"\w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) controller \d+ -- (.*)", text)
    if not found:
        return None
    at = time.mktime(time.strptime(found[1], "%Y-%m-%d %H:%M:%S")) + int(found[2]) / 1e3
    return Line(at - t0_s, found[3])


def logged(lines: list[Line], pattern: str) -> list[Line]:
    return [line for line in lines if re.search(pattern, line.text)]


def instants(chain: Chain) -> dict[str, float]:
    return {link.name: link.at_s for link in chain.links if link.at_s is not None}


def test_every_change_of_the_target_is_where_the_controller_logged_it(
    told: Told,
) -> None:
    _, summary, lines = told
    assert summary.scaling is not None
    changes = [
        (line.t_s, *map(int, re.findall(r"from (\d+) to (\d+) replicas", line.text)[0]))
        for line in logged(lines, r"(Up|Down)scaling Deployment\(name='raybench-engine'.*from \d")
    ]
    decided = [(s.t_s, s.from_replicas, s.to_replicas) for s in summary.scaling.steps]
    assert [c[1:] for c in changes] == [d[1:] for d in decided] == [(0, 1), (1, 2), (2, 1), (1, 0)]
    for (at, *_), (seen, *_) in zip(changes, decided, strict=True):
        assert abs(seen - at) <= WITHIN_S, (changes, decided)


def test_each_chain_upwards_has_its_replica_starting_and_ready_where_the_controller_logged_them(
    told: Told,
) -> None:
    _, summary, lines = told
    assert summary.scaling is not None
    upwards = [chain for chain in summary.scaling.chains if chain.up]
    assert len(upwards) == 2
    for chain in upwards:
        (replica,) = chain.replicas
        (starting,) = logged(lines, rf"Starting Replica\(id='{replica}'")
        (ready,) = logged(lines, rf"Replica\(id='{replica}'.* started successfully")
        found = instants(chain)
        assert abs(found["replica starting"] - starting.t_s) <= WITHIN_S, (starting, found)
        assert abs(found["ready"] - ready.t_s) <= WITHIN_S, (ready, found)
        assert chain.total_s == pytest.approx(sum(x.took_s or 0.0 for x in chain.links), abs=1e-6)


def test_each_chain_downwards_has_its_replica_stopping_and_gone_where_the_controller_logged_them(
    told: Told,
) -> None:
    _, summary, lines = told
    assert summary.scaling is not None
    downwards = [chain for chain in summary.scaling.chains if not chain.up]
    assert len(downwards) == 2
    for chain in downwards:
        (replica,) = chain.replicas
        (stopping,) = logged(lines, rf"Stopping Replica\(id='{replica}'")
        (stopped,) = logged(lines, rf"Replica\(id='{replica}'.* is stopped")
        found = instants(chain)
        assert abs(found["replica stopping"] - stopping.t_s) <= WITHIN_S, (stopping, found)
        assert abs(found["stopped"] - stopped.t_s) <= WITHIN_S, (stopped, found)


# --- the same without a cluster: how a poll's instants are placed ------------------------------------------

S = 1_000_000_000


class Rows:
    """A sink that keeps the events."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None:
        if table is Events:
            self.events += batch.to_pylist()

    def close(self) -> None: ...

    def at(self, kind: EventKind) -> list[int]:
        return [row[Events.t_ns] for row in self.events if row[Events.kind] == kind]


@given(
    before=st.integers(1, 10 * S),
    apart=st.integers(1, S),
    started=st.one_of(st.none(), st.integers(-S, 20 * S)),
)
def test_a_start_is_where_serve_says_but_between_the_polls_that_saw_it(
    before: int, apart: int, started: int | None
) -> None:
    """Serve tells by the wall clock, maybe another host's: it is believed as far as the polls allow. Nobody
    decided the target, so it had changed by then too."""
    rows = Rows()
    keeper = Timekeeper(rows, "d")
    keeper.start(0)
    keeper.seen(Seen(before, 0, []))
    new = ReplicaSeen("r", None, ReplicaState.STARTING, started_ns=started)
    keeper.seen(Seen(before + apart, 1, [new], 1.0))
    keeper.seen(Seen(before + apart + 2 * GRACE_NS, 1, [new], 1.0))
    keeper.flush()
    expected = before + apart if started is None else min(max(started, before), before + apart)
    assert rows.at(EventKind.REPLICA_STATE) == rows.at(EventKind.TARGET_CHANGED) == [expected]


def test_a_replica_that_was_there_before_the_first_poll_is_as_old_as_that() -> None:
    rows = Rows()
    keeper = Timekeeper(rows, "d")
    keeper.start(0)
    keeper.seen(Seen(5 * S, 1, [ReplicaSeen("r", None, ReplicaState.STARTING, started_ns=S)]))
    keeper.flush()
    assert rows.at(EventKind.REPLICA_STATE) == [5 * S]


def test_motion_is_a_replica_on_its_way_or_one_yet_to_be() -> None:
    assert not Now(target=2, available=2).in_motion
    assert not Now(available=3).in_motion, "engines of a page, whose target nobody knows"
    assert Now(target=2, available=1).in_motion
    assert Now(target=2, starting=1, available=2).in_motion
    assert Now(target=2, stopping=1, available=2).in_motion


def test_a_beat_that_hurries_is_due_within_its_new_period_and_keeps_to_it() -> None:
    beat = Beat(1.0, 0.0)
    assert beat.due(0.0)
    beat.pace(0.1, 0.05)
    told = [t / 100 for t in range(5, 60) if beat.due(t / 100)]
    assert told[0] <= 0.16 and max(b - a for a, b in pairwise(told)) <= 0.11
    beat.pace(1.0, 0.6)
    assert beat.next_s <= 0.7, "it is not put off by having more time afterwards"

"""Whole runs on one Ray, against targets that are already there: good, bad and hostile ones."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers.hostile import HostileServer

from raybench.analysis import Question, summarise
from raybench.fleet.conductor import Conductor, Snapshot
from raybench.fleet.output import Output
from raybench.rundir import Run, open_run
from raybench.scenario import load
from raybench.schema import EventKind, Events, Generators, Manifest, Requests, RunStatus, Schedule, Timeline

pytestmark = pytest.mark.usefixtures("ray_cluster")


def scenario(tmp_path: Path, url: str | list[str], **load_keys: Any) -> Path:
    """A second of constant load at 20/s, so rows 0 to 19, unless the keys say otherwise."""
    keys: dict[str, Any] = {
        "stages": [{"duration": "1s", "arrival": {"process": "constant", "rate": "20/s"}}],
        "request": {"prompt": "x", "max_tokens": 8, "timeout": "1s"},
    } | load_keys
    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump({"name": "t", "target": {"url": url, "model": "m"}, "load": keys}))
    return path


def run(
    path: Path, where: Path, watch: Callable[[Conductor, Snapshot], None] | None = None
) -> tuple[Run, Manifest]:
    conductor = Conductor(load(path), Output(where))
    if watch:
        conductor.watch(lambda snapshot: watch(conductor, snapshot))
    conductor.run()
    return open_run(where), conductor.manifest


def rows(found: Run, *columns: str) -> list[dict[str, Any]]:
    wanted = list(columns) or list(Requests.columns)
    return [row for batch in found.batches(Requests, wanted) for row in batch.to_pylist()]


@pytest.fixture(scope="module")
def server() -> Any:
    with HostileServer() as running:
        yield running


BAD = {
    "good": "ok",
    "status_500": "http_error",
    "cut_mid_stream": "stream_cut",
    "never_answers": "timeout",
    "garbage": "protocol_error",
}


def test_every_request_has_the_outcome_that_its_target_earns(server: HostileServer, tmp_path: Path) -> None:
    """Five targets in turn, so that row i meets the behaviour i mod 5."""
    started = time.monotonic()
    path = scenario(tmp_path, [server.url(name) for name in BAD])
    found, manifest = run(path, tmp_path / "run")
    written = rows(found)
    expected = {i: list(BAD.values())[i % 5] for i in range(20)}
    assert {r[Requests.request_id]: str(r[Requests.outcome]) for r in written} == expected
    assert len(written) == 20
    for row in written:
        assert (row[Requests.error] is None) == (row[Requests.outcome] == "ok"), row
    assert manifest.counts == dict.fromkeys(BAD.values(), 4)
    assert (manifest.status, found.manifest.status) == (RunStatus.COMPLETE, RunStatus.COMPLETE)
    assert summarise(found, Question()).success_rate == 0.2
    assert time.monotonic() - started < 120, "the run ends although a target does not"


def test_the_manifest_and_the_tables_say_what_was_run(server: HostileServer, tmp_path: Path) -> None:
    found, manifest = run(scenario(tmp_path, server.url("good"), generators=2), tmp_path / "run")
    assert found.manifest.schedule_sha256 == manifest.schedule_sha256
    assert found.manifest.planned == 20 and found.manifest.generators == 2
    assert {h.number for h in found.manifest.hosts} == {0, 1}
    assert all(s.offset_ns == 0 and s.uncertainty_ns == 0 for h in found.manifest.hosts for s in h.clock)
    planned = {
        r[Schedule.request_id]: r[Schedule.scheduled_ns]
        for b in found.batches(Schedule, [Schedule.request_id, Schedule.scheduled_ns])
        for r in b.to_pylist()
    }
    written = rows(found)
    assert {r[Requests.generator] for r in written} == {0, 1}
    for row in written:
        assert row[Requests.request_id] % 2 == row[Requests.generator]
        assert row[Requests.anchor_ns] == planned[row[Requests.request_id]]
        assert row[Requests.anchor_ns] <= row[Requests.sent_ns] <= row[Requests.done_ns]
    kinds = [r[Events.kind] for b in found.batches(Events, [Events.kind]) for r in b.to_pylist()]
    expected = [EventKind.RUN_STARTED, EventKind.LOAD_STARTED, EventKind.LOAD_ENDED, EventKind.RUN_ENDED]
    assert kinds == expected
    assert sum(b.num_rows for b in found.batches(Generators, [Generators.t_ns])) >= 2
    assert sum(b.num_rows for b in found.batches(Timeline, [Timeline.t_ns])) >= 1


def test_interrupted_once_it_ends_cleanly_with_every_row_accounted_for(
    server: HostileServer, tmp_path: Path
) -> None:
    stages = [{"duration": "1h", "arrival": {"process": "constant", "rate": "20/s"}}]
    path = scenario(tmp_path, server.url("never_answers"), stages=stages)
    path.write_text(path.read_text().replace("timeout: 1s", "timeout: 100s"))

    def stop(conductor: Conductor, snapshot: Snapshot) -> None:
        if snapshot.sent >= 10:
            conductor.interrupt()

    found, manifest = run(path, tmp_path / "run", stop)
    assert manifest.status == found.manifest.status == RunStatus.INTERRUPTED
    assert manifest.exit_code == 5
    counts = Counter(str(o) for o in (r[Requests.outcome] for r in rows(found, Requests.outcome)))
    assert set(counts) == {"cancelled", "not_sent"}
    assert counts["cancelled"] >= 10
    assert sum(counts.values()) == manifest.planned == 72_000


def test_a_generator_that_is_killed_is_replaced_and_its_gap_is_missing(
    server: HostileServer, tmp_path: Path
) -> None:
    stages = [{"duration": "16s", "arrival": {"process": "constant", "rate": "20/s"}}]
    killed: list[int] = []

    def kill(conductor: Conductor, snapshot: Snapshot) -> None:
        if snapshot.sent >= 40 and not killed:
            killed.append(next(h.pid for h in conductor.manifest.hosts if h.number == 0))
            os.kill(killed[0], signal.SIGKILL)

    path = scenario(tmp_path, server.url("good"), stages=stages, generators=2)
    found, manifest = run(path, tmp_path / "run", kill)
    written = rows(found, Requests.request_id, Requests.generator, Requests.anchor_ns, Requests.outcome)
    ids = [r[Requests.request_id] for r in written]
    assert killed and len(set(ids)) == len(ids), "no row is sent twice"
    other = [r for r in written if r[Requests.generator] == 1]
    assert len(other) == 160, "the other generator never noticed"
    own = sorted(r[Requests.request_id] for r in written if r[Requests.generator] == 0)
    assert 0 < 160 - len(own) < 160
    assert own[-1] == 318, "the replacement goes on to the end"
    assert any("generator 0 was lost" in p for p in manifest.problems)
    lost = [
        r
        for b in found.batches(Events, list(Events.columns))
        for r in b.to_pylist()
        if r[Events.kind] == EventKind.GENERATOR_LOST
    ]
    assert [r[Events.subject] for r in lost] == ["0"]
    assert manifest.status is RunStatus.COMPLETE


def test_a_run_that_is_going_reads_like_any_other(server: HostileServer, tmp_path: Path) -> None:
    stages = [{"duration": "6s", "arrival": {"process": "constant", "rate": "20/s"}}]
    seen: list[tuple[RunStatus, int]] = []

    def look(conductor: Conductor, snapshot: Snapshot) -> None:
        if snapshot.stage == "load" and snapshot.t_s > 3:
            going = open_run(tmp_path / "run")
            seen.append((going.manifest.status, len(rows(going, Requests.request_id))))

    run(scenario(tmp_path, server.url("good"), stages=stages), tmp_path / "run", look)
    assert seen and seen[-1][0] is RunStatus.RUNNING
    assert 20 <= seen[-1][1] <= 120


def test_a_deployment_that_cannot_be_made_fails_the_run_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    deployment = {"engine": "emulated", "model": "m", "replica": {"cpus": 4000, "reserve": True}}
    stage = {"duration": "1s", "arrival": {"process": "constant", "rate": "1/s"}}
    path.write_text(
        yaml.safe_dump(
            {"name": "t", "deployment": deployment, "load": {"stages": [stage], "request": {"prompt": "x"}}}
        )
    )
    conductor = Conductor(load(path), Output(tmp_path / "run"))
    with pytest.raises(Exception, match="CPU"):
        conductor.run()
    found = open_run(tmp_path / "run").manifest
    assert found.status is RunStatus.FAILED and found.exit_code == 1
    assert any("CPU" in problem for problem in found.problems)


def test_the_heartbeat_beats_while_nothing_else_happens(server: HostileServer, tmp_path: Path) -> None:
    beats: set[int] = set()
    done = threading.Event()

    def read() -> None:
        while not done.wait(0.3):
            if (tmp_path / "run" / "manifest.json").exists():
                beats.add(open_run(tmp_path / "run").manifest.heartbeat_unix_ns)

    stages = [{"duration": "4s", "arrival": {"process": "constant", "interval": "4s"}}]
    path = scenario(tmp_path, server.url("never_answers"), stages=stages)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        run(path, tmp_path / "run")
    finally:
        done.set()
        reader.join()
    assert len(beats) >= 3

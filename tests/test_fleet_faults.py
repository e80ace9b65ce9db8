"""What runs leave behind when disks fill up, and when processes are killed in the middle of the load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import runs
import yaml
from click.testing import CliRunner
from conftest import start_ray

from raybench.analysis import Question, summarise
from raybench.cli.main import main
from raybench.fleet import crew
from raybench.fleet.conductor import Conductor, Snapshot
from raybench.fleet.output import Output
from raybench.fleet.shipping import ShippedSink
from raybench.generator.selftest import Answer, null_server
from raybench.report import render
from raybench.rundir import Run, open_run, remote
from raybench.scenario import load
from raybench.schema import EventKind, Events, Exit, Generators, Requests, RunStatus, Timeline

RATE = 40


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """While the file at this path exists, no worker of the cluster can write a table: its disk is full."""
    flag = Path(tempfile.mkdtemp(prefix="rb", dir="/tmp")) / "full"
    yield flag
    flag.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def cluster(disk: Path) -> Iterator[str]:
    place = str(disk)

    def install() -> None:  # in every worker, pickled by value
        import errno
        import os

        from raybench.rundir import segments

        real = segments.write_some

        def write_some(file: Any, data: memoryview) -> int:
            if os.path.exists(place):  # noqa: PTH110
                if len(data) > 100:  # a disk fills up within a write, not between two
                    real(file, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(file, data)

        segments.write_some = write_some

    directory = tempfile.mkdtemp(prefix="rb", dir="/tmp")
    try:
        yield start_ray(directory, runtime_env={"worker_process_setup_hook": install})
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with null_server(Answer(tokens=4)) as (address, _):
        yield address


def scenario(tmp_path: Path, url: str, seconds: int, generators: int = 1) -> Path:
    stage = {"duration": f"{seconds}s", "arrival": {"process": "constant", "rate": f"{RATE}/s"}}
    keys = {
        "stages": [stage],
        "request": {"prompt": "x", "max_tokens": 4, "timeout": "5s"},
        "generators": generators,
        "record_chunks": False,
    }
    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump({"name": "t", "target": {"url": url, "model": "m"}, "load": keys}))
    return path


def run(path: Path, where: Path, watch: Callable[[Conductor, Snapshot], None]) -> tuple[Run, Conductor]:
    conductor = Conductor(load(path), Output(where))
    conductor.watch(lambda snapshot: watch(conductor, snapshot))
    conductor.run()
    return open_run(where), conductor


def column(found: Run, table: Any, name: str) -> list[Any]:
    return [value for batch in found.batches(table, [name]) for value in batch.column(0).to_pylist()]


def ids(found: Run) -> list[int]:
    return sorted(column(found, Requests, Requests.request_id))


def pid_of(where: Path, writer: str) -> int | None:
    """The process that wrote this writer's newest stream: it is in the file's name."""
    found = sorted(where.glob(f"*/{writer}[.-]*.arrows"), key=lambda p: p.stat().st_mtime_ns)
    return int(found[-1].name.split("-")[1]) if found else None


# --- disks ------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_for_a_while_is_said_at_once_and_costs_no_row(
    cluster: str, disk: Path, url: str, tmp_path: Path
) -> None:
    said: list[str] = []

    def fill(conductor: Conductor, s: Snapshot) -> None:
        if s.stage == "load" and s.t_s > 1.5 and not said:
            disk.touch()
        told = [p for p in s.problems if "No space left" in p]
        if {p.split(":")[0] for p in told} == {"generator 0", "monitor"}:
            said.extend(told)
            disk.unlink(missing_ok=True)

    try:
        found, _ = run(scenario(tmp_path, url, 8), tmp_path / "run", fill)
    finally:
        disk.unlink(missing_ok=True)
    assert said, "told while the load was going"
    assert ids(found) == list(range(8 * RATE))
    assert found.manifest.status is RunStatus.COMPLETE
    assert any("generator 0: requests could not be written" in p for p in found.manifest.problems)
    assert any("no row was given up" in p for p in found.manifest.problems)
    failed = [
        row
        for batch in found.batches(Events, list(Events.columns))
        for row in batch.to_pylist()
        if row[Events.kind] == EventKind.WRITE_FAILED
    ]
    assert {row[Events.subject] for row in failed} == {"generator 0", "monitor"}
    assert all("could not be written" in json.loads(row[Events.detail])["reason"] for row in failed)
    summary = summarise(found, Question())
    assert summary.accounting.balances and summary.accounting.outcomes["lost"] == 0
    assert "No space left" in render(summary, "text")
    assert any("not a whole batch" in p for p in found.problems), "the torn streams are still there"


def test_a_disk_that_stays_full_keeps_what_was_written_and_the_rest_is_lost(
    cluster: str, disk: Path, url: str, tmp_path: Path
) -> None:
    def fill(conductor: Conductor, s: Snapshot) -> None:
        if s.stage == "load" and s.sent >= 2 * RATE:
            disk.touch()

    try:
        found, _ = run(scenario(tmp_path, url, 5), tmp_path / "run", fill)
    finally:
        disk.unlink(missing_ok=True)
    accounting = summarise(found, Question()).accounting
    lost = accounting.outcomes["lost"]
    assert 0 < lost < 5 * RATE and lost == 5 * RATE - len(set(ids(found))) and accounting.balances
    assert found.manifest.status is RunStatus.COMPLETE
    assert any("rows were given up" in p for p in found.manifest.problems)
    assert summarise(found, Question()).exit_code is Exit.INVALID


def test_a_store_that_fails_is_said_while_the_run_goes_and_gets_everything_later(
    cluster: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    send = remote.Mirror._send

    def refuse(mirror: remote.Mirror, path: Path) -> None:
        if not said:
            raise OSError("503 Slow Down")
        send(mirror, path)

    monkeypatch.setattr(remote, "PERIOD_S", 0.5)
    monkeypatch.setattr(remote.Mirror, "_send", refuse)
    store = tmp_path / "store" / "run"
    conductor = Conductor(load(scenario(tmp_path, url, 6)), Output(tmp_path / "staging", store.as_uri()))
    conductor.watch(lambda s: said.extend(p for p in s.problems if "Slow Down" in p and s.stage == "load"))
    conductor.run()
    assert conductor.close(Exit.GOOD), "everything arrived"
    assert said and f"{store.as_uri()}: could not be written" in said[0]
    found = open_run(store)
    assert ids(found) == list(range(6 * RATE)) and found.manifest.exit_code == Exit.GOOD
    assert said[0] in found.manifest.problems
    assert EventKind.WRITE_FAILED in column(found, Events, Events.kind)


# --- kills ------------------------------------------------------------------------------------------


def test_a_monitor_that_is_killed_is_replaced_and_the_timeline_goes_on(
    cluster: str, url: str, tmp_path: Path
) -> None:
    where = tmp_path / "run"
    killed: list[tuple[int, float]] = []

    def kill(conductor: Conductor, s: Snapshot) -> None:
        if s.stage == "load" and s.t_s > 2.5 and not killed and (pid := pid_of(where, "monitor")):
            os.kill(pid, signal.SIGKILL)
            killed.append((pid, s.t_s))

    found, _ = run(scenario(tmp_path, url, 10), where, kill)
    assert ids(found) == list(range(10 * RATE)), "requests do not pass through the monitor here"
    assert any("monitor died" in p for p in found.manifest.problems)
    at_s = killed[0][1]
    instants = [t / 1e9 for t in column(found, Timeline, Timeline.t_ns)]
    assert min(instants) < at_s < at_s + 2 < max(instants)
    kinds = column(found, Events, Events.kind)
    assert EventKind.LOAD_STARTED in kinds and EventKind.RUN_ENDED in kinds
    assert pid_of(where, "monitor") != killed[0][0]


def test_shipped_rows_are_neither_lost_nor_doubled_when_the_monitor_is_replaced(
    cluster: str, tmp_path: Path
) -> None:
    path = runs.write(tmp_path / "run", [])
    monitor = crew.start_monitor(path, None)
    sink = ShippedSink(monitor, "g000")
    total = 40
    for number in range(total):
        if number == 20:
            os.kill(ray.get(monitor.who.remote()).pid, signal.SIGKILL)
            while not crew.is_gone(monitor):
                time.sleep(0.05)
            monitor = crew.start_monitor(path, None)
            sink.report_to(monitor)
        sink.write(Requests, runs.batch(Requests, [runs.ok(2 * number + i, anchor_s=0) for i in range(2)]))
        sink.write(Generators, runs.batch(Generators, [{Generators.t_ns: number}]))
    sink.close()
    assert crew.stop_monitor(monitor) == []
    found = open_run(path)
    assert ids(found) == list(range(2 * total))
    assert sorted(column(found, Generators, Generators.t_ns)) == list(range(total))


def started(scenario: Path, where: Path, *more: str) -> subprocess.Popen[bytes]:
    """`raybench run` as a process of its own, returned once it has written two seconds of load."""
    log = (where.parent / "log").open("wb")
    command = [sys.executable, "-m", "raybench", "run", str(scenario), "-o", str(where), *more]
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and process.poll() is None:
        if (where / "manifest.json").exists() and len(ids(open_run(where))) >= 2 * RATE:
            return process
        time.sleep(0.2)
    process.kill()
    raise AssertionError((where.parent / "log").read_text())


def check_killed(where: Path, before: list[int], planned: int) -> None:
    """As the run reads once its heartbeat is old: what was there is there, the rest is lost."""
    manifest = where / "manifest.json"
    text = json.loads(manifest.read_text())
    assert text["status"] == "running"
    text["heartbeat_unix_ns"] -= 60_000_000_000  # a minute passes
    text["created_unix_ns"] -= 60_000_000_000
    manifest.write_text(json.dumps(text))
    found = open_run(where)
    assert found.status is RunStatus.KILLED
    after = ids(found)
    assert set(before) <= set(after) and len(set(after)) == len(after)
    result = CliRunner().invoke(main, ["analyze", str(where), "--format", "json"])
    assert result.exit_code == Exit.INCOMPLETE, result.output
    accounting = json.loads(result.stdout)["accounting"]
    assert accounting["planned"] == planned and accounting["balances"]
    assert accounting["outcomes"]["ok"] == len(after)
    assert accounting["outcomes"]["lost"] == planned - len(after)


def test_a_coordinator_that_is_killed_leaves_a_run_and_no_generator(
    cluster: str, url: str, tmp_path: Path
) -> None:
    where = tmp_path / "run"
    process = started(scenario(tmp_path, url, 300, generators=2), where, "--address", cluster)
    pids = [pid_of(where, writer) for writer in ("g000", "g001", "monitor")]
    before = ids(open_run(where))
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(pid and psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(pid and psutil.pid_exists(pid) for pid in pids), "nobody goes on sending"
    check_killed(where, before, 300 * RATE)


def test_a_whole_cluster_that_is_killed_leaves_a_run(url: str, tmp_path: Path) -> None:
    where = tmp_path / "run"
    process = started(scenario(tmp_path, url, 300), where)
    everybody = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    before = ids(open_run(where))
    for one in everybody:
        one.kill()
    process.wait()
    psutil.wait_procs(everybody, timeout=20)
    check_killed(where, before, 300 * RATE)

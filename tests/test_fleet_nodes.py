"""Three simulated nodes, two of them with clocks of their own, one without sight of the run directory.

The server's log and the coordinator share the true clock, so what a run says can be held against it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_clock
import pytest
import yaml
from conftest import note_addresses_in
from fake_clock import Clock

from raybench.analysis import Question, summarise
from raybench.client.null_server import Answer
from raybench.fleet import conductor as conducting
from raybench.fleet import placement
from raybench.fleet.conductor import Conductor
from raybench.fleet.output import Output
from raybench.generator.selftest import null_server
from raybench.rundir import Run, open_run
from raybench.scenario import load
from raybench.schema import Generators, Host, Manifest, Requests, RunStatus, Schedule

SECOND = 1_000_000_000
REQUESTS, GENERATORS = 240, 2


@dataclass
class Done:
    """A run on the nodes, and the truth about it."""

    found: Run
    manifest: Manifest
    log: dict[int, list[int]]  # request_id -> true monotonic ns: received, then each write
    clocks: dict[str, Clock]  # boot id -> the clock of that node

    def rows(self) -> list[dict[str, Any]]:
        return [row for b in self.found.batches(Requests, list(Requests.columns)) for row in b.to_pylist()]


@pytest.fixture(scope="module")
def done() -> Iterator[Done]:
    import ray
    from ray.cluster_utils import Cluster

    directory = Path(tempfile.mkdtemp(prefix="rbn", dir="/tmp"))
    now_ns = time.monotonic_ns()
    clocks = [
        Clock("boot-far", 5 * SECOND, 120.0, now_ns, hides=str(directory / "run")),
        Clock("boot-behind", -(now_ns // 2), -80.0, now_ns),
    ]
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
        monkeypatch.setenv("XDG_CACHE_HOME", str(directory / "cache"))
        monkeypatch.setattr(conducting, "CLOCK_PERIOD_S", 1.0)
        # On one machine everything is on loopback; these generators are to be elsewhere nevertheless.
        monkeypatch.setattr(placement, "is_on_loopback", lambda scenario: False)
        note_addresses_in(directory, monkeypatch)
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,  # as heads often are
                "include_dashboard": False,
                "object_store_memory": 80 * 2**20,
                "temp_dir": str(directory / "r"),
            },
        )
        stack.callback(cluster.shutdown)
        for clock in clocks:
            cluster.add_node(
                num_cpus=2,
                resources={placement.RESOURCE: 1},
                object_store_memory=80 * 2**20,
                env_vars=clock.environment(),
            )
        stack.callback(ray.shutdown)
        ray.init(
            address=cluster.address,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={
                "worker_process_setup_hook": "fake_clock.install",
                "env_vars": {"PYTHONPATH": str(Path(fake_clock.__file__).parent)},
            },
        )
        yield _run(directory, {c.boot: c for c in clocks})


def _run(directory: Path, clocks: dict[str, Clock]) -> Done:
    """Four seconds at 60/s."""
    stage = {"duration": "4s", "arrival": {"process": "constant", "rate": "60/s"}}
    request = {"prompt": "x", "max_tokens": 4, "timeout": "10s"}
    with null_server(Answer(tokens=4, gap_s=0.02), log=True) as (url, _):
        keys = {"stages": [stage], "request": request, "generators": GENERATORS}
        text = yaml.safe_dump({"name": "t", "target": {"url": url, "model": "m"}, "load": keys})
        (directory / "s.yaml").write_text(text)
        conductor = Conductor(load(directory / "s.yaml"), Output(directory / "run"))
        manifest = conductor.run()
        with urllib.request.urlopen(f"{url}/log", timeout=10) as answered:
            # The header holds eight letters of the run before the request's own number.
            log = {int(name[8:]): stamps for name, stamps in json.load(answered).items()}
    return Done(open_run(directory / "run"), manifest, log, clocks)


def true_offset_ns(done: Done, host: Host, t_ns: int) -> int:
    assert done.manifest.t0_monotonic_ns is not None
    return done.clocks[host.boot_id].offset_at(done.manifest.t0_monotonic_ns + t_ns)


def test_generators_are_spread_over_the_nodes_that_declare_them(done: Done) -> None:
    assert done.manifest.status is RunStatus.COMPLETE, done.manifest.problems
    assert Counter(h.boot_id for h in done.manifest.hosts) == {"boot-far": 1, "boot-behind": 1}
    assert len({h.node for h in done.manifest.hosts}) == 2


def test_every_row_is_there_exactly_once_wherever_it_was_written(done: Done) -> None:
    ids = sorted(row[Requests.request_id] for row in done.rows())
    assert ids == list(range(REQUESTS)) == sorted(done.log)
    assert done.manifest.counts == {"ok": REQUESTS}
    summary = summarise(done.found, Question())
    assert summary.accounting.balances and summary.success_rate == 1.0
    assert not done.found.problems
    # Rows of the node that does not see the directory were written by the monitor, in its process.
    shipped = {h.writer: h.pid for h in done.manifest.hosts if h.boot_id == "boot-far"}
    for path in done.found.segments(Requests):
        writer, pid, _ = path.stem.rsplit("-", 2)
        assert (int(pid) == shipped.get(writer, int(pid))) == (writer not in shipped), path


def test_measured_offsets_are_right_within_their_uncertainty(done: Done) -> None:
    for host in done.manifest.hosts:
        assert len(host.clock) >= 4, "before, while it goes, and after"
        assert host.clock[0].t_ns < 0 and host.clock[-1].t_ns > 3 * SECOND
        for sample in host.clock:
            error_ns = abs(sample.offset_ns - true_offset_ns(done, host, sample.t_ns))
            assert error_ns <= sample.uncertainty_ns + 1


def test_the_merged_timeline_is_right_within_the_stated_uncertainty(done: Done) -> None:
    """By the true clock: sent before it arrived, arrived before the answer came."""
    t0_ns = done.manifest.t0_monotonic_ns
    assert t0_ns is not None
    host_of = {h.number: h for h in done.manifest.hosts}
    planned = {
        row[Schedule.request_id]: row[Schedule.scheduled_ns]
        for b in done.found.batches(Schedule, [Schedule.request_id, Schedule.scheduled_ns])
        for row in b.to_pylist()
    }
    for row in done.rows():
        number = row[Requests.request_id]
        uncertainty_ns = max(s.uncertainty_ns for s in host_of[row[Requests.generator]].clock)
        received, *written = (stamp - t0_ns for stamp in done.log[number])
        assert row[Requests.sent_ns] <= received + uncertainty_ns
        assert written[0] <= row[Requests.first_token_ns] + uncertainty_ns
        assert written[-1] <= row[Requests.last_token_ns] + uncertainty_ns
        assert row[Requests.anchor_ns] == planned[number], "the plan has no clock"
        # Started towards one t0 by offsets with an uncertainty: early or late by no more than that.
        assert row[Requests.sent_ns] >= planned[number] - 2 * uncertainty_ns


def test_generators_samples_are_on_the_one_clock_and_durations_are_left_alone(done: Done) -> None:
    columns = [Generators.t_ns, Generators.lateness_max_ns]
    samples = [row for b in done.found.batches(Generators, columns) for row in b.to_pylist()]
    assert len(samples) >= 6
    for sample in samples:
        assert -SECOND < sample[Generators.t_ns] < 30 * SECOND
        assert 0 <= (sample[Generators.lateness_max_ns] or 0) < 5 * SECOND


def test_the_stated_uncertainty_reaches_the_report(done: Done) -> None:
    worst_ns = max(s.uncertainty_ns for h in done.manifest.hosts for s in h.clock)
    summary = summarise(done.found, Question())
    assert summary.header.clock_uncertainty_s == worst_ns / 1e9
    assert any("clock uncertainty" in check for check in summary.verdict.checks)


def test_the_fake_clock_is_what_it_says() -> None:
    clock = Clock("b", 5 * SECOND, 100.0, 10 * SECOND)
    assert clock.offset_at(10 * SECOND) == 5 * SECOND
    assert clock.offset_at(20 * SECOND) == 5 * SECOND + 1_000_000
    for true_ns in (0, 10 * SECOND, 10**15):
        assert abs(clock.true_ns(true_ns + clock.offset_at(true_ns)) - true_ns) <= 1_000
    assert fake_clock.VARIABLE not in os.environ

"""A generator as a Ray actor: a thin shell around `generator.Drive`, which knows no Ray.

The actor's methods run in a few threads: one drives the slice and blocks in its event loop, the others
answer the coordinator. Nothing here is on the path of a request.
"""

from __future__ import annotations

import gc
import os
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from raybench import schedule as scheduling
from raybench.client import Endpoint
from raybench.fleet import clocks
from raybench.fleet.metrics import Counted
from raybench.fleet.patience import Patient
from raybench.fleet.shipping import ShippedSink
from raybench.generator import Drive, Progress, Sink, Slice
from raybench.generator.drive import rss_bytes
from raybench.rundir import LocalSink, Mapped, mapped, open_run
from raybench.scenario import Scenario
from raybench.schema import LoadKind, Schedule
from raybench.workload import Workload

THREADS = 6


def remaining(rows: pa.Table, now_ns: int, sent: int) -> pa.Table:
    """What is left to do at `now_ns` after t0 of a slice that its first generator cannot go on with."""
    if rows.column(Schedule.scheduled_ns).null_count:
        return rows.slice(sent)
    return rows.filter(pc.greater_equal(rows.column(Schedule.scheduled_ns), now_ns))


def on_disk(pieces: Callable[[], Iterable[pa.RecordBatch]]) -> Mapped:
    """A slice mapped from the temporary directory; in memory where there is no room for it."""
    try:
        return mapped(pieces(), Schedule.schema)
    except OSError:
        return Mapped(pa.Table.from_batches(pieces(), schema=Schedule.schema))


PRIORITY = -10


def _ahead_of_others() -> None:
    """Puts this process before its neighbours where the system allows it (root, or CAP_SYS_NICE): on cores
    that it shares with the server it needs a few percent, but needs them at its instants. Every thread: one
    left behind with the interpreter lock would hold up the event loop all the same.
    """
    with suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():  # Linux keeps a priority for each thread
            os.setpriority(os.PRIO_PROCESS, int(thread.name), PRIORITY)


@ray.remote(num_cpus=0.1, max_concurrency=THREADS, max_restarts=0)
class Generator:
    """Sends rows g, g+G, g+2G … of the schedule."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.writer = f"g{number:03d}.{uuid.uuid4().hex[:8]}"  # whoever takes its place has another
        self.drive: Drive | None = None
        self._plan = Mapped(Schedule.schema.empty_table())
        self._sink: Patient
        self._counted: Counted
        self._make: Callable[[Mapped], Drive]

    def who(self) -> clocks.Identity:
        return clocks.identity(ray.get_runtime_context().get_node_id(), self.writer)

    def clock_ns(self) -> int:
        return time.monotonic_ns()

    def prepare(
        self,
        scenario: dict[str, Any],
        generators: int,
        url: str | list[str],
        run_prefix: str,
        run_path: str | None,
        monitor: Any,
        api_key: str | None,
    ) -> int:
        """Builds everything that must not be built while sending; returns the rows of this slice.

        `run_path` is used where it is the run directory on this host too (the same host or a shared disk).
        Elsewhere the schedule is built again from the scenario rather than shipped (same scenario and seed,
        same columns), and rows travel to the monitor. `api_key` is used when this process's own environment
        has none.
        """
        checked = Scenario.model_validate(scenario)
        local = run_path is not None and (Path(run_path) / "manifest.json").exists()
        self._plan = self._part(checked, generators, run_path if local else None)
        workload = Workload(checked)
        headers: dict[str, str] = {}
        if checked.target is not None:
            headers = dict(checked.target.headers)
            if checked.target.api_key_env:
                api_key = os.environ.get(checked.target.api_key_env) or api_key
        urls = [url] if isinstance(url, str) else url
        endpoints = [Endpoint.parse(u, workload.path, headers, api_key) for u in urls]
        to: Sink = LocalSink(str(run_path), self.writer) if local else ShippedSink(monitor, self.writer)
        self._sink = Patient(to, f"generator {self.number}")
        self._counted = counted = Counted(self._sink)

        def of_mine(total: int | None) -> int | None:
            return None if total is None else scheduling.share(total, self.number, generators)

        def make(plan: Mapped) -> Drive:
            return Drive(
                Slice(
                    generator=self.number,
                    schedule=plan.table,
                    phases=scheduling.phases(checked, scheduling.planned_ns(plan.table)),
                    bodies=workload.body,
                    endpoints=endpoints,
                    timeout_s=checked.load.request.timeout,
                    load_kind=LoadKind(scheduling.load_kind(checked)),
                    max_in_flight=of_mine(checked.load.max_in_flight),
                    concurrency=of_mine(checked.load.concurrency),
                    load_end_ns=scheduling.duration_ns(checked),
                    record_chunks=checked.load.record_chunks,
                    run_prefix=run_prefix,
                    passed=plan.passed,
                ),
                counted,
            )

        self._make = make
        gc.collect()
        gc.freeze()  # so that the drive's own collection, after t0 was told, has next to nothing to look at
        return int(self._plan.table.num_rows)

    def _part(self, scenario: Scenario, generators: int, run_path: str | None) -> Mapped:
        """This slice, read from the run where that can be: a day's schedule as a whole is half a gigabyte."""
        if run_path is not None:
            run = open_run(run_path)
            names = Schedule.schema.names
            plan = on_disk(lambda: self._of_mine(run.batches(Schedule, names), generators))
            if not run.problems:
                return plan
        whole = scheduling.build(scenario)
        return on_disk(lambda: self._of_mine(whole.to_batches(), generators))

    def _of_mine(self, batches: Iterable[pa.RecordBatch], generators: int) -> Iterable[pa.RecordBatch]:
        return scheduling.part_of(batches, self.number, generators)

    def start(self, t0_ns: int, sent_before: int | None = None) -> Progress:
        """Sends the slice from `t0_ns` on this host's monotonic clock; returns when it is all accounted for.

        `sent_before` makes this a replacement: the rows whose instants have passed stay with the generator
        that died (a closed loop's rows have no instants: the first `sent_before` of them do).
        """
        plan = self._plan
        if sent_before is not None:
            left = remaining(plan.table, time.monotonic_ns() - t0_ns, sent_before)
            plan = on_disk(left.to_batches)
        self.drive = self._make(plan)
        _ahead_of_others()
        return self._with_mine(self.drive.run(t0_ns))

    def progress(self) -> Progress | None:
        return self._with_mine(self.drive.progress()) if self.drive else None

    def report_to(self, monitor: Any) -> None:
        """The monitor that has taken the place of one that died."""
        if isinstance(self._sink.sink, ShippedSink):
            self._sink.sink.report_to(monitor)

    def _with_mine(self, progress: Progress) -> Progress:
        return replace(
            progress,
            rss_bytes=rss_bytes(),
            not_written=tuple(self._sink.problems),
            counted=self._counted.totals(),
        )

    def stop(self) -> None:
        """Sends nothing more and gives up what is in flight; `start` then returns with everything written."""
        if self.drive:
            self.drive.stop(hard=True)

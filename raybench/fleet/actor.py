"""A generator as a Ray actor: a thin shell around `generator.Drive`, which knows no Ray.

The actor's methods run in a few threads: one drives the slice and blocks in its event loop, the others
answer the coordinator. Nothing here is on the path of a request.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from raybench import schedule as scheduling
from raybench.client import Endpoint
from raybench.fleet import clocks
from raybench.generator import Drive, Progress, Sink, Slice
from raybench.rundir import LocalSink
from raybench.scenario import Scenario
from raybench.schema import LoadKind, Schedule, Table
from raybench.workload import Workload

THREADS = 6


class ShippedSink:
    """For a generator on another host: batches travel to the monitor, which writes them into the run.

    At most `OUTSTANDING` batches are under way; beyond that `write` waits, and the generator's own
    buffer grows by a second's rows at a time.
    """

    OUTSTANDING = 4
    TIMEOUT_S = 30.0

    def __init__(self, monitor: Any, writer: str) -> None:
        self._monitor, self._writer = monitor, writer
        self._pending: list[Any] = []

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None:
        if len(self._pending) >= self.OUTSTANDING:
            done, self._pending = ray.wait(self._pending, num_returns=1, timeout=self.TIMEOUT_S)
            ray.get(done)  # raises what the writing side raised
            if not done:
                raise TimeoutError("the coordinator's host takes no more rows")
        self._pending.append(self._monitor.append.remote(self._writer, table.name, batch))

    def close(self) -> None:
        pending, self._pending = self._pending, []
        ray.get(pending, timeout=self.TIMEOUT_S)
        ray.get(self._monitor.close_writer.remote(self._writer), timeout=self.TIMEOUT_S)


def remaining(rows: pa.Table, now_ns: int, sent: int) -> pa.Table:
    """What is left to do at `now_ns` after t0 of a slice that its first generator cannot go on with."""
    if rows.column(Schedule.scheduled_ns).null_count:
        return rows.slice(sent)
    return rows.filter(pc.greater_equal(rows.column(Schedule.scheduled_ns), now_ns))


@ray.remote(num_cpus=0.1, max_concurrency=THREADS, max_restarts=0)
class Generator:
    """Sends rows g, g+G, g+2G … of the schedule."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.drive: Drive | None = None
        self._rows: pa.Table = Schedule.schema.empty_table()
        self._make: Callable[[pa.Table], Drive]

    def who(self) -> clocks.Identity:
        return clocks.identity(ray.get_runtime_context().get_node_id())

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

        The schedule is built again from the scenario rather than shipped: same scenario and seed, same
        columns. `run_path` is used where it is the run directory on this host too (the same host or a shared
        disk); elsewhere rows travel to the monitor. `api_key` is used when this process's own environment
        has none.
        """
        checked = Scenario.model_validate(scenario)
        self._rows = scheduling.part(scheduling.build(checked), self.number, generators)
        workload = Workload(checked)
        headers: dict[str, str] = {}
        if checked.target is not None:
            headers = dict(checked.target.headers)
            if checked.target.api_key_env:
                api_key = os.environ.get(checked.target.api_key_env) or api_key
        urls = [url] if isinstance(url, str) else url
        endpoints = [Endpoint.parse(u, workload.path, headers, api_key) for u in urls]
        writer = f"g{self.number:03d}"
        local = run_path is not None and (Path(run_path) / "manifest.json").exists()
        sink: Sink = LocalSink(str(run_path), writer) if local else ShippedSink(monitor, writer)

        def of_mine(total: int | None) -> int | None:
            return None if total is None else scheduling.share(total, self.number, generators)

        def make(rows: pa.Table) -> Drive:
            instants = pc.fill_null(rows.column(Schedule.scheduled_ns), 0).to_numpy()
            return Drive(
                Slice(
                    generator=self.number,
                    schedule=rows,
                    phases=scheduling.phases(checked, instants),
                    bodies=workload.body,
                    endpoints=endpoints,
                    timeout_s=checked.load.request.timeout,
                    load_kind=LoadKind(scheduling.load_kind(checked)),
                    max_in_flight=of_mine(checked.load.max_in_flight),
                    concurrency=of_mine(checked.load.concurrency),
                    load_end_ns=scheduling.duration_ns(checked),
                    record_chunks=checked.load.record_chunks,
                    run_prefix=run_prefix,
                ),
                sink,
            )

        self._make = make
        return int(self._rows.num_rows)

    def start(self, t0_ns: int, sent_before: int | None = None) -> Progress:
        """Sends the slice from `t0_ns` on this host's monotonic clock; returns when it is all accounted for.

        `sent_before` makes this a replacement: the rows whose instants have passed stay with the generator
        that died (a closed loop's rows have no instants: the first `sent_before` of them do).
        """
        rows = self._rows
        if sent_before is not None:
            rows = remaining(rows, time.monotonic_ns() - t0_ns, sent_before)
        self.drive = self._make(rows)
        return self.drive.run(t0_ns)

    def progress(self) -> Progress | None:
        return self.drive.progress() if self.drive else None

    def stop(self) -> None:
        """Sends nothing more and gives up what is in flight; `start` then returns with everything written."""
        if self.drive:
            self.drive.stop(hard=True)

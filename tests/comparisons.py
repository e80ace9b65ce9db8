"""Runs in memory for the tests of `raybench compare`: a source without files, and queues that remember."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import runs
from numpy.typing import NDArray

from raybench.schema import Manifest, Outcome, Requests, Schedule, Table

Row = dict[str, Any]

SCENARIO: dict[str, Any] = {
    "name": "made",
    "deployment": {"engine": "emulated", "model": "llama", "slots_per_replica": 4},
    "load": {"api": "chat", "request": {"prompt": "hello", "timeout": 300.0}, "stages": []},
    "objectives": {"ttft_p99": 2.0, "e2e_p95": 5.0, "success_rate": 0.9},
}


class Memory:
    """A source that holds its tables."""

    def __init__(self, manifest: Manifest, tables: Mapping[type[Table], pa.RecordBatch]) -> None:
        self.manifest, self._tables = manifest, tables

    def batches(self, table: type[Table], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if table in self._tables:
            yield self._tables[table].select(list(columns))


def source(requests: Sequence[Row], *, schedule: str = "a" * 64, **more: Any) -> Memory:
    plan = more.pop("plan", None) or runs.schedule_of(requests)
    tables = {Requests: runs.batch(Requests, requests), Schedule: runs.batch(Schedule, plan)}
    values = {"planned": len(plan), "schedule_sha256": schedule, "scenario": SCENARIO, "load_total_s": 1e4}
    return Memory(runs.manifest(**{**values, **more}), tables)


def queue(gaps: NDArray[np.float64], service: NDArray[np.float64]) -> list[Row]:
    """Requests through one server, one by one: each waits for the one before it."""
    rows, free_s, at_s = [], 0.0, 0.0
    for i, (gap, work) in enumerate(zip(gaps, service, strict=True)):
        at_s += gap
        begin_s = max(free_s, at_s)
        free_s = begin_s + work
        rows.append(runs.ok(i, anchor_s=at_s, first_s=begin_s + work / 10, done_s=free_s, tokens=10 + i % 5))
    return rows


def answers(e2e_s: Sequence[float], *, every_s: float = 1.0, tokens: int = 11) -> list[Row]:
    """Requests a second apart with these E2E times; the first token after a fifth of it."""
    return [
        runs.ok(i, anchor_s=i * every_s, first_s=i * every_s + e / 5, done_s=i * every_s + e, tokens=tokens)
        for i, e in enumerate(e2e_s)
    ]


def timed_out(row: Row, after_s: float = 300.0) -> Row:
    """The same request, given up without a first token."""
    return {
        **row,
        Requests.first_token_ns: None,
        Requests.last_token_ns: None,
        Requests.output_tokens: None,
        Requests.http_status: None,
        Requests.done_ns: row[Requests.sent_ns] + runs.ns(after_s),
        Requests.outcome: Outcome.TIMEOUT,
    }

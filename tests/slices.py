"""Small slices to drive, and a sink that remembers: what the generator's tests share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import uvloop

from raybench.client import Endpoint
from raybench.client.null_server import Answer, listen
from raybench.generator import Drive, Progress, Slice
from raybench.schema import Generators, LoadKind, Phase, Requests, Schedule, Table

BODY = b'{"model":"m","stream":true}'
MS = 1_000_000


class Memory:
    """A sink that validates and keeps every batch."""

    def __init__(self) -> None:
        self.batches: dict[type[Table], list[pa.RecordBatch]] = {Requests: [], Generators: []}
        self.closed = False
        self.threads: set[str] = set()

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None:
        batch.validate(full=True)
        assert batch.schema.equals(table.schema, check_metadata=True)
        self.threads.add(threading.current_thread().name)
        self.batches[table].append(batch)

    def close(self) -> None:
        self.closed = True

    def rows(self, table: type[Table] = Requests) -> list[dict[str, Any]]:
        found = pa.Table.from_batches(self.batches[table], table.schema).to_pylist()
        return sorted(found, key=lambda row: row.get(Requests.request_id, 0))


def schedule(
    scheduled_ns: Sequence[int | None] | None,
    *,
    rows: int = 0,
    ids: Sequence[int] | None = None,
    **columns: Any,
) -> pa.Table:
    """A schedule of these instants (None for a closed loop of `rows`), other columns as given or empty."""
    n = rows if scheduled_ns is None else len(scheduled_ns)
    given: dict[str, Any] = {
        Schedule.request_id: list(range(n)) if ids is None else ids,
        Schedule.scheduled_ns: scheduled_ns,
        Schedule.stage: [0] * n,
        Schedule.prompt_id: [0] * n,
        **columns,
    }
    arrays = [
        pa.nulls(n, field.type) if given.get(field.name) is None else pa.array(given[field.name], field.type)
        for field in Schedule.schema
    ]
    return pa.Table.from_arrays(arrays, schema=Schedule.schema)


def make_slice(urls: str | list[str], table: pa.Table, **changes: Any) -> Slice:
    values: dict[str, Any] = {
        "generator": 0,
        "schedule": table,
        "phases": np.full(table.num_rows, list(Phase).index(Phase.STEADY), np.int8),
        "bodies": lambda prompt, limit: BODY,
        "endpoints": [
            Endpoint.parse(url, "/v1/chat/completions") for url in ([urls] if isinstance(urls, str) else urls)
        ],
        "timeout_s": 10.0,
        "load_kind": LoadKind.OPEN,
    }
    return Slice(**(values | changes))


def drive(slice: Slice, lead_ms: float = 120.0) -> tuple[Progress, Memory]:
    """Drives the slice from `lead_ms` after now and returns its last word and what it wrote."""
    memory = Memory()
    progress = Drive(slice, memory).run(time.monotonic_ns() + int(lead_ms * MS))
    assert memory.closed
    return progress, memory


@contextmanager
def null_server(answer: Answer | None = None) -> Iterator[str]:
    """A null server on a thread of its own; yields its url."""
    loop = uvloop.new_event_loop()
    ready = threading.Event()
    port = 0

    def serve() -> None:
        nonlocal port
        server = loop.run_until_complete(listen(answer or Answer(tokens=4)))
        port = server.sockets[0].getsockname()[1]
        ready.set()
        loop.run_forever()
        server.close()
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)

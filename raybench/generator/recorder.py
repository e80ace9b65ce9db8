"""Rows of what happened, from the event loop to a sink, without holding the loop up.

On the loop a finished exchange is one `array.extend` of integers and one append of strings: about
1 µs, no Arrow. Once a period the arrays change hands whole, and a writer thread wraps them as record
batches: NumPy and Arrow work on the arrays' own memory, so the interpreter lock is held for
microseconds. Column names come from the schema, and each batch has exactly its columns.
"""

from __future__ import annotations

import threading
from array import array
from queue import SimpleQueue

import numpy as np
import pyarrow as pa

from raybench.client import Exchange
from raybench.generator.slice import Sink, Slice, values_of
from raybench.schema import Generators, LoadKind, Outcome, Requests, Schedule, Table
from raybench.schema.tables import OUTCOMES, PHASES

NONE = -(2**63)
"""Stands for null in the integer arrays; no instant on a monotonic clock is near it."""

_CODE = {outcome: code for code, outcome in enumerate(Outcome)}
_WIDTH = 15  # integers of one exchange, in the order of `Rows.add`
_MAX_PROBLEMS = 20
_BULK = 2**16  # rows of one batch of requests that were never sent


class Rows:
    """Finished exchanges of one period, as the loop leaves them."""

    __slots__ = ("ints", "stamps", "texts")

    def __init__(self) -> None:
        self.ints = array("q")
        self.texts: list[tuple[str | None, str | None, str | None]] = []
        self.stamps = array("q")

    def add(self, e: Exchange) -> None:
        stamps = e.chunk_ns
        if stamps is None:
            recorded = NONE
        else:
            recorded = len(stamps)
            self.stamps.extend(stamps)
        connected, headers, done = e.connected_ns, e.headers_ns, e.done_ns
        anchor, first, last = e.anchor_ns, e.first_token_ns, e.last_token_ns
        status, prompt, output = e.http_status, e.prompt_tokens, e.output_tokens
        self.ints.extend(
            (
                e.request_id,
                NONE if anchor is None else anchor,
                e.sent_ns,
                NONE if connected is None else connected,
                NONE if headers is None else headers,
                NONE if first is None else first,
                NONE if last is None else last,
                NONE if done is None else done,
                _CODE[e.outcome],
                NONE if status is None else status,
                NONE if prompt is None else prompt,
                NONE if output is None else output,
                e.chunks,
                e.bytes,
                recorded,
            )
        )
        self.texts.append((e.error, e.finish_reason, e.replica))


class Writer:
    """Builds batches and hands them to the sink, on its own thread."""

    def __init__(self, slice: Slice, sink: Sink, t0_ns: int) -> None:
        self._slice, self._sink, self._t0_ns = slice, sink, t0_ns
        schedule = slice.schedule
        self._ids = schedule.column(Schedule.request_id).to_numpy()
        self._stages = schedule.column(Schedule.stage).to_numpy()
        open_loop = slice.load_kind is not LoadKind.CLOSED
        self._planned = (
            values_of(schedule, Schedule.scheduled_ns, NONE)
            if open_loop
            else np.broadcast_to(np.int64(NONE), schedule.num_rows)
        )
        self._queue: SimpleQueue[tuple[type[Table], object] | None] = SimpleQueue()
        self.problems: list[str] = []
        self._thread = threading.Thread(target=self._run, name="raybench-writer", daemon=True)
        self._thread.start()

    def rows(self, rows: Rows) -> None:
        if rows.texts:
            self._queue.put((Requests, rows))

    def sample(
        self, t_ns: int, cpu_ratio: float, rss_bytes: int, in_flight: int, late_ns: int | None
    ) -> None:
        values = (t_ns - self._t0_ns, self._slice.generator, cpu_ratio, rss_bytes, in_flight, late_ns)
        self._queue.put((Generators, values))

    def not_sent(self, rows: np.ndarray, reason: str) -> None:
        """`rows` are positions in the slice."""
        for begin in range(0, len(rows), _BULK):
            self._queue.put((Requests, (rows[begin : begin + _BULK], reason)))

    def close(self, wait_s: float | None = None) -> None:
        """Writes what is queued and closes the sink; gives up waiting after `wait_s`."""
        self._queue.put(None)
        self._thread.join(wait_s)
        if self._thread.is_alive():
            self.problem(f"the sink did not finish within {wait_s:g} s")

    def problem(self, text: str) -> None:
        if text not in self.problems and len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(text)

    def _run(self) -> None:
        # pyarrow looks for pandas and the like at its first conversion: for milliseconds, and better now
        # than while requests are due.
        if len(self._ids):
            made_up = Rows()
            made_up.add(Exchange(int(self._ids[0]), 0))
            self._finished(made_up)
        while (item := self._queue.get()) is not None:
            table, raw = item
            try:
                if isinstance(raw, Rows):
                    batch = self._finished(raw)
                elif table is Requests:
                    batch = self._unsent(*raw)  # type: ignore[misc]
                else:
                    columns = zip(raw, Generators.schema, strict=True)  # type: ignore[call-overload]
                    batch = pa.RecordBatch.from_arrays(
                        [pa.array([value], field.type) for value, field in columns], schema=Generators.schema
                    )
                self._sink.write(table, batch)
            except Exception as error:
                self.problem(f"writing {table.name} failed: {type(error).__name__}: {error}")
        try:
            self._sink.close()
        except Exception as error:
            self.problem(f"closing the sink failed: {type(error).__name__}: {error}")

    def _finished(self, rows: Rows) -> pa.RecordBatch:
        ints = np.frombuffer(rows.ints, np.int64).reshape(-1, _WIDTH)
        (
            ids, anchors, sent, connected, headers, first, last, done,
            codes, status, prompt, output, chunks, size, recorded,
        ) = ints.T  # fmt: skip
        where = np.searchsorted(self._ids, ids)
        errors, finishes, replicas = zip(*rows.texts, strict=True)
        return self._batch(
            {
                Requests.request_id: ids,
                Requests.stage: self._stages[where],
                Requests.phase: self._slice.phases[where],
                Requests.anchor_ns: self._since(anchors),
                Requests.sent_ns: self._since(sent),
                Requests.connected_ns: self._since(connected),
                Requests.headers_ns: self._since(headers),
                Requests.first_token_ns: self._since(first),
                Requests.last_token_ns: self._since(last),
                Requests.done_ns: self._since(done),
                Requests.outcome: codes,
                Requests.http_status: _nullable(status),
                Requests.error: errors,
                Requests.prompt_tokens: _nullable(prompt),
                Requests.output_tokens: _nullable(output),
                Requests.chunks: chunks,
                Requests.bytes: size,
                Requests.finish_reason: finishes,
                Requests.replica: replicas,
                Requests.chunk_ns: _offsets(recorded, np.frombuffer(rows.stamps, np.int64), first),
            }
        )

    def _unsent(self, where: np.ndarray, reason: str) -> pa.RecordBatch:
        n = len(where)
        return self._batch(
            {
                Requests.request_id: self._ids[where],
                Requests.stage: self._stages[where],
                Requests.phase: self._slice.phases[where],
                Requests.anchor_ns: _nullable(self._planned[where]),
                Requests.outcome: np.full(n, _CODE[Outcome.NOT_SENT]),
                Requests.error: [reason] * n,
                Requests.chunks: np.zeros(n, np.int64),
                Requests.bytes: np.zeros(n, np.int64),
            }
        )

    def _batch(self, values: dict[str, object]) -> pa.RecordBatch:
        n = len(values[Requests.request_id])  # type: ignore[arg-type]
        values[Requests.generator] = np.full(n, self._slice.generator)
        arrays = []
        for field in Requests.schema:
            value = values.get(field.name)
            if value is None:
                arrays.append(pa.nulls(n, field.type))
            elif field.name == Requests.outcome:
                arrays.append(pa.DictionaryArray.from_arrays(pa.array(value, pa.int8()), OUTCOMES))
            elif field.name == Requests.phase:
                arrays.append(pa.DictionaryArray.from_arrays(pa.array(value, pa.int8()), PHASES))
            elif isinstance(value, pa.Array):
                arrays.append(value if value.type == field.type else value.cast(field.type))
            else:
                arrays.append(pa.array(value, field.type))
        return pa.RecordBatch.from_arrays(arrays, schema=Requests.schema)

    def _since(self, instants: np.ndarray) -> pa.Array:
        return pa.array(instants - self._t0_ns, pa.int64(), mask=instants == NONE)


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.int64(), mask=values == NONE)


def _offsets(sizes: np.ndarray, stamps: np.ndarray, first: np.ndarray) -> pa.Array:
    """Rows of chunk instants, counted from each row's first; null where none were recorded."""
    missing = sizes == NONE
    counts = np.where(missing, 0, sizes)
    ends = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(counts, out=ends[1:])
    values = stamps - np.repeat(first, counts)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values), mask=pa.array(missing))

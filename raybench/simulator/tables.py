"""From a simulated run to the six tables, as record batches with exactly the schema's columns."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raybench import schedule as scheduling
from raybench.scenario import Scenario
from raybench.schema import (
    Events,
    Generators,
    LoadKind,
    Outcome,
    Replicas,
    Requests,
    Schedule,
    Table,
    Timeline,
)
from raybench.schema.tables import OUTCOMES, PHASES
from raybench.simulator.run import Finished
from raybench.simulator.watch import REPLICAS, STATES, TIMELINE

BATCH = 2**14
NONE = -(2**62)

Ints = npt.NDArray[np.int64]
_CODE = {outcome: code for code, outcome in enumerate(Outcome)}


class Tables:
    """The tables of one run. Requests are put together batch by batch when they are asked for."""

    def __init__(self, scenario: Scenario, done: Finished) -> None:
        self._scenario, self._done = scenario, done
        server = done.server
        self._sent = _ints(server.sent_ns)
        self._given = _ints(server.given_ns)
        self._first = _ints(server.first_ns)
        self._ended = _ints(server.done_ns)
        self._unsent = self._sent < 0
        codes = np.full(len(self._sent), _CODE[Outcome.OK], np.int8)
        codes[self._unsent] = _CODE[Outcome.NOT_SENT]
        for i, (outcome, *_) in server.failed.items():
            codes[i] = _CODE[outcome]
        self._codes = codes
        self._replica_names = pa.array([r.name for r in server.replicas], pa.utf8())

    @cached_property
    def _planned_ns(self) -> Ints:
        return scheduling.planned_ns(self._done.plan)

    @property
    def outcomes(self) -> dict[str, int]:
        """Outcome -> rows, without those that never happened."""
        found = np.bincount(self._codes, minlength=len(Outcome)).tolist()
        return {str(o): n for o, n in zip(Outcome, found, strict=True) if n}

    def batches(self, table: type[Table], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """As `analysis.Source.batches`."""
        if table is Requests:
            for start in range(0, len(self._sent), BATCH):
                yield self._requests(start, min(start + BATCH, len(self._sent)), columns)
            return
        if table is Schedule:
            yield from self._done.plan.select(list(columns)).to_batches()
            return
        made = {Timeline: self._timeline, Replicas: self._replicas, Generators: self._generators}
        batch = made[table]() if table in made else self._events()
        if batch.num_rows:
            yield batch.select(list(columns))

    # --- requests ----------------------------------------------------------------------------------

    def _requests(self, start: int, stop: int, columns: Sequence[str]) -> pa.RecordBatch:
        rows = slice(start, stop)
        values = self._columns(rows, stop - start, columns)
        arrays = []
        for name in columns:
            field = Requests.schema.field(name)
            value = values[name]
            if not isinstance(value, pa.Array):
                value = pa.array(value, field.type)
            arrays.append(value if value.type == field.type else value.cast(field.type))
        schema = pa.schema([Requests.schema.field(name) for name in columns], Requests.schema.metadata)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _columns(self, rows: slice, n: int, columns: Sequence[str]) -> dict[str, Any]:
        done, plan = self._done, self._done.plan
        server, asked = done.server, done.asked
        network_ns, stream = server.network_ns, self._scenario.load.request.stream
        failed = {i: server.failed[i] for i in range(rows.start, rows.stop) if i in server.failed}
        sent, codes = self._sent[rows], self._codes[rows]
        ok = codes == _CODE[Outcome.OK]
        ended, given, first = self._ended[rows], self._given[rows], self._first[rows]
        output = _ints(asked.output)[rows]
        status = np.where(ok, 200, NONE)
        chunks = np.where(ok & stream, output, 0)
        errors: list[str | None] = [None] * n
        for i, (_, code, reason, received) in failed.items():
            status[i - rows.start] = NONE if code is None else code
            chunks[i - rows.start] = received
            errors[i - rows.start] = reason
        for i in np.flatnonzero(self._unsent[rows]).tolist():
            errors[i] = "still waiting when the load ended"
        whole = np.isin(status, (400, 429, 500, 503, 504))  # an answer without a stream
        headers = np.where((given >= 0) & stream & ~whole, given + network_ns, ended)
        headers = np.where((status < 0) | (headers > ended), NONE, headers)
        got_first = stream & (first >= 0) & (chunks > 0)
        first_at = np.where(got_first, first + network_ns, NONE)
        last_at = np.where(got_first & ok, ended, NONE)
        for i in failed:
            came = self._tokens_ns(i, int(chunks[i - rows.start]))
            if came is not None:
                last_at[i - rows.start] = came[-1]
        stamps: list[Ints | None] = []
        if server.last_step is not None and Requests.chunk_ns in columns:
            stamps = [self._tokens_ns(i, k) for i, k in enumerate(chunks.tolist(), rows.start)]
        usage = np.where(ok, output, NONE)
        finish = np.where(ok, np.where(asked.limited[rows], 1, 0), -1)
        # Its name is in the head of its answer, and only there.
        numbers = np.where((headers == NONE) | (status >= 503), -1, _ints(server.replica_of)[rows])
        values: dict[str, Any] = {
            Requests.request_id: np.arange(rows.start, rows.stop),
            Requests.generator: np.zeros(n, np.int64),
            Requests.stage: plan[Schedule.stage].slice(rows.start, n).combine_chunks(),
            Requests.anchor_ns: _nullable(self._anchors(rows)),
            Requests.sent_ns: _nullable(np.where(sent < 0, NONE, sent)),
            Requests.connected_ns: _nullable(np.where(sent < 0, NONE, sent)),
            Requests.headers_ns: _nullable(headers),
            Requests.first_token_ns: _nullable(first_at),
            Requests.last_token_ns: _nullable(last_at),
            Requests.done_ns: _nullable(np.where(ended < 0, NONE, ended)),
            Requests.outcome: pa.DictionaryArray.from_arrays(pa.array(codes), OUTCOMES),
            Requests.http_status: _nullable(status),
            Requests.error: errors,
            Requests.prompt_tokens: _nullable(np.where(ok, _ints(asked.prompt)[rows], NONE)),
            Requests.output_tokens: _nullable(usage),
            Requests.chunks: chunks,
            Requests.bytes: np.zeros(n, np.int64),
            Requests.finish_reason: FINISH.take(pa.array(finish, mask=finish < 0)),
            Requests.replica: self._replica_names.take(pa.array(numbers, mask=numbers < 0)),
            Requests.chunk_ns: _offsets(stamps) if stamps else pa.nulls(n, CHUNKS),
        }
        if Requests.phase in columns:
            planned = scheduling.phases(self._scenario, self._planned_ns[rows])
            values[Requests.phase] = pa.DictionaryArray.from_arrays(pa.array(planned, pa.int8()), PHASES)
        return values

    def _tokens_ns(self, i: int, chunks: int) -> Ints | None:
        """When the client got each of the `chunks` tokens of request `i`; None where there are none, or where
        chunks are not recorded.
        """
        server = self._done.server
        history = server.replicas[server.replica_of[i]].history if chunks else None
        if history is None or server.last_step is None:
            return None
        steps = history.steps(i, self._done.asked.output[i], server.last_step[i])[:chunks]
        return history.ends_ns(steps) + server.network_ns

    def _anchors(self, rows: slice) -> Ints:
        if scheduling.load_kind(self._scenario) is LoadKind.CLOSED:
            return np.full(rows.stop - rows.start, NONE, np.int64)
        n = rows.stop - rows.start
        column = self._done.plan[Schedule.scheduled_ns].slice(rows.start, n)
        anchors: Ints = column.fill_null(NONE).to_numpy().copy()
        later = self._done.sender.anchor_ns
        if later:
            for i in range(rows.start, rows.stop):
                if i in later:
                    anchors[i - rows.start] = later[i]
        return anchors

    # --- what was seen -----------------------------------------------------------------------------

    def _timeline(self) -> pa.RecordBatch:
        watch = self._done.watch
        t = np.frombuffer(watch.timeline_ns, np.int64)
        figures = np.frombuffer(watch.timeline, np.float64).reshape(-1, len(TIMELINE))
        values: dict[str, Any] = {Timeline.t_ns: t}
        for name, column in zip(TIMELINE, figures.T, strict=True):
            values[name] = pa.array(column, mask=np.isnan(column))
        values[Timeline.in_flight] = self._in_flight(t)
        return _batch(Timeline, values, len(t))

    def _in_flight(self, t: Ints) -> Ints:
        """Sent and not done at each instant."""
        sent = np.sort(self._sent[~self._unsent])
        done = np.sort(self._ended[~self._unsent])
        return np.searchsorted(sent, t, side="right") - np.searchsorted(done, t, side="right")

    def _replicas(self) -> pa.RecordBatch:
        watch = self._done.watch
        figures = np.frombuffer(watch.replicas, np.float64).reshape(-1, len(REPLICAS))
        columns = dict(zip(REPLICAS, figures.T, strict=True))
        values: dict[str, Any] = {
            Replicas.t_ns: np.frombuffer(watch.replicas_ns, np.int64),
            Replicas.replica: self._replica_names.take(pa.array(columns[Replicas.replica], pa.int64())),
            Replicas.state: STATE_NAMES.take(pa.array(columns[Replicas.state], pa.int64())),
        }
        for name in (Replicas.engine_waiting, Replicas.engine_running, Replicas.kv_cache_usage):
            values[name] = pa.array(columns[name], mask=np.isnan(columns[name]))
        return _batch(Replicas, values, len(figures))

    def _generators(self) -> pa.RecordBatch:
        """One generator that costs nothing; its lateness is the capped client's waiting for a place."""
        period_ns = self._done.period_ns
        t = np.arange(period_ns, self._done.load_ns + period_ns, period_ns)
        late = np.full(len(t), NONE, np.int64)
        if scheduling.load_kind(self._scenario) is not LoadKind.CLOSED and len(t):
            anchors = self._anchors(slice(0, len(self._sent)))[~self._unsent]
            sent = self._sent[~self._unsent]
            where = np.minimum(sent // period_ns, len(t) - 1)
            np.maximum.at(late, where, sent - anchors)
        values: dict[str, Any] = {
            Generators.t_ns: t,
            Generators.generator: np.zeros(len(t), np.int64),
            Generators.cpu_ratio: np.zeros(len(t)),
            Generators.rss_bytes: np.zeros(len(t), np.int64),
            Generators.in_flight: self._in_flight(t),
            Generators.lateness_max_ns: _nullable(late),
        }
        return _batch(Generators, values, len(t))

    def _events(self) -> pa.RecordBatch:
        events = sorted(self._done.watch.events, key=lambda event: int(event[Events.t_ns]))
        return pa.RecordBatch.from_pylist(events, schema=Events.schema)


CHUNKS = Requests.schema.field(Requests.chunk_ns).type
FINISH = pa.array(["stop", "length"], pa.utf8())
STATE_NAMES = pa.array([str(state) for state in STATES], pa.utf8())


def _batch(table: type[Table], values: dict[str, Any], n: int) -> pa.RecordBatch:
    arrays = []
    for field in table.schema:
        value = values.get(field.name)
        if value is None:
            value = pa.nulls(n, field.type)
        elif not isinstance(value, pa.Array):
            value = pa.array(value)
        arrays.append(value if value.type == field.type else value.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def _offsets(tokens: list[Ints | None]) -> pa.Array:
    """Each row's instants counted from its first; null for rows without any."""
    sizes = [0 if came is None else len(came) for came in tokens]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    flat = [came - came[0] for came in tokens if came is not None]
    values = np.concatenate(flat) if flat else np.empty(0, np.int64)
    missing = pa.array([came is None for came in tokens])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=missing)


def _ints(values: array[int]) -> Ints:
    return np.frombuffer(values, np.int64 if values.typecode == "q" else np.int32)


def _nullable(values: Ints) -> pa.Array:
    return pa.array(values, pa.int64(), mask=values == NONE)

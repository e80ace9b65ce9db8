"""Run directories made from plain Python rows, for tests.

    path = runs.write(tmp_path / "run", [runs.ok(0, anchor_s=0.0, first_s=0.2, done_s=1.0, tokens=11)])

A row is a dict from column name to value; what is left out takes the default below or null.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from raybench.rundir import create
from raybench.schema import (
    TABLES,
    EventKind,
    Events,
    Generators,
    LoadKind,
    Manifest,
    Outcome,
    Phase,
    Replicas,
    Requests,
    RunStatus,
    Schedule,
    Table,
    Timeline,
)
from raybench.schema.tables import OUTCOMES, PHASES

Row = Mapping[str, Any]

DEFAULTS: dict[type[Table], dict[str, Any]] = {
    Schedule: {Schedule.stage: 0, Schedule.prompt_id: 0},
    Requests: {
        Requests.generator: 0,
        Requests.stage: 0,
        Requests.phase: Phase.STEADY,
        Requests.outcome: Outcome.OK,
        Requests.chunks: 0,
        Requests.bytes: 0,
    },
    Timeline: {},
    Replicas: {Replicas.state: "running"},
    Generators: {
        Generators.generator: 0,
        Generators.cpu_ratio: 0.1,
        Generators.rss_bytes: 10**8,
        Generators.in_flight: 0,
    },
    Events: {Events.subject: "", Events.detail: "{}"},
}

_CODES = {"outcome": (OUTCOMES, list(Outcome)), "phase": (PHASES, list(Phase))}


def ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)


def ok(
    request_id: int,
    *,
    anchor_s: float | None = None,
    sent_s: float | None = None,
    first_s: float | None = None,
    last_s: float | None = None,
    done_s: float | None = None,
    tokens: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A row of `requests`, instants in seconds since t0; sent defaults to the anchor. `more`: any column."""
    sent_s = anchor_s if sent_s is None else sent_s
    return {
        Requests.request_id: request_id,
        Requests.anchor_ns: ns(anchor_s),
        Requests.sent_ns: ns(sent_s),
        Requests.first_token_ns: ns(first_s),
        Requests.last_token_ns: ns(
            last_s if last_s is not None else (done_s if first_s is not None else None)
        ),
        Requests.done_ns: ns(done_s),
        Requests.output_tokens: tokens,
        Requests.http_status: 200 if sent_s is not None and done_s is not None else None,
        **more,
    }


def failed(request_id: int, outcome: Outcome, error: str = "", **more: Any) -> dict[str, Any]:
    """A row that did not end well; without a status unless one is given."""
    return ok(request_id, **{Requests.http_status: None, **more}) | {
        Requests.outcome: outcome,
        Requests.error: error or None,
    }


def batch(table: type[Table], rows: Iterable[Row]) -> pa.RecordBatch:
    """Rows as one record batch with the table's own schema."""
    full = [{**DEFAULTS[table], **row} for row in rows]
    if unknown := {k for row in full for k in row} - table.columns.keys():
        raise KeyError(f"{table.name} has no column {unknown}")
    arrays = []
    for field in table.schema:
        values = [row.get(field.name) for row in full]
        if field.name in _CODES:
            words, members = _CODES[field.name]
            codes = pa.array([members.index(v) for v in values], pa.int8())
            arrays.append(pa.DictionaryArray.from_arrays(codes, words))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def schedule_of(requests: Iterable[Row]) -> list[dict[str, Any]]:
    """The plan that these rows came from: the same ids, planned at their anchors."""
    return [
        {
            Schedule.request_id: r[Requests.request_id],
            Schedule.scheduled_ns: r.get(Requests.anchor_ns),
            Schedule.stage: r.get(Requests.stage, 0),
        }
        for r in sorted(requests, key=lambda r: int(r[Requests.request_id]))
    ]


def manifest(**more: Any) -> Manifest:
    """A complete run of nothing in particular. `more`: any field of the manifest."""
    values: dict[str, Any] = {
        "name": "made",
        "load_kind": LoadKind.OPEN,
        "scenario": {},
        "schedule_sha256": "0" * 64,
        "planned": 0,
        "status": RunStatus.COMPLETE,
        "created_unix_ns": time.time_ns(),
        "t0_unix_ns": time.time_ns(),
        "heartbeat_unix_ns": time.time_ns(),
    }
    return Manifest(**{**values, **more})


def event(t_s: float, kind: EventKind, subject: str = "", **detail: Any) -> dict[str, Any]:
    import json

    return {
        Events.t_ns: ns(t_s),
        Events.kind: kind,
        Events.subject: subject,
        Events.detail: json.dumps(detail),
    }


def write(
    path: Path,
    requests: Iterable[Row] = (),
    *,
    schedule: Iterable[Row] | None = None,
    timeline: Iterable[Row] = (),
    replicas: Iterable[Row] = (),
    generators: Iterable[Row] = (),
    events: Iterable[Row] = (),
    batch_rows: int = 1000,
    **more: Any,
) -> Path:
    """A whole run at `path`. The schedule follows from the requests unless given; `more`: the manifest."""
    requests = list(requests)
    planned = list(schedule_of(requests) if schedule is None else schedule)
    run = create(path, manifest(**{"planned": len(planned), **more}))
    run.write_schedule(pa.Table.from_batches([batch(Schedule, planned)]))
    rows: dict[type[Table], list[Row]] = {
        Requests: requests,
        Timeline: list(timeline),
        Replicas: list(replicas),
        Generators: list(generators),
        Events: list(events),
    }
    by_writer: dict[str, list[Row]] = {}
    for row in requests:
        by_writer.setdefault(f"g{row.get(Requests.generator, 0):03d}", []).append(row)
    for writer, its_rows in by_writer.items():
        with run.sink(writer) as sink:
            for i in range(0, len(its_rows), batch_rows):
                sink.write(Requests, batch(Requests, its_rows[i : i + batch_rows]))
    with run.sink("monitor") as sink:
        for table in TABLES[2:]:
            if rows[table]:
                sink.write(table, batch(table, rows[table]))
    return path

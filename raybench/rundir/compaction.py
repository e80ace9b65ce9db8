"""`raybench compact`: from many streams to one file a table, in Arrow's random-access form (Feather 2), which
pandas, Polars and DuckDB read without us.

Each file is written beside, synced, renamed, and only then are its streams removed, so that a run can be read
at every instant: while both are there, the file counts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from raybench.rundir.manifest import RunError
from raybench.rundir.reader import Run
from raybench.schema import TABLES, RunStatus, Table

ROWS = 2**17
"""Rows of a batch in the file: few enough for a small memory, many enough that a batch costs nothing."""
COMPRESSION = "zstd"


def compact(run: Run) -> dict[str, int]:
    """Compact every table; returns rows by table. Raises RunError. Streams go once their rows are in the
    file, except where a part of one could not be read: those stay beside it, for whoever can read more.
    """
    if run.status is RunStatus.RUNNING:
        raise RunError(f"{run.path}: the run is still going; compact it when it has ended")
    rows = {}
    for table in TABLES:
        target = run.compacted(table)
        key = [next(iter(table.columns))]
        try:
            if not target.exists():
                _write(run, table, target)
            rows[table.name] = sum(b.num_rows for b in run.batches(table, key))
            in_streams = sum(b.num_rows for b in run.from_segments(table, key))
            is_whole = not any(problem.startswith(str(run.path / table.name)) for problem in run.problems)
            if in_streams == rows[table.name] and is_whole:
                shutil.rmtree(run.path / table.name, ignore_errors=True)
        except OSError as e:
            raise RunError(
                f"{target}: cannot be written: {e.strerror or e}; the streams are as they were"
            ) from e
    return rows


def _write(run: Run, table: type[Table], target: Path) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        options = pa.ipc.IpcWriteOptions(compression=COMPRESSION)
        with beside.open("wb") as file:
            with pa.ipc.new_file(file, table.schema, options=options) as writer:
                for batch in _regrouped(run.from_segments(table, table.schema.names)):
                    writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _regrouped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in the same order, in batches of ROWS."""
    waiting: list[pa.RecordBatch] = []
    n = 0
    for batch in batches:
        waiting.append(batch)
        n += batch.num_rows
        if n >= ROWS:
            joined = pa.concat_batches(waiting)
            for at in range(0, n - ROWS + 1, ROWS):
                yield joined.slice(at, ROWS)
            rest = joined.slice(n - n % ROWS)
            waiting, n = ([rest] if rest.num_rows else []), rest.num_rows
    if waiting:
        yield pa.concat_batches(waiting)

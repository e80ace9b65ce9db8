"""Segments: a writer's rows as a sequence of Arrow IPC streams, each readable to its last whole batch.

    requests/g000.5f2a91c0-4711-0000.arrows      64 MiB or ten minutes, then
    requests/g000.5f2a91c0-4711-0001.arrows      the next one
    requests/g000.c07be114-4950-0000.arrows      the process that took over

The first part names the writer, which no other process shares (`Host.writer`), the second the process that
wrote the file for it.

A batch reaches the file in one write. Nothing is ever appended behind a torn write: a batch after it would
decode to garbage, so the torn stream is left as it is and a new one begins.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from raybench.schema import Table

SUFFIX = ".arrows"
ROLL_BYTES = 64 * 2**20
ROLL_S = 600.0
COMPRESSION = "zstd"
"""Measured on requests without chunk times, 100 rows a batch: 66 bytes a row and 0.65 ms a batch with zstd,
93 and 0.30 with lz4, 134 and 0.06 with none. A sink gets one batch a second, so the bytes decide."""


class _Segment:
    """One open stream. The Arrow writer fills a buffer; `write` hands the buffer to the file in one piece."""

    def __init__(self, path: Path, schema: pa.Schema, now_s: float) -> None:
        self.path, self.opened_s, self.bytes = path, now_s, 0
        self._file = cast("io.RawIOBase", path.open("xb", buffering=0))
        self._buffer = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(compression=COMPRESSION)
        self._writer = pa.ipc.new_stream(self._buffer, schema, options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)
        self._drain()

    def close(self) -> None:
        """End the stream properly, with its end mark."""
        self._writer.close()
        try:
            self._drain()
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Close the file and nothing else: what is in it stays as the failed write left it."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _drain(self) -> None:
        rest = memoryview(self._buffer.getvalue())
        self.bytes += len(rest)
        while rest:
            rest = rest[write_some(self._file, rest) :]
        self._buffer.seek(0)
        self._buffer.truncate()


def write_some(file: BinaryIO | io.RawIOBase, data: memoryview) -> int:
    """One write call; may take less than all of `data`. Apart, so that a test can make it fail."""
    return file.write(data) or 0


class LocalSink:
    """Appends record batches to a run directory, for one writer in one process.

    Made from the path alone, so that any process can have its own: `LocalSink(run_path, "g000")`.
    `write` raises OSError when the batch is not in the file; the caller records that, and may write the
    same batch again, which goes to a new stream.
    """

    def __init__(
        self,
        run: Path | str,
        writer: str,
        *,
        roll_bytes: int = ROLL_BYTES,
        roll_s: float = ROLL_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if not writer or "-" in writer or "/" in writer:
            raise ValueError(f"writer {writer!r}: a name without '-' or '/' is needed, such as 'g000'")
        self.run, self.writer = Path(run), writer
        self._roll_bytes, self._roll_s, self._clock_s = roll_bytes, roll_s, clock_s
        self._open: dict[str, _Segment] = {}
        self._next: dict[str, int] = {}

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None:
        """Append one batch and hand it to the system. Raises OSError, or ValueError for other columns."""
        if not batch.schema.equals(table.schema):
            raise ValueError(f"table {table.name}: the batch has other columns:\n{_difference(table, batch)}")
        if batch.num_rows == 0:
            return
        segment = self._open.get(table.name)
        if segment is not None and self._is_full(segment):
            del self._open[table.name]
            segment.close()
            segment = None
        if segment is None:
            segment = self._open[table.name] = self._start(table)
        try:
            segment.write(batch)
        except BaseException:
            del self._open[table.name]
            segment.abandon()
            raise

    def close(self) -> None:
        """End every open stream. All of them are closed even if one fails; the first failure is raised."""
        failures: list[OSError] = []
        while self._open:
            _, segment = self._open.popitem()
            try:
                segment.close()
            except OSError as e:
                failures.append(e)
        if failures:
            raise failures[0]

    def __enter__(self) -> LocalSink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_full(self, segment: _Segment) -> bool:
        return segment.bytes >= self._roll_bytes or self._clock_s() - segment.opened_s >= self._roll_s

    def _start(self, table: type[Table]) -> _Segment:
        directory = self.run / table.name
        directory.mkdir(exist_ok=True)
        while True:
            number = self._next.get(table.name, 0)
            self._next[table.name] = number + 1
            path = directory / f"{self.writer}-{os.getpid()}-{number:04d}{SUFFIX}"
            try:
                return _Segment(path, table.schema, self._clock_s())
            except FileExistsError:
                continue  # an earlier sink of this process, or this pid on another host: never append


def is_written(run: Path | str, writer: str, table: type[Table], batch: pa.RecordBatch) -> bool:
    """Whether this very batch stands among the last ones of the writer, whichever process wrote it.

    Looks into its two newest streams: one may have been begun since.
    """
    found = list((Path(run) / table.name).glob(f"{writer}-*{SUFFIX}"))
    for path in sorted(found, key=lambda p: p.stat().st_mtime_ns)[-2:]:
        try:
            with pa.OSFile(str(path), "rb") as file:
                if any(one.equals(batch) for one in pa.ipc.open_stream(file)):
                    return True
        except (OSError, pa.ArrowInvalid):
            continue  # torn at its end: what comes before it was looked at
    return False


def _difference(table: type[Table], batch: pa.RecordBatch) -> str:
    want = {f.name: str(f.type) for f in table.schema}
    have = {f.name: str(f.type) for f in batch.schema}
    lines = [
        f"  {n}: {want.get(n, 'no such column')} is right, found {have.get(n, 'nothing')}"
        for n in {**want, **have}
        if want.get(n) != have.get(n)
    ]
    return "\n".join(lines) or f"  the order is {', '.join(want)}; or a column's nullability differs"

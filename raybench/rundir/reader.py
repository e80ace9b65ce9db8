"""Reading a run, going, ended or killed: every whole batch of every stream, and what was wrong in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raybench.rundir import manifest as manifests
from raybench.rundir.clocks import Correction, correction_for
from raybench.rundir.segments import SUFFIX
from raybench.schema import Generators, Manifest, Requests, RunStatus, Schedule, Table
from raybench.schema.tables import OUTCOMES, PHASES

COMPACT_SUFFIX = ".arrow"
"""One file a table, in Arrow's random-access form (`raybench compact`); instants are corrected already."""

_POOL = pa.system_memory_pool()
"""Batches come and go by the thousand: Arrow's own pool gives their pages back and faults them in again each
time, which took a third of the time of reading ten million rows.
"""

_ON_COORDINATOR = {
    Requests.anchor_ns,
    Schedule.scheduled_ns,
    Schedule.think_ns,
    Requests.chunk_ns,
    Generators.lateness_max_ns,
}
"""Columns in ns that are plans or durations, not readings of the writer's clock."""


class Run:
    """A run directory as a source of tables (`raybench.analysis.source.Source`).

    `problems` fills while tables are read: each entry names a file and what was ignored in it.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self._manifest = manifest
        self.problems: list[str] = []

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def status(self) -> RunStatus:
        return self._manifest.status

    def compacted(self, table: type[Table]) -> Path:
        """Where a compacted table lies; where it exists it counts, and not the segments."""
        return self.path / f"{table.name}{COMPACT_SUFFIX}"

    def segments(self, table: type[Table]) -> list[Path]:
        return sorted((self.path / table.name).glob(f"*{SUFFIX}"))

    def batches(self, table: type[Table], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Whole, fully validated batches with just `columns`, in that order, on the coordinator's clock."""
        if unknown := [c for c in columns if c not in table.columns]:
            raise KeyError(f"table {table.name} has no column {', '.join(unknown)}")
        if self.compacted(table).exists():
            yield from self._compacted(self.compacted(table), table, columns)
        else:
            yield from self.from_segments(table, columns)

    def from_segments(self, table: type[Table], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """As `batches`, from the streams even where there is a compacted file."""
        for path in self.segments(table):
            yield from self._segment(path, table, columns)

    def _compacted(self, path: Path, table: type[Table], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            with pa.OSFile(str(path), "rb") as file:
                names = pa.ipc.open_file(file).schema.names
                options = pa.ipc.IpcReadOptions(included_fields=_included(names, columns), use_threads=False)
                reader = pa.ipc.open_file(file, options=options, memory_pool=_POOL)
                for i in range(reader.num_record_batches):
                    batch = reader.get_batch(i)
                    batch.validate(full=True)
                    yield _arranged(batch, table, columns)
        except (OSError, pa.ArrowInvalid) as e:
            self._problem(f"{path}: the rest of the table cannot be read: {_first_line(e)}")

    def _segment(self, path: Path, table: type[Table], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        writer, pid, _ = path.stem.rsplit("-", 2)
        correct = correction_for(self._manifest, writer, int(pid) if pid.isdigit() else -1)
        wanted = list(columns)
        if correct and table is Requests and Requests.anchor_ns in wanted:
            wanted += [c for c in (Requests.request_id,) if c not in wanted]
        at = 0
        try:
            with pa.OSFile(str(path), "rb") as file:
                if file.size() == 0:
                    return
                names = pa.ipc.open_stream(file).schema.names
                file.seek(0)
                options = pa.ipc.IpcReadOptions(included_fields=_included(names, wanted), use_threads=False)
                reader = pa.ipc.open_stream(file, options=options, memory_pool=_POOL)
                while True:
                    at = file.tell()
                    try:
                        batch = reader.read_next_batch()
                    except StopIteration:
                        return
                    batch.validate(full=True)
                    batch = _arranged(batch, table, wanted)
                    if correct is not None:
                        batch = self._corrected(batch, table, correct)
                    yield batch if len(wanted) == len(columns) else batch.select(list(columns))
        except (OSError, pa.ArrowInvalid) as e:
            # A batch that is being written right now looks the same as one cut off by a kill.
            if self.status is not RunStatus.RUNNING:
                lost = path.stat().st_size - at if path.exists() else 0
                self._problem(
                    f"{path}: {lost} bytes from byte {at} on are not a whole batch and were ignored "
                    f"({_first_line(e)})"
                )

    def _corrected(self, batch: pa.RecordBatch, table: type[Table], correct: Correction) -> pa.RecordBatch:
        columns = []
        for name in batch.schema.names:
            column = batch.column(name)
            if name.endswith("_ns") and name not in _ON_COORDINATOR:
                column = _map_valid(column, correct)
            elif table is Requests and name == Requests.anchor_ns:
                column = self._corrected_anchor(batch, column, correct)
            columns.append(column)
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)

    def _corrected_anchor(self, batch: pa.RecordBatch, anchor: pa.Array, correct: Correction) -> pa.Array:
        """The plan's own instants stay; an anchor made from an earlier answer was read from a clock."""
        planned = self._planned_ns()
        ids = batch.column(Requests.request_id).to_numpy()
        values = anchor.fill_null(0).to_numpy()
        known = np.isin(ids, np.arange(len(planned)))
        is_plan = np.zeros(len(ids), bool)
        is_plan[known] = planned[ids[known]] == values[known]
        fixed = np.where(is_plan, values, correct(values))
        return pa.array(fixed, anchor.type, mask=~_valid(anchor))

    def _planned_ns(self) -> NDArray[np.int64]:
        """scheduled_ns by request_id; the smallest int64 where there is none."""
        if not hasattr(self, "_planned"):
            parts = [b.column(0) for b in self.batches(Schedule, [Schedule.scheduled_ns])]
            parts = [p.fill_null(np.iinfo(np.int64).min).to_numpy() for p in parts]
            self._planned = np.concatenate(parts) if parts else np.empty(0, np.int64)
        return self._planned

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)


_WORDS = {Requests.outcome: OUTCOMES, Requests.phase: PHASES}
"""Code i of these columns is word i in every batch that is handed out, however a writer ordered its own."""


def open_run(path: Path | str) -> Run:
    """Open a run directory. Raises RunError with what would be right."""
    directory = Path(path)
    if directory.name == manifests.FILE_NAME:
        directory = directory.parent
    return Run(directory, manifests.read(directory))


def _included(names: list[str], columns: Sequence[str]) -> list[int]:
    return [i for i, name in enumerate(names) if name in columns]


def _arranged(batch: pa.RecordBatch, table: type[Table], columns: Sequence[str]) -> pa.RecordBatch:
    """The asked-for order, the declared types and the fixed dictionaries; a column that an older run did not
    have is null.
    """
    arrays = []
    for name in columns:
        field = table.schema.field(name)
        if name not in batch.schema.names:
            arrays.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(name)
        words = _WORDS.get(name)
        if words is not None and not (column.type == field.type and column.dictionary.equals(words)):
            codes = pc.index_in(column.cast(pa.utf8()), words).cast(pa.int8())
            column = pa.DictionaryArray.from_arrays(codes, words)
        arrays.append(column if column.type == field.type else column.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([table.schema.field(c) for c in columns]))


def _valid(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), bool)


def _map_valid(column: pa.Array, correct: Correction) -> pa.Array:
    values = correct(column.fill_null(0).to_numpy())
    return pa.array(values, column.type, mask=~_valid(column))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

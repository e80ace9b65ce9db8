"""A table that lies on disk and is mapped into memory: a day's plan costs a generator next to nothing."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from contextlib import ExitStack
from tempfile import TemporaryFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

STRETCH = 2**16
"""Rows between two looks at which pages are still of use."""


class Mapped:
    """`table` has one chunk; its values are pages of files without a name, which the system reads when they
    are touched and frees with the last reference, whatever becomes of the process."""

    def __init__(self, table: pa.Table, files: dict[str, mmap.mmap] | None = None) -> None:
        self.table = table
        self._files = files or {}
        self._at = -STRETCH

    def passed(self, row: int) -> None:
        """Rows before `row` are done with, those after it come next. The first time, and about once in
        `STRETCH` rows, all pages go back to the system and those that come next are read ahead, in the
        background. Nothing is lost: any other row is only read again.
        """
        if row - self._at < STRETCH:
            return
        self._at = row
        for name, file in self._files.items():
            width = self.table.schema.field(name).type.byte_width
            page = row * width // mmap.PAGESIZE * mmap.PAGESIZE
            ahead = min(2 * STRETCH * width, len(file) - page)
            file.madvise(mmap.MADV_DONTNEED)
            if ahead > 0:
                file.madvise(mmap.MADV_WILLNEED, page, ahead)


def mapped(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Mapped:
    """A table of integer columns from its pieces, one piece in memory at a time.

    The values go to the temporary directory (`TMPDIR`), uncompressed, a file for each column. Which of them
    are null stays in memory, a bit a row, in columns that have any. Raises OSError where there is no room.
    """
    with ExitStack() as open_files:
        files = {f.name: open_files.enter_context(TemporaryFile(prefix="raybench-")) for f in schema}
        valid: dict[str, list[np.ndarray]] = {name: [] for name in files}
        rows = 0
        for batch in batches:
            rows += batch.num_rows
            for name, file in files.items():
                column = batch.column(name)
                valid[name].append(_validity(column))
                if column.null_count:
                    column = pc.fill_null(column, 0)
                file.write(np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).data)
        if not rows:
            return Mapped(schema.empty_table())
        maps, arrays = {}, []
        for field in schema:
            file = files[field.name]
            file.flush()
            maps[field.name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            known = np.concatenate(valid.pop(field.name))
            nulls = rows - int(np.count_nonzero(known))
            bits = pa.py_buffer(np.packbits(known, bitorder="little")) if nulls else None
            values = pa.py_buffer(maps[field.name])
            arrays.append(pa.Array.from_buffers(field.type, rows, [bits, values], nulls))
    return Mapped(pa.Table.from_arrays(arrays, schema=schema), maps)


def _validity(column: pa.Array) -> np.ndarray:
    """True where the column has a value; without memory of its own where all rows agree."""
    if 0 < column.null_count < len(column):
        return np.asarray(column.is_valid().to_numpy(zero_copy_only=False))
    return np.broadcast_to(np.bool_(not column.null_count), len(column))

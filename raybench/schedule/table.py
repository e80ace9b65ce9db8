"""What can be done with a finished schedule: name it by its hash, cut it for the generators."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raybench.schema import Schedule

_POOL = pa.system_memory_pool()
"""Arrow's own keeps twice the memory of many pieces of this size."""
DIGEST_VERSION = 1
"""Raised whenever the same scenario comes to mean other bytes."""


def digest(table: pa.Table) -> str:
    """The schedule's name: SHA-256 over its values, as 64 hexadecimal digits.

    Hashed are the format version and, for each column of `Schedule` in order, its name and type, the
    number of rows, one byte per row that is 1 for null, and the values as little-endian integers with
    nulls as 0. Neither files, chunks, metadata nor compression matter.
    """
    if table.schema.names != list(Schedule.columns):
        raise ValueError(f"a schedule's columns are {', '.join(Schedule.columns)}; not {table.schema.names}")
    total = hashlib.sha256(f"raybench schedule {DIGEST_VERSION}\n".encode())
    for name, column in Schedule.columns.items():
        total.update(f"{name} {column.type} {table.num_rows}\n".encode())
        chunks = table[name].chunks
        for chunk in chunks:
            total.update(pc.is_null(chunk).cast(pa.uint8()).to_numpy(zero_copy_only=False).tobytes())
        for chunk in chunks:
            values = pc.fill_null(chunk, 0).to_numpy(zero_copy_only=False)
            total.update((values if sys.byteorder == "little" else values.byteswap()).tobytes())
    return total.hexdigest()


def share(total: int, generator: int, generators: int) -> int:
    """One generator's part of a number that holds over all of them: max_in_flight or concurrency. The parts
    add up, and none is 0 as long as there are no more generators than places.
    """
    return total // generators + (generator < total % generators)


def part(table: pa.Table, generator: int, generators: int) -> pa.Table:
    """The rows of one generator, in order: rows g, g+G, g+2G …, a conversation counting as one row.

    Raises ValueError unless 0 <= generator < generators.
    """
    return pa.Table.from_batches(part_of(table.to_batches(), generator, generators), schema=Schedule.schema)


def part_of(batches: Iterable[pa.RecordBatch], generator: int, generators: int) -> Iterator[pa.RecordBatch]:
    """As `part`, from a schedule that comes in pieces, piece by piece."""
    if not 0 <= generator < generators:
        raise ValueError(f"generator {generator} of {generators}: should be 0 to {generators - 1}")
    return _kept(batches, generator, generators)


def _kept(batches: Iterable[pa.RecordBatch], generator: int, generators: int) -> Iterator[pa.RecordBatch]:
    units = 0
    for batch in batches:
        # The turns of a conversation follow one another, so a unit begins wherever no later turn stands.
        turns = pc.fill_null(batch.column(Schedule.turn), 0).to_numpy(zero_copy_only=False)
        unit = units + np.cumsum(turns <= 0) - 1
        units = int(unit[-1]) + 1 if len(unit) else units
        rows = pa.array(np.flatnonzero(unit % generators == generator))
        yield pc.take(batch, rows, memory_pool=_POOL)

"""What can be done with a finished schedule: name it by its hash, cut it for the generators."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raybench.schema import Schedule

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
    if not 0 <= generator < generators:
        raise ValueError(f"generator {generator} of {generators}: should be 0 to {generators - 1}")
    if table[Schedule.turn].null_count == table.num_rows:
        rows = np.arange(generator, table.num_rows, generators, dtype=np.int64)
    else:
        # The turns of a conversation follow one another, so a unit begins wherever no later turn stands.
        later = pc.greater(pc.fill_null(table[Schedule.turn], 0), 0).to_numpy(zero_copy_only=False)
        unit = np.cumsum(~later) - 1
        rows = np.flatnonzero(unit % generators == generator)
    return table.take(pa.array(rows))

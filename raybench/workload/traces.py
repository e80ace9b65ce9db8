"""Recorded traces: when requests came, and how long their prompts and answers were.

Three public forms are read, told apart by their columns:

    azure      CSV    TIMESTAMP (date and time), ContextTokens, GeneratedTokens
    burstgpt   CSV    Timestamp (seconds), Request tokens, Response tokens
    mooncake   JSONL  timestamp (milliseconds), input_length, output_length, hash_ids

`hash_ids` name the 512-token blocks of a prompt: equal ids are equal text, so a replay shares the prefixes
that the recorded requests shared.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from raybench.scenario.arrivals import Trace
from raybench.workload.draws import Floats, Ints
from raybench.workload.files import DataFileError, stamp

BLOCK_TOKENS = 512
SUFFIXES = (".csv", ".jsonl")

_CSV_COLUMNS = {
    "azure": ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    "burstgpt": ("Timestamp", "Request tokens", "Response tokens"),
}
_MOONCAKE = ("timestamp", "input_length", "output_length")


class Recorded(NamedTuple):
    """A trace in order of time. `at_ns` counts from its first request; lengths are tokens, at least 1 (a
    recorded failure has an answer of 0). `blocks` is a list of block ids a row, or None.
    """

    at_ns: Ints
    input_tokens: Ints
    output_tokens: Ints
    blocks: pa.Array | None

    def __len__(self) -> int:
        return len(self.at_ns)


def read(trace: Trace) -> Recorded:
    """Raises DataFileError."""
    path = Path(trace.path)
    return _read(path, stamp(path, SUFFIXES), trace.format)


def replay(trace: Trace, duration_s: float) -> tuple[Ints, int]:
    """Nanoseconds from the stage's start to each request replayed, and the trace's row of the first."""
    recorded = read(trace)
    first = int(np.searchsorted(recorded.at_ns, round(trace.skip * 1e9)))
    due = np.rint((recorded.at_ns[first:] - round(trace.skip * 1e9)) / trace.speed).astype(np.int64)
    return due[: np.searchsorted(due, round(duration_s * 1e9))], first


@lru_cache(maxsize=4)
def _read(path: Path, stamped: tuple[int, int], format: str | None) -> Recorded:
    if path.suffix.lower() == ".jsonl":
        if format not in (None, "mooncake"):
            raise DataFileError(f"is JSONL, as mooncake traces are; format {format} is CSV")
        at_ns, given, answered, blocks = _mooncake(path)
    else:
        at_ns, given, answered = _csv(path, format)
        blocks = None
    if not len(at_ns):
        raise DataFileError("has no rows")
    order = np.argsort(at_ns, kind="stable")
    return Recorded(
        (at_ns - at_ns.min())[order],
        np.maximum(given[order], 1),
        np.maximum(answered[order], 1),
        blocks.take(pa.array(order)) if blocks is not None else None,
    )


def _csv(path: Path, format: str | None) -> tuple[Ints, Ints, Ints]:
    try:
        times = {names[0]: pa.utf8() for names in _CSV_COLUMNS.values()}
        table = pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=times))
    except (pa.ArrowException, OSError) as error:
        raise DataFileError(f"cannot be read: {str(error).splitlines()[0]}") from None
    there = set(table.column_names)
    formats = [name for name, columns in _CSV_COLUMNS.items() if there.issuperset(columns)]
    if format is not None and format not in formats:
        columns = _CSV_COLUMNS.get(format)
        raise DataFileError(
            f"lacks {format}'s columns {', '.join(columns)}" if columns else "should be JSONL"
        )
    if not formats:
        raise DataFileError(
            f"is no known trace: its columns are {', '.join(table.column_names)}; known are "
            + " and ".join(f"{name} ({', '.join(columns)})" for name, columns in _CSV_COLUMNS.items())
        )
    form = format or formats[0]
    when, given, answered = (table[name] for name in _CSV_COLUMNS[form])
    try:
        at_ns = _clock(when) if form == "azure" else _seconds(when)
        lengths = [column.cast(pa.int64()).combine_chunks().to_numpy() for column in (given, answered)]
    except (pa.ArrowException, ValueError) as error:
        raise DataFileError(f"a row cannot be read: {str(error).splitlines()[0]}") from None
    return at_ns, lengths[0], lengths[1]


def _clock(when: pa.ChunkedArray) -> Ints:
    """`2023-11-16 18:15:46.6805900`, with or without an offset of zero."""
    plain = pc.replace_substring_regex(when, r"(Z|[+-]00:?00)$", "")
    instants = np.array(plain.to_pylist(), dtype="datetime64[ns]")
    if np.isnat(instants).any():
        raise ValueError("a time stamp is missing")
    return instants.astype(np.int64)


def _seconds(when: pa.ChunkedArray) -> Ints:
    seconds: Floats = when.cast(pa.float64()).combine_chunks().to_numpy()
    if not (np.abs(seconds) < 2.0**32).all():  # NaN included
        raise ValueError("a time stamp is missing or out of range")
    return np.rint(seconds * 1e9).astype(np.int64)


def _mooncake(path: Path) -> tuple[Ints, Ints, Ints, pa.Array | None]:
    columns: tuple[list[Any], ...] = ([], [], [])
    blocks: list[list[int]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                for name, column in zip(_MOONCAKE, columns, strict=True):
                    column.append(float(row[name]))
                blocks.append([int(block) for block in row.get("hash_ids") or ()])
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                wanted = "{" + ", ".join(f'"{name}": …' for name in _MOONCAKE) + "}"
                raise DataFileError(f"line {number} should be {wanted}: {error!r}") from None
    when, given, answered = (np.array(column, dtype=np.float64) for column in columns)
    if not ((np.abs(when) < 2.0**42) & (given < 2**31) & (answered < 2**31)).all():
        raise DataFileError("a row has a time stamp or length that is out of range")
    return (
        np.rint(when * 1e6).astype(np.int64),
        given.astype(np.int64),
        answered.astype(np.int64),
        pa.array(blocks, pa.list_(pa.int64())) if any(blocks) else None,
    )

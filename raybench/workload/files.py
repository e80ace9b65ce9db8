"""Prompts from data files: JSONL, CSV or Parquet, one prompt a row.

A file is read whole, once a process, into Arrow memory; bodies are rendered from it row by row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from raybench.scenario.models import Load

SUFFIXES = (".jsonl", ".csv", ".parquet")
PROMPT, MAX_TOKENS = "prompt", "max_tokens"


class DataFileError(ValueError):
    """A data file that cannot be used. The message says what would be right, not which file."""


class Prompts(NamedTuple):
    """The rows of a prompt file. `max_tokens` is null where the file has none."""

    text: pa.Array  # large_utf8
    max_tokens: pa.Array  # int32

    def __len__(self) -> int:
        return len(self.text)


def prompts(load: Load) -> Prompts:
    """The scenario's prompt file. Raises DataFileError."""
    name = load.request.prompts
    assert name is not None, "asked for prompts where the scenario names none"
    path = Path(name)
    return _prompts(path, stamp(path, SUFFIXES))


def stamp(path: Path, suffixes: tuple[str, ...]) -> tuple[int, int]:
    """Size and time of change: what a cached reading of the file depends on. Raises DataFileError."""
    try:
        if not path.is_file():
            raise DataFileError("is not a file" if path.exists() else "there is no such file")
        if path.suffix.lower() not in suffixes:
            raise DataFileError(f"should be a file that ends in {' or '.join(suffixes)}")
        status = path.stat()
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise DataFileError(f"cannot be read: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)
def _prompts(path: Path, stamped: tuple[int, int]) -> Prompts:
    table = rows(path, (PROMPT,), (MAX_TOKENS,))
    text = _column(table, PROMPT, pa.large_utf8())
    if not len(text):
        raise DataFileError("has no rows")
    if text.null_count:
        at = text.is_null().to_pylist().index(True)
        raise DataFileError(f"row {at + 1} has no {PROMPT!r}; every row needs one")
    limits = (
        _column(table, MAX_TOKENS, pa.int32())
        if MAX_TOKENS in table.column_names
        else pa.nulls(len(text), pa.int32())
    )
    if any(limit < 1 for limit in limits.drop_null().to_pylist()):
        raise DataFileError(f"{MAX_TOKENS!r} should be at least 1 in every row that has it")
    return Prompts(text, limits)


def rows(path: Path, needed: tuple[str, ...], optional: tuple[str, ...]) -> pa.Table:
    """Columns of a data file, `optional` ones only where it has them. Raises DataFileError."""
    wanted = needed + optional
    try:
        if path.suffix.lower() == ".jsonl":
            table = pa.Table.from_pylist(list(_json_lines(path, wanted)))
        elif path.suffix.lower() == ".csv":
            convert = pa.csv.ConvertOptions(column_types={PROMPT: pa.large_utf8()})
            parse = pa.csv.ParseOptions(newlines_in_values=True)
            table = pa.csv.read_csv(path, parse_options=parse, convert_options=convert)
        else:
            present = pa.parquet.read_schema(path).names
            table = pa.parquet.read_table(path, columns=[name for name in wanted if name in present])
    except (pa.ArrowException, OSError) as error:
        raise DataFileError(f"cannot be read: {str(error).splitlines()[0]}") from None
    if table.num_rows and (missing := [name for name in needed if name not in table.column_names]):
        there = ", ".join(table.column_names) or "none of the known ones"
        raise DataFileError(f"has no column {missing[0]!r}; its columns are {there}")
    return table


def _json_lines(path: Path, wanted: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataFileError(f"line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataFileError(f"line {number} should be an object such as {{{wanted[0]!r}: …}}")
            yield {name: row.get(name) for name in wanted if name in row or name == wanted[0]}


def _column(table: pa.Table, name: str, type: pa.DataType) -> pa.Array:
    if not table.num_rows:
        return pa.array([], type)
    try:
        return pa.chunked_array(table[name].cast(type)).combine_chunks()
    except pa.ArrowException as error:
        raise DataFileError(f"column {name!r}: {str(error).splitlines()[0]}") from None

"""Data files of the workload: prompts, conversations, bodies and lengths from JSONL, CSV or Parquet.

A file is read whole, once a process, into Arrow memory; bodies are rendered from it row by row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from raybench.scenario.distributions import MOST
from raybench.scenario.request import Request
from raybench.workload.draws import Ints

SUFFIXES = (".jsonl", ".csv", ".parquet")
PROMPT, MESSAGES, CONVERSATIONS, MAX_TOKENS = "prompt", "messages", "conversations", "max_tokens"
_ROLES = {"human": "user", "gpt": "assistant"}  # as ShareGPT's files call them


class DataFileError(ValueError):
    """A data file that cannot be used. The message says what would be right, not which file."""


class Prompts(NamedTuple):
    """The rows of a prompt file.

    `text` (large_utf8) is the prompt, or JSON: of a list of [role, content] where `kind` is messages, of a
    whole body where it is body. `max_tokens` (int32) is null where the file has none. `turns` is the number
    of user messages, 1 for a plain prompt.
    """

    kind: str
    text: pa.Array
    max_tokens: pa.Array
    turns: Ints

    def __len__(self) -> int:
        return len(self.text)


def prompts(request: Request, raw: bool) -> Prompts:
    """The scenario's prompt file. Raises DataFileError."""
    assert request.prompts is not None, "asked for prompts where the scenario names none"
    path = Path(request.prompts)
    return _prompts(path, stamp(path, SUFFIXES), request.prompt_column, raw)


def values(file: str, column: str) -> Ints:
    """A column of whole numbers of at least 1. Raises DataFileError."""
    path = Path(file)
    return _values(path, stamp(path, SUFFIXES), column)


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
def _prompts(path: Path, stamped: tuple[int, int], column: str | None, raw: bool) -> Prompts:
    wanted = (column,) if column else ("body",) if raw else (PROMPT, MESSAGES, CONVERSATIONS)
    texts: list[str] = []
    limits: list[int | None] = []
    turns: list[int] = []
    kind = ""
    for number, row in enumerate(rows(path, wanted, (MAX_TOKENS,)), 1):
        value = next((row[name] for name in wanted if row.get(name) is not None), None)
        if value is None:
            raise DataFileError(f"row {number} has no {wanted[0]!r}; every row needs one")
        its_kind, text, its_turns = _body(number, value) if raw else _asked(number, value)
        kind = kind or its_kind
        if its_kind != kind:
            raise DataFileError(f"row {number} holds {its_kind} where row 1 holds {kind}")
        limit = row.get(MAX_TOKENS)
        if limit is not None and not _is_count(limit):
            raise DataFileError(f"row {number}: {MAX_TOKENS!r} should be a whole number of at least 1")
        texts.append(text)
        limits.append(None if limit is None else int(limit))
        turns.append(its_turns)
    if not texts:
        raise DataFileError("has no rows")
    return Prompts(
        kind, pa.array(texts, pa.large_utf8()), pa.array(limits, pa.int32()), np.array(turns, dtype=np.int64)
    )


@lru_cache(maxsize=16)
def _values(path: Path, stamped: tuple[int, int], column: str) -> Ints:
    found = []
    for number, row in enumerate(rows(path, (column,), ()), 1):
        value = row.get(column)
        if value is None or not _is_count(value):
            raise DataFileError(f"row {number}: {column!r} should be a whole number of at least 1")
        found.append(int(value))
    if not found:
        raise DataFileError("has no rows")
    return np.array(found, dtype=np.int64)


def _is_count(value: Any) -> bool:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and value == value // 1 and 1 <= value <= MOST


def _asked(number: int, value: Any) -> tuple[str, str, int]:
    """A prompt or a conversation: its kind, its text, how many user turns it has."""
    if isinstance(value, str):
        return "text", value, 1
    if not isinstance(value, list):
        raise DataFileError(f"row {number} should hold text or a list of messages")
    messages = []
    for message in value:
        said = message if isinstance(message, dict) else {}
        role = said.get("role") or said.get("from")
        content = said.get("content") if "content" in said else said.get("value")
        if not isinstance(role, str) or content is None:
            raise DataFileError(f"row {number}: a message should be {{role: …, content: …}}")
        messages.append([_ROLES.get(role, role), content])
    turns = sum(role == "user" for role, _ in messages)
    if not turns:
        raise DataFileError(f"row {number} has no message of role user")
    return MESSAGES, json.dumps(messages, ensure_ascii=False), turns


def _body(number: int, value: Any) -> tuple[str, str, int]:
    if isinstance(value, (dict, list)):
        return "body", json.dumps(value, ensure_ascii=False, separators=(",", ":")), 1
    if isinstance(value, str):
        return "body", value, 1
    raise DataFileError(f"row {number} should hold a body: an object, or text that is sent as it is")


def rows(path: Path, any_of: tuple[str, ...], optional: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Rows of a data file with those of the named columns that it has. Raises DataFileError."""
    if path.suffix.lower() == ".jsonl":
        yield from _json_lines(path, any_of[0])
        return
    wanted = any_of + optional
    try:
        if path.suffix.lower() == ".csv":
            convert = pa.csv.ConvertOptions(column_types={name: pa.large_utf8() for name in _TEXTS})
            parse = pa.csv.ParseOptions(newlines_in_values=True)
            table = pa.csv.read_csv(path, parse_options=parse, convert_options=convert)
        else:
            present = pa.parquet.read_schema(path).names
            table = pa.parquet.read_table(path, columns=[name for name in wanted if name in present] or None)
    except (pa.ArrowException, OSError) as error:
        raise DataFileError(f"cannot be read: {str(error).splitlines()[0]}") from None
    if not any(name in table.column_names for name in any_of):
        there = ", ".join(table.column_names)
        raise DataFileError(f"has no column {any_of[0]!r}; its columns are {there}")
    for batch in table.select([name for name in wanted if name in table.column_names]).to_batches():
        yield from batch.to_pylist()


_TEXTS = (PROMPT, "body")  # columns of a CSV that are text even where they look like numbers


def _json_lines(path: Path, example: str) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataFileError(f"line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataFileError(f"line {number} should be an object such as {{{example!r}: …}}")
            yield row

"""Columns of record batches as NumPy arrays, and the differences that figures are made of."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raybench.schema import Outcome, Phase, Requests

MISSING = np.iinfo(np.int64).min
ONE_TOKEN = -1.0
"""TPOT of an answer of one token: there is no second one to wait for."""
OUTCOMES = list(Outcome)
PHASES = list(Phase)
OK, TIMEOUT, CANCELLED, NOT_SENT, LOST = (
    OUTCOMES.index(o)
    for o in (Outcome.OK, Outcome.TIMEOUT, Outcome.CANCELLED, Outcome.NOT_SENT, Outcome.LOST)
)


@dataclass
class Rows:
    """Rows of `requests` as aligned arrays; durations in ns, MISSING (NaN for tpot) where there is none."""

    outcome: NDArray[np.int8]
    answered: NDArray[np.bool_]  # an HTTP status arrived
    lateness: NDArray[np.int64]  # sent − anchor
    ttft: NDArray[np.int64]  # first token − sent
    e2e: NDArray[np.int64]  # done − sent
    tpot: NDArray[np.float64]  # (last − first) / (tokens − 1), or ONE_TOKEN
    tokens: NDArray[np.int32]  # −1 without usage
    stage: NDArray[np.int16]
    group: NDArray[np.int32]  # which group of the question; −1 for none

    @property
    def n(self) -> int:
        return len(self.outcome)

    def at(self, where: NDArray[np.bool_] | NDArray[np.intp]) -> Rows:
        return Rows(**{f.name: getattr(self, f.name)[where] for f in fields(self)})


class Growing:
    """An array that is appended to; its first allocation is the expected size, touched only as it fills."""

    def __init__(self, dtype: type[np.generic], expected: int) -> None:
        self._data: NDArray[Any] = np.empty(max(expected, 1024), dtype)
        self.n = 0

    def append(self, part: NDArray[Any]) -> None:
        end = self.n + len(part)
        if end > len(self._data):
            larger = np.empty(max(end, 2 * len(self._data)), self._data.dtype)
            larger[: self.n] = self._data[: self.n]
            self._data = larger
        self._data[self.n : end] = part
        self.n = end

    def append_where(self, part: NDArray[Any], where: NDArray[np.bool_]) -> None:
        """The elements of `part` that `where` marks, without an array of their own in between."""
        count = int(np.count_nonzero(where))
        if count == len(part):
            self.append(part)
        elif self.n + count > len(self._data):
            self.append(part[where])
        else:
            np.compress(where, part, out=self._data[self.n : self.n + count])
            self.n += count

    def array(self) -> NDArray[Any]:
        return self._data[: self.n]


def instants(batch: pa.RecordBatch, name: str) -> NDArray[np.int64]:
    """An int64 column with MISSING for null, and throughout for one that was not read."""
    if name not in batch.schema.names:
        return np.full(batch.num_rows, MISSING)
    column = batch.column(name)
    return np.asarray((column.fill_null(MISSING) if column.null_count else column).to_numpy(), np.int64)


def difference(later: NDArray[np.int64], earlier: NDArray[np.int64]) -> NDArray[np.int64]:
    """later − earlier, MISSING where either is."""
    result = later - earlier  # may wrap where one is MISSING, and is overwritten there
    result[(later == MISSING) | (earlier == MISSING)] = MISSING
    return result


def valid(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), np.bool_)


def codes(column: pa.DictionaryArray, members: list[Any]) -> NDArray[np.int8]:
    """Codes by position in `members`, also where a foreign writer ordered the dictionary otherwise."""
    raw = column.indices.to_numpy()
    words = column.dictionary.to_pylist()
    if words == [str(m) for m in members][: len(words)]:
        return np.asarray(raw, np.int8)
    return np.asarray(np.array([members.index(w) for w in words], np.int8)[raw], np.int8)


def counts_for_oha(outcome: NDArray[np.int8], answered: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """oha's success: an HTTP status (which every ok has), unless the client itself gave up."""
    return np.asarray((answered | (outcome == OK)) & (outcome != TIMEOUT) & (outcome != CANCELLED), np.bool_)


def time_per_token(
    first: NDArray[np.int64], last: NDArray[np.int64], tokens: NDArray[np.int32]
) -> NDArray[np.float64]:
    decode = difference(last, first)
    result = np.full(len(first), np.nan)
    many = (tokens > 1) & (decode != MISSING)
    result[many] = decode[many] / (tokens[many] - 1)
    result[tokens == 1] = ONE_TOKEN
    return result


def chunk_gaps(batch: pa.RecordBatch, outcome: NDArray[np.int8]) -> NDArray[np.int64]:
    """Differences between neighbouring chunks of one answer, of the rows that ended well."""
    column = batch.column(Requests.chunk_ns)
    if column.null_count == len(column):
        return np.empty(0, np.int64)
    column = column.filter(pa.array(outcome == OK))
    values = column.flatten().to_numpy()
    if len(values) < 2:
        return np.empty(0, np.int64)
    lengths = pc.list_value_length(column).fill_null(0).to_numpy()
    inside = np.ones(len(values), np.bool_)
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    inside[starts[lengths > 0]] = False
    return np.asarray(np.diff(values)[inside[1:]], np.int64)


def group_codes(
    batch: pa.RecordBatch, by: str | float | None, start: NDArray[np.int64], groups: dict[Any, int]
) -> NDArray[np.int32]:
    """Each row's group as an index into `groups`, which grows. Rows without one are in group −1."""
    if by is None:
        return np.zeros(batch.num_rows, np.int32)
    if isinstance(by, str):
        column = batch.column(by)
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        keys = encoded.dictionary.to_pylist()
        raw = encoded.indices.fill_null(-1).to_numpy()
    else:
        width = round(by * 1e9)
        numbers, raw = np.unique(start // width, return_inverse=True)
        keys = [int(k) for k in numbers]
        raw = np.where(start == MISSING, -1, raw)
    lookup = np.array([groups.setdefault(k, len(groups)) for k in keys] + [-1], np.int32)
    return np.asarray(lookup[raw], np.int32)

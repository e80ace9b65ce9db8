"""Accounting: what became of every planned request, and why the failed ones failed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raybench.analysis.columns import (
    CANCELLED,
    MISSING,
    OK,
    OUTCOMES,
    counts_for_oha,
    difference,
    instants,
)
from raybench.analysis.selection import Selection
from raybench.analysis.source import Source
from raybench.schema import Requests, Schedule

MOST_REASONS = 10_000
"""Different error texts kept apart: a server that puts a counter in its errors must not fill the memory."""
OTHER = "(other reasons)"
NO_STATUS = -1
"""What a null stands for while statuses are counted; HTTP has none below 100."""


class Tally:
    """Counts over every row of the run, and over the selected ones. Outcomes are indexed as `Outcome`."""

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.rows = 0
        self.sent = 0  # rows with a sent instant
        self.unknown = 0  # rows whose request_id the plan does not have
        self.outcomes = np.zeros(len(OUTCOMES), np.int64)
        self.selected = np.zeros(len(OUTCOMES), np.int64)
        self.selected_sent = 0
        self.reasons: Counter[tuple[int, str]] = Counter()  # (outcome, error) of selected rows
        self.statuses: Counter[int] = Counter()  # of selected rows that oha counts as a success, as below
        self.as_success = np.zeros(len(OUTCOMES), np.int64)
        self.bytes_answered = 0
        self.connects = 0  # those of them that say when a connection was ready, and how long that took:
        self.connect_sum_ns, self.connect_min_ns, self.connect_max_ns = 0, np.iinfo(np.int64).max, 0
        self.oha_errors: Counter[str] = Counter()  # of selected rows that were sent and are none
        self.cut_off = 0  # of those, given up because the run ended
        self.with_usage = 0  # selected rows that ended well and say how many tokens they had
        self.chunks_are_tokens = True  # and had as many chunks, every one of them
        self.last_ns: int | None = None  # last done or sent instant of all rows
        self.from_ns: int | None = None  # first anchor (or sent) of the selected rows
        self.to_ns: int | None = None  # last done of the selected rows
        self.missing_selected = 0  # planned, no row, and within the selection
        self._seen = np.zeros(planned, np.bool_)

    def add(
        self,
        ids: NDArray[np.int64],
        outcome: NDArray[np.int8],
        sent: NDArray[np.int64],
        done: NDArray[np.int64],
    ) -> None:
        """Count one batch of rows, selected or not."""
        known = (ids >= 0) & (ids < self.planned)
        self.rows += len(ids)
        self.unknown += int((~known).sum())
        self._seen[ids[known]] = True
        self.outcomes += np.bincount(outcome, minlength=len(OUTCOMES))
        self.sent += int((sent != MISSING).sum())
        latest = max(int(sent.max(initial=MISSING)), int(done.max(initial=MISSING)))
        if latest != MISSING:
            self.last_ns = latest if self.last_ns is None else max(self.last_ns, latest)

    def add_selected(
        self,
        batch: pa.RecordBatch,
        outcome: NDArray[np.int8],
        sent: NDArray[np.int64],
        start: NDArray[np.int64],
        done: NDArray[np.int64],
    ) -> None:
        """Count one batch of selected rows; `start` is the anchor, or sent where there is none."""
        self.selected += np.bincount(outcome, minlength=len(OUTCOMES))
        self.selected_sent += int((sent != MISSING).sum())
        first = start[start != MISSING].min(initial=np.iinfo(np.int64).max)
        if first != np.iinfo(np.int64).max:
            self.from_ns = int(first) if self.from_ns is None else min(self.from_ns, int(first))
        last = int(done.max(initial=MISSING))
        if last != MISSING:
            self.to_ns = last if self.to_ns is None else max(self.to_ns, last)
        self._add_for_oha(batch, outcome, sent)
        tokens = batch.column(Requests.output_tokens).fill_null(-1).to_numpy()
        counted = (outcome == OK) & (tokens >= 0)
        self.with_usage += int(counted.sum())
        chunks = batch.column(Requests.chunks).to_numpy()
        self.chunks_are_tokens &= bool((chunks == tokens)[counted].all())
        failed = outcome != OK
        for code in np.unique(outcome[failed]):
            for error, count in _counts(batch.column(Requests.error), outcome == code):
                key = (int(code), error or "")
                if key not in self.reasons and len(self.reasons) >= MOST_REASONS:
                    key = (int(code), OTHER)
                self.reasons[key] += count

    def _add_for_oha(self, batch: pa.RecordBatch, outcome: NDArray[np.int8], sent: NDArray[np.int64]) -> None:
        status = batch.column(Requests.http_status).fill_null(NO_STATUS).to_numpy()
        success = counts_for_oha(outcome, status != NO_STATUS)
        self.as_success += np.bincount(outcome[success], minlength=len(OUTCOMES))
        self.bytes_answered += int(batch.column(Requests.bytes).to_numpy()[success].sum())
        connect = difference(instants(batch, Requests.connected_ns), sent)[success]
        connect = connect[connect != MISSING]
        if len(connect):
            self.connects += len(connect)
            self.connect_sum_ns += int(connect.sum())
            self.connect_min_ns = min(self.connect_min_ns, int(connect.min()))
            self.connect_max_ns = max(self.connect_max_ns, int(connect.max()))
        # As unsigned numbers they are few and small, which counts ten times quicker than any hash.
        found = np.bincount(status[success & (status != NO_STATUS)].view(np.uint16))
        for code in np.flatnonzero(found):
            self.statuses[int(np.uint16(code).view(np.int16))] += int(found[code])
        failed = ~success & (sent != MISSING)
        self.cut_off += int((failed & (outcome == CANCELLED)).sum())
        for code in np.unique(outcome[failed]):
            for error, count in _counts(batch.column(Requests.error), failed & (outcome == code)):
                text = error or str(OUTCOMES[code])
                full = text not in self.oha_errors and len(self.oha_errors) >= MOST_REASONS
                self.oha_errors[OTHER if full else text] += count

    @property
    def distinct(self) -> int:
        """Planned requests that have a row."""
        return int(self._seen.sum())

    @property
    def missing(self) -> int:
        return self.planned - self.distinct

    @property
    def duplicates(self) -> int:
        """Rows whose request has another row."""
        return self.rows - self.unknown - self.distinct

    def place_missing(self, source: Source, selection: Selection) -> None:
        """Count which of the requests without a row belong to the selection, by their planned instants."""
        if not self.missing or selection.is_everything:
            self.missing_selected = self.missing
            return
        unplaced = self.missing
        for batch in source.batches(Schedule, [Schedule.request_id, Schedule.scheduled_ns]):
            ids = batch.column(0).to_numpy()
            known = (ids >= 0) & (ids < self.planned)
            lost = known & ~self._seen[np.where(known, ids, 0)]
            unplaced -= int(lost.sum())
            for scheduled in batch.column(1).filter(pa.array(lost)).to_pylist():
                self.missing_selected += selection.holds(scheduled)
        self.missing_selected += max(unplaced, 0)  # not even in the plan's file: counted wherever one looks


def _counts(column: pa.Array, where: NDArray[np.bool_]) -> list[tuple[Any, int]]:
    """(value, how often) within a mask."""
    if not where.any():
        return []
    return [(p["values"], p["counts"]) for p in pc.value_counts(column.filter(pa.array(where))).to_pylist()]

"""A run's rows in the order of its schedule, one a planned request, so that runs of one schedule line up
and neighbours are neighbours in time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raybench.analysis import latency
from raybench.analysis.columns import (
    MISSING,
    OK,
    OUTCOMES,
    PHASES,
    TIMEOUT,
    Rows,
    codes,
    difference,
    instants,
    time_per_token,
    valid,
)
from raybench.analysis.question import Anchor, Objective, Question
from raybench.analysis.selection import Selection
from raybench.analysis.source import Source
from raybench.schema import LoadKind, Outcome, Requests, Schedule

Floats = NDArray[np.float64]
_LOST = OUTCOMES.index(Outcome.LOST)


@dataclass(frozen=True)
class Aligned:
    """`rows`, `selected` and `start` have one entry a planned request, in the order of request_id. `start` is
    the planned instant in ns, or the sent one in a closed loop; MISSING where there is none.
    """

    rows: Rows
    selected: NDArray[np.bool_]
    start: NDArray[np.int64]
    anchor: Anchor
    timeout_s: float

    def ttft_s(self) -> tuple[Floats, float]:
        """Each request's TTFT in seconds, NaN where there is none, infinite where a timeout hides it; and
        the time that all hidden ones are known to exceed. So for `e2e_s`.
        """
        return self._latency(self.rows.ttft, first_token_counts=True)

    def e2e_s(self) -> tuple[Floats, float]:
        return self._latency(self.rows.e2e, first_token_counts=False)

    def tpot_s(self) -> Floats:
        known = (self.rows.outcome == OK) & (self.rows.tpot >= 0)
        return np.where(known & self.selected, self.rows.tpot / 1e9, np.nan)

    def good(self, objectives: tuple[Objective, ...]) -> NDArray[np.bool_]:
        return np.asarray(self.selected & latency.good(self.rows, self.anchor, objectives))

    def ok(self) -> NDArray[np.bool_]:
        return np.asarray(self.selected & (self.rows.outcome == OK))

    def gap_s(self) -> Floats:
        """Seconds from each selected request's start to the next one's, 0 for the others. The last counts as
        the mean of the rest, so that n requests at 1/s are n seconds. All zero below two requests.
        """
        gaps = np.zeros(len(self.start))
        at = np.flatnonzero(self.selected & (self.start != MISSING))
        if len(at) < 2:
            return gaps
        start = np.maximum.accumulate(self.start[at]) / 1e9
        gaps[at[:-1]] = np.diff(start)
        gaps[at[-1]] = (start[-1] - start[0]) / (len(at) - 1)
        return gaps

    def _latency(self, metric: NDArray[np.int64], *, first_token_counts: bool) -> tuple[Floats, float]:
        """As `latency.timed` counts, row by row."""
        timeout = self.selected & (self.rows.outcome == TIMEOUT)
        measured = self.selected & (self.rows.outcome == OK)
        if first_token_counts:
            measured |= timeout
        measured &= metric != MISSING
        cut = timeout & ~measured
        late = np.zeros(len(metric))
        if self.anchor is Anchor.SCHEDULED:
            measured &= self.rows.lateness != MISSING
            late = np.where(self.rows.lateness == MISSING, 0, self.rows.lateness) / 1e9
        given_up = np.where(self.rows.e2e == MISSING, self.timeout_s, self.rows.e2e / 1e9)[cut]
        values = np.where(measured, metric / 1e9 + late, np.where(cut, np.inf, np.nan))
        return values, float((given_up + np.maximum(late[cut], 0)).min(initial=np.inf))


_COLUMNS = [
    Requests.request_id,
    Requests.phase,
    Requests.anchor_ns,
    Requests.sent_ns,
    Requests.first_token_ns,
    Requests.last_token_ns,
    Requests.done_ns,
    Requests.outcome,
    Requests.http_status,
    Requests.output_tokens,
]


def align(source: Source, question: Question) -> Aligned:
    """Read a run once. Memory: about 60 bytes a planned request. Requests without a row count as lost."""
    manifest = source.manifest
    n = manifest.planned
    closed = manifest.load_kind is LoadKind.CLOSED
    selection = Selection.of(question, manifest.scenario)
    rows = Rows(
        outcome=np.full(n, _LOST, np.int8),
        answered=np.zeros(n, np.bool_),
        lateness=np.full(n, MISSING),
        ttft=np.full(n, MISSING),
        e2e=np.full(n, MISSING),
        tpot=np.full(n, np.nan),
        tokens=np.full(n, -1, np.int32),
        stage=np.zeros(n, np.int16),
        group=np.zeros(n, np.int32),
    )
    start = np.full(n, MISSING)
    selected = np.ones(n, np.bool_)
    seen = np.zeros(n, np.bool_)
    for batch in source.batches(Schedule, [Schedule.request_id, Schedule.scheduled_ns]):
        ids, here = _ids(batch, n)
        start[ids] = instants(batch, Schedule.scheduled_ns)[here]
    for batch in source.batches(Requests, _COLUMNS):
        ids, here = _ids(batch, n)
        anchor, sent = instants(batch, Requests.anchor_ns), instants(batch, Requests.sent_ns)
        first, done = instants(batch, Requests.first_token_ns), instants(batch, Requests.done_ns)
        tokens = batch.column(Requests.output_tokens).fill_null(-1).to_numpy()
        rows.outcome[ids] = codes(batch.column(Requests.outcome), OUTCOMES)[here]
        rows.answered[ids] = valid(batch.column(Requests.http_status))[here]
        rows.lateness[ids] = difference(sent, anchor)[here]
        rows.ttft[ids] = difference(first, sent)[here]
        rows.e2e[ids] = difference(done, sent)[here]
        rows.tpot[ids] = time_per_token(first, instants(batch, Requests.last_token_ns), tokens)[here]
        rows.tokens[ids] = tokens[here]
        began = np.where(anchor == MISSING, sent, anchor)
        start[ids] = np.where(start[ids] == MISSING, began[here], start[ids])
        seen[ids] = True
        if selection.phase is not None:
            phase = codes(batch.column(Requests.phase), PHASES)[here]
            selected[ids] &= phase == PHASES.index(selection.phase)
        if selection.window_ns is not None:
            low, high = selection.window_ns
            selected[ids] &= ((began >= low) & (began < high))[here]
    for i in np.flatnonzero(~seen):
        selected[i] = selection.holds(None if start[i] == MISSING else int(start[i]))
    return Aligned(
        rows=rows,
        selected=selected,
        start=start,
        anchor=Anchor.SENT if closed else question.anchor or Anchor.SCHEDULED,
        timeout_s=latency.request_timeout_s(manifest.scenario),
    )


def _ids(batch: pa.RecordBatch, planned: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The request ids of a batch that the plan knows, and which of its rows those are."""
    ids = batch.column(Requests.request_id).to_numpy()
    known = (ids >= 0) & (ids < planned)
    return ids[known], known

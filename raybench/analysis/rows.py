"""Reading `requests`: the accounting of every row, and the values of the selected ones.

Only the columns that the question needs are read, once; another thread reads ahead. A run too large for that
is read once for each few of the distributions.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raybench.analysis.columns import (
    MISSING,
    OUTCOMES,
    PHASES,
    Growing,
    Rows,
    chunk_gaps,
    codes,
    difference,
    group_codes,
    instants,
    time_per_token,
    valid,
)
from raybench.analysis.latency import good, request_timeout_s
from raybench.analysis.metrics import E2E, NAMES, TPOT, TTFT, Metrics
from raybench.analysis.question import Anchor, Objective, Question
from raybench.analysis.selection import Selection
from raybench.analysis.source import Source
from raybench.analysis.steady import Series
from raybench.analysis.tally import Tally
from raybench.schema import Requests

T = TypeVar("T")

__all__ = ["Collected", "Rows", "collect", "passes"]

BUDGET_BYTES = 900 * 2**20
"""Values kept at once. Up to 18 million requests one pass is enough."""
BATCH_ROWS = 2**16
"""Smaller batches are joined: a call into NumPy costs as much as a thousand rows."""

COLUMNS = [
    Requests.request_id,
    Requests.stage,
    Requests.phase,
    Requests.anchor_ns,
    Requests.sent_ns,
    Requests.connected_ns,
    Requests.first_token_ns,
    Requests.last_token_ns,
    Requests.done_ns,
    Requests.outcome,
    Requests.http_status,
    Requests.error,
    Requests.output_tokens,
    Requests.chunks,
    Requests.bytes,
]


@dataclass
class Collected:
    """`metrics` of all selected rows; `stages` and `groups` of their parts, by stage and by the question's
    groups. `lateness_all`: of every row that was sent, None where everything is selected.
    """

    selection: Selection
    tally: Tally
    metrics: Metrics
    stages: dict[int, Metrics] = field(default_factory=dict)
    groups: dict[Any, Metrics] = field(default_factory=dict)
    lateness_all: Growing | None = None
    gaps: Growing = field(default_factory=lambda: Growing(np.int64, 0))
    series: Series = field(default_factory=Series)


def passes(planned: int, *, parts: int) -> list[tuple[str, ...]]:
    """Which distributions to read for at once, so that their values fit the budget. `parts`: how many times
    each value is kept (for the whole, for its stage, for its group).
    """
    at_once = max(1, BUDGET_BYTES // max(1, planned * 8 * parts))
    return [NAMES[i : i + at_once] for i in range(0, len(NAMES), at_once)]


def collect(
    source: Source,
    question: Question,
    *,
    anchor: Anchor,
    objectives: Sequence[Objective],
    wanted: Collection[str],
    by_stage: bool,
    first: bool = True,
) -> Collected:
    """Read the run once, for the values of `wanted`. Only the `first` of several passes looks at chunks and
    at the course of time.
    """
    manifest = source.manifest
    load = manifest.scenario.get("load") or {}
    timeout_s, planned, by = request_timeout_s(manifest.scenario), manifest.planned, question.by
    selection = Selection.of(question, manifest.scenario)
    with_chunks = first and load.get("record_chunks", True)
    columns = COLUMNS if first else _needed(wanted)
    columns = [*columns, *([Requests.chunk_ns] if with_chunks else [])]
    columns += [by] if isinstance(by, str) and by not in columns else []
    found = Collected(selection, Tally(planned), Metrics(wanted, planned, timeout_s))
    if not selection.is_everything:
        found.lateness_all = Growing(np.int64, planned if first else 0)
    numbers: dict[Any, int] = {}
    for piece in ahead(_pieces(source, columns, by, found, numbers)):
        batch, rows, start = piece.batch, piece.rows, piece.start
        within = good(rows, anchor, objectives)
        if first:
            found.tally.add_selected(batch, rows.outcome, piece.sent, start, piece.done)
            found.series.add(rows, start)
        found.metrics.add(rows, within)
        if by_stage:
            _add_parts(found.stages, rows.stage, rows, within, wanted, timeout_s, {})
        if by is not None:
            names = {number: key for key, number in list(numbers.items())} | {-1: None}
            _add_parts(found.groups, rows.group, rows, within, wanted, timeout_s, names)
        if with_chunks:
            found.gaps.append(chunk_gaps(batch, rows.outcome))
    if first:
        found.tally.place_missing(source, selection)
    return found


def _needed(wanted: Collection[str]) -> list[str]:
    """What a later pass reads: enough to select the rows and to make the wanted values."""
    columns = [Requests.stage, Requests.phase, Requests.anchor_ns, Requests.sent_ns, Requests.outcome]
    if TPOT in wanted:
        columns += [Requests.first_token_ns, Requests.last_token_ns, Requests.output_tokens]
    if {*TTFT.values(), *E2E.values()} & {*wanted}:
        columns += [Requests.done_ns, Requests.http_status]
    if {*TTFT.values()} & {*wanted} and Requests.first_token_ns not in columns:
        columns.append(Requests.first_token_ns)
    return columns


@dataclass
class _Piece:
    """The selected rows of a batch. `start`: the anchor, or sent where there is none."""

    batch: pa.RecordBatch
    rows: Rows
    start: NDArray[np.int64]
    sent: NDArray[np.int64]
    done: NDArray[np.int64]


def _pieces(
    source: Source, columns: Sequence[str], by: str | float | None, found: Collected, numbers: dict[Any, int]
) -> Iterator[_Piece]:
    """Read, count every row, and derive what the selected ones are judged by: the half of the work that the
    reading thread does. `numbers` grows with the groups that are met.
    """
    first_pass = Requests.request_id in columns
    for batch in joined(source.batches(Requests, columns)):
        outcome = codes(batch.column(Requests.outcome), OUTCOMES)
        anchor, sent = instants(batch, Requests.anchor_ns), instants(batch, Requests.sent_ns)
        done, lateness = instants(batch, Requests.done_ns), difference(sent, anchor)
        if first_pass:
            found.tally.add(batch.column(Requests.request_id).to_numpy(), outcome, sent, done)
        start = np.where(anchor == MISSING, sent, anchor)
        if found.lateness_all is not None:
            found.lateness_all.append(lateness[lateness != MISSING])
            keep = _kept(batch, found.selection, start)
            batch, outcome, lateness = batch.filter(pa.array(keep)), outcome[keep], lateness[keep]
            start, sent, done = start[keep], sent[keep], done[keep]
        if batch.num_rows == 0:
            continue
        first = instants(batch, Requests.first_token_ns)
        tokens = _tokens(batch)
        rows = Rows(
            outcome=outcome,
            answered=_answered(batch),
            lateness=lateness,
            ttft=difference(first, sent),
            e2e=difference(done, sent),
            tpot=time_per_token(first, instants(batch, Requests.last_token_ns), tokens),
            tokens=tokens,
            stage=batch.column(Requests.stage).to_numpy(),
            group=group_codes(batch, by, start, numbers),
        )
        yield _Piece(batch, rows, start, sent, done)


def _tokens(batch: pa.RecordBatch) -> NDArray[np.int32]:
    """Output tokens, −1 without usage or where they were not read."""
    if Requests.output_tokens not in batch.schema.names:
        return np.full(batch.num_rows, -1, np.int32)
    return np.asarray(batch.column(Requests.output_tokens).fill_null(-1).to_numpy(), np.int32)


def _answered(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    if Requests.http_status not in batch.schema.names:
        return np.zeros(batch.num_rows, np.bool_)
    return valid(batch.column(Requests.http_status))


def _add_parts(
    parts: dict[Any, Metrics],
    numbers: NDArray[Any],
    rows: Rows,
    within: NDArray[np.bool_],
    wanted: Collection[str],
    timeout_s: float,
    names: dict[int, Any],
) -> None:
    """Each row into the part that its number stands for."""
    for number in np.unique(numbers):
        key = names.get(int(number), int(number))
        if key not in parts:
            parts[key] = Metrics(wanted, 0, timeout_s)
        where = numbers == number
        parts[key].add(rows if where.all() else rows.at(where), within[where])


def _kept(batch: pa.RecordBatch, selection: Selection, start: NDArray[np.int64]) -> NDArray[np.bool_]:
    keep = np.ones(batch.num_rows, np.bool_)
    if selection.phase is not None:
        keep &= codes(batch.column(Requests.phase), PHASES) == PHASES.index(selection.phase)
    if selection.window_ns is not None:
        keep &= (start >= selection.window_ns[0]) & (start < selection.window_ns[1])
    return keep


def joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at least BATCH_ROWS, but for the last."""
    waiting: list[pa.RecordBatch] = []
    n = 0
    for batch in batches:
        waiting.append(batch)
        n += batch.num_rows
        if n >= BATCH_ROWS:
            yield waiting[0] if len(waiting) == 1 else pa.concat_batches(waiting)
            waiting, n = [], 0
    if waiting:
        yield pa.concat_batches(waiting)


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, made by another thread while the one before is worked on. Exceptions arrive."""
    ready: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=2)
    stop = threading.Event()

    def offer(item: T | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def read() -> None:
        try:
            for item in items:
                offer(item)
                if stop.is_set():
                    return
            offer(None)
        except BaseException as e:
            offer(e)

    thread = threading.Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()

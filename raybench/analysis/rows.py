"""One pass over `requests`: the selected rows as aligned NumPy arrays, and the accounting of all of them.

Only the columns that the question needs are read. Instants become differences at once, so that a row costs
44 bytes whatever its table holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raybench.analysis.columns import (
    MISSING,
    OUTCOMES,
    PHASES,
    Growing,
    chunk_gaps,
    codes,
    difference,
    group_codes,
    instants,
    time_per_token,
    valid,
)
from raybench.analysis.question import Question
from raybench.analysis.selection import Selection
from raybench.analysis.source import Source
from raybench.analysis.tally import Tally
from raybench.schema import Requests


@dataclass
class Rows:
    """Selected rows, aligned; durations in ns, MISSING (NaN for tpot) where there is none."""

    outcome: NDArray[np.int8]
    answered: NDArray[np.bool_]  # an HTTP status arrived
    lateness: NDArray[np.int64]  # sent − anchor
    ttft: NDArray[np.int64]  # first token − sent
    e2e: NDArray[np.int64]  # done − sent
    tpot: NDArray[np.float64]  # (last − first) / (tokens − 1), or ONE_TOKEN
    tokens: NDArray[np.int32]  # −1 without usage
    stage: NDArray[np.int16]
    group: NDArray[np.int32]  # index into `group_names`; −1 for none

    @property
    def n(self) -> int:
        return len(self.outcome)


_TYPES: dict[str, type[np.generic]] = {
    "outcome": np.int8,
    "answered": np.bool_,
    "lateness": np.int64,
    "ttft": np.int64,
    "e2e": np.int64,
    "tpot": np.float64,
    "tokens": np.int32,
    "stage": np.int16,
    "group": np.int32,
}


@dataclass
class Collected:
    rows: Rows
    group_keys: list[Any]  # what each number in `rows.group` stands for
    tally: Tally
    lateness_all: NDArray[np.int64]  # of every row that was sent, selected or not
    gaps: NDArray[np.int64]  # between the chunks of one answer, of the selected rows that ended well
    selection: Selection


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


def collect(source: Source, question: Question) -> Collected:
    """Read the run once. Memory: 44 bytes a selected row, 1 a planned one, 8 a timed chunk."""
    manifest = source.manifest
    selection = Selection.of(question, manifest.scenario)
    everything = selection.is_everything
    by = question.by
    chunks = (manifest.scenario.get("load") or {}).get("record_chunks", True)
    columns = [*COLUMNS, *([Requests.chunk_ns] if chunks else [])]
    columns += [by] if isinstance(by, str) and by not in columns else []
    tally = Tally(manifest.planned)
    out = {name: Growing(dtype, manifest.planned) for name, dtype in _TYPES.items()}
    lateness_all = Growing(np.int64, 0 if everything else manifest.planned)
    gaps = Growing(np.int64, 0)
    groups: dict[Any, int] = {}
    for batch in source.batches(Requests, columns):
        outcome = codes(batch.column(Requests.outcome), OUTCOMES)
        anchor, sent = instants(batch, Requests.anchor_ns), instants(batch, Requests.sent_ns)
        done = instants(batch, Requests.done_ns)
        lateness = difference(sent, anchor)
        tally.add(batch.column(Requests.request_id).to_numpy(), outcome, sent, done)
        start = np.where(anchor == MISSING, sent, anchor)
        if not everything:
            lateness_all.append(lateness[lateness != MISSING])
            keep = _kept(batch, selection, start)
            batch = batch.filter(pa.array(keep))
            outcome, sent, done = outcome[keep], sent[keep], done[keep]
            lateness, start = lateness[keep], start[keep]
        if batch.num_rows == 0:
            continue
        tally.add_selected(batch, outcome, sent, start, done)
        first = instants(batch, Requests.first_token_ns)
        tokens = batch.column(Requests.output_tokens).fill_null(-1).to_numpy()
        answered = valid(batch.column(Requests.http_status))
        out["outcome"].append(outcome)
        out["answered"].append(answered)
        out["lateness"].append(lateness)
        out["ttft"].append(difference(first, sent))
        out["e2e"].append(difference(done, sent))
        out["tpot"].append(time_per_token(first, instants(batch, Requests.last_token_ns), tokens))
        out["tokens"].append(tokens)
        out["stage"].append(batch.column(Requests.stage).to_numpy())
        out["group"].append(group_codes(batch, by, start, groups))
        if chunks:
            gaps.append(chunk_gaps(batch, outcome))
    tally.place_missing(source, selection)
    rows = Rows(**{name: column.array() for name, column in out.items()})
    every = rows.lateness[rows.lateness != MISSING] if everything else lateness_all.array()
    return Collected(rows, list(groups), tally, every, gaps.array(), selection)


def _kept(batch: pa.RecordBatch, selection: Selection, start: NDArray[np.int64]) -> NDArray[np.bool_]:
    keep = np.ones(batch.num_rows, np.bool_)
    if selection.phase is not None:
        keep &= codes(batch.column(Requests.phase), PHASES) == PHASES.index(selection.phase)
    if selection.window_ns is not None:
        keep &= (start >= selection.window_ns[0]) & (start < selection.window_ns[1])
    return keep

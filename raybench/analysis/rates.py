"""Requests and tokens per second over time, from counts at the edges of buckets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raybench.analysis.columns import MISSING, OK, instants
from raybench.analysis.curves import POINTS, Floats, Peak, running_count, width_s
from raybench.schema import Requests

QPS_WINDOW_S = 180.0


@dataclass(frozen=True)
class Rates:
    """Per second. `t_s` are the starts of buckets `every_s` long; `qps_t_s` instants, and the two qps lines
    the requests of the 180 s before each of them, over 180 s.

    An answer's output tokens are spread evenly from its first to its last token (all at once where these
    are one instant), so that the area under `tokens` is the number of tokens.
    """

    every_s: float
    t_s: tuple[float, ...]
    sent: tuple[float, ...]
    ok: tuple[float, ...]
    failed: tuple[float, ...]
    tokens: tuple[float, ...]
    peak_tokens: Peak
    output_tokens: int
    qps_t_s: tuple[float, ...]
    qps_sent: tuple[float, ...]
    qps_ok: tuple[float, ...]
    peak_qps: Peak


class RateCounter:
    """Counts at the edges of buckets; differences of counts are rates."""

    def __init__(self, load_ns: tuple[int, int], span_s: tuple[float, float], rows: int) -> None:
        start = min(0, load_ns[0])
        self.every_s = width_s((load_ns[1] - start) / 1e9, rows)
        every = max(1, round(self.every_s * 1e9))
        buckets = (load_ns[1] - start) // every + 1
        self.edges = start + every * np.arange(buckets + 1, dtype=np.int64)
        qps_every = max(1, round(width_s(span_s[1], 0, most=POINTS) * 1e9))
        self.qps_at = np.arange(0, round(span_s[1] * 1e9) + 1, qps_every, dtype=np.int64)
        both = np.concatenate((self.qps_at, self.qps_at - round(QPS_WINDOW_S * 1e9)))
        self.at, self.place = np.unique(both, return_inverse=True)
        self.counts = np.zeros((3, len(self.edges)), np.int64)  # sent, ok, failed, up to each edge
        self.qps = np.zeros((2, len(self.at)), np.int64)
        self.slope = np.zeros((2, len(self.edges)))  # Σ rate and Σ rate·t of the answers under way, changes
        self.jumps = np.zeros(len(self.edges))
        self.output_tokens = 0

    def add(
        self,
        batch: pa.RecordBatch,
        outcome: NDArray[np.int8],
        sent: NDArray[np.int64],
        first: NDArray[np.int64],
        done: NDArray[np.int64],
    ) -> None:
        ok = outcome == OK
        ended, was_sent = done != MISSING, sent != MISSING
        kinds = (sent[was_sent], done[ok & ended], done[~ok & ended & was_sent])
        before_edge = self.edges - 1  # a bucket holds its start and not its end
        for line, when in zip(self.counts, kinds, strict=True):
            line += running_count(when, before_edge)
        for line, when in zip(self.qps, kinds, strict=False):
            line += running_count(when, self.at)
        tokens = np.asarray(batch.column(Requests.output_tokens).fill_null(0).to_numpy(), np.float64)
        last = instants(batch, Requests.last_token_ns)
        start, end = np.where(first == MISSING, done, first), np.where(last == MISSING, done, last)
        counted = ok & (tokens > 0) & (start != MISSING)
        self.output_tokens += int(tokens[counted].sum())
        at_once = counted & (end <= start)
        self.jumps += self._changes(start[at_once], tokens[at_once])
        spread = counted & (end > start)
        t0 = self.edges[0]
        begin_s, end_s = (start[spread] - t0) / 1e9, (end[spread] - t0) / 1e9
        rate = tokens[spread] / (end_s - begin_s)
        for i, (begun, over) in enumerate(((rate, rate), (rate * begin_s, rate * end_s))):
            self.slope[i] += self._changes(start[spread], begun) - self._changes(end[spread], over)

    def _changes(self, when: NDArray[np.int64], weight: NDArray[Any]) -> Floats:
        """Σ weight of what happened before each edge and not before the one before it."""
        at = np.searchsorted(self.edges, when, side="right")
        changes = np.bincount(at, weight, len(self.edges) + 1)[: len(self.edges)]
        return changes.astype(np.float64)

    def rates(self) -> Rates:
        edges_s = self.edges / 1e9
        sent, ok, failed = (np.diff(line) / self.every_s for line in self.counts)
        rate, offset = np.cumsum(self.slope, axis=1)
        until = rate * (edges_s - edges_s[0]) - offset + np.cumsum(self.jumps)
        tokens = np.maximum(np.diff(until) / self.every_s, 0.0)
        tokens[tokens < 1e-6] = 0.0
        n = len(self.qps_at)
        lines = self.qps[:, self.place]
        qps_sent, qps_ok = (lines[:, :n] - lines[:, n:]) / QPS_WINDOW_S
        return Rates(
            every_s=self.every_s,
            t_s=tuple(edges_s[:-1].tolist()),
            sent=tuple(sent.tolist()),
            ok=tuple(ok.tolist()),
            failed=tuple(failed.tolist()),
            tokens=tuple(tokens.tolist()),
            peak_tokens=peak(edges_s[:-1], tokens),
            output_tokens=self.output_tokens,
            qps_t_s=tuple((self.qps_at / 1e9).tolist()),
            qps_sent=tuple(qps_sent.tolist()),
            qps_ok=tuple(qps_ok.tolist()),
            peak_qps=peak(self.qps_at / 1e9, qps_sent),
        )


def peak(t_s: Floats, values: Floats) -> Peak:
    top = int(np.argmax(values))
    return Peak(float(t_s[top]), float(values[top]))

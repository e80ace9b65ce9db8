"""Requests over time: how many a second, how long they took, and their distributions.

A run of up to MOST requests keeps each of them. A larger one is cut into buckets of time of which the exact
percentiles stay, and a distribution keeps its value at POINTS of its ranks, both ends among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raybench.analysis.columns import MISSING, OK, OUTCOMES, PHASES, TIMEOUT, Growing, codes, instants
from raybench.analysis.curves import MOST, POINTS, Peak, width_s
from raybench.analysis.latency import request_timeout_s
from raybench.analysis.quantiles import nearest_rank
from raybench.analysis.question import Anchor
from raybench.analysis.rates import RateCounter, Rates
from raybench.analysis.rows import joined
from raybench.analysis.selection import Selection
from raybench.analysis.source import Source
from raybench.schema import Outcome, Requests

IN_BUCKET = 50
"""Requests that a bucket of percentiles holds on average, at least."""
PERCENTS = (50.0, 90.0, 99.0)
LONGEST_ERROR = 200


@dataclass(frozen=True)
class Dot:
    """One request. `at_least`: it was given up, so that its true latency is larger than `value_s`."""

    request_id: int
    t_s: float
    value_s: float
    at_least: bool
    replica: str | None


@dataclass(frozen=True)
class Miss:
    """A request that has no latency: it failed."""

    request_id: int
    t_s: float
    outcome: str
    error: str


@dataclass(frozen=True)
class Bucket:
    """Requests planned in [t_s, t_s + the bucket's length): the value at each of PERCENTS, then the largest.
    `at_least` from which of these on they are bounds, because timeouts are among them; None: all are known.
    """

    t_s: float
    n: int
    values_s: tuple[float, ...]
    at_least: int | None


@dataclass(frozen=True)
class Latencies:
    """By the instant that a request was planned at (or sent, without a plan). `dots` and `misses`, or
    `buckets`. `n` counts the measured and the given up.
    """

    n: int
    given_up: int
    failed: int
    peak: Peak | None  # of the measured
    dots: tuple[Dot, ...] = ()
    misses: tuple[Miss, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    every_s: float | None = None


@dataclass(frozen=True)
class Ecdf:
    """The share of `n` requests, timeouts among them, that took at most so long; it ends below 1 where some
    were given up. `exact`: every value is here.
    """

    n: int
    given_up: int
    value_s: tuple[float, ...]
    share: tuple[float, ...]
    exact: bool


@dataclass(frozen=True)
class Course:
    rates: Rates | None = None
    ttft: Latencies | None = None
    e2e: Latencies | None = None
    lateness: Latencies | None = None
    ttft_ecdf: Ecdf | None = None
    e2e_ecdf: Ecdf | None = None


COLUMNS = [
    Requests.request_id,
    Requests.phase,
    Requests.anchor_ns,
    Requests.sent_ns,
    Requests.first_token_ns,
    Requests.last_token_ns,
    Requests.done_ns,
    Requests.outcome,
    Requests.output_tokens,
]


def course(
    source: Source,
    selection: Selection,
    anchor: Anchor,
    load_ns: tuple[int, int],
    span_s: tuple[float, float],
) -> Course:
    """Reads the requests once. `load_ns`: their first and last instant; `span_s`: what the axis shows."""
    rows = source.manifest.planned
    few = rows <= MOST
    rates = RateCounter(load_ns, span_s, rows)
    timeout_ns = round(request_timeout_s(source.manifest.scenario) * 1e9)
    ttft, e2e, lateness = (_Gathered(rows, few) for _ in range(3))
    for batch in joined(source.batches(Requests, COLUMNS + [Requests.error, Requests.replica] * few)):
        outcome = codes(batch.column(Requests.outcome), OUTCOMES)
        start, sent = instants(batch, Requests.anchor_ns), instants(batch, Requests.sent_ns)
        planned = start != MISSING
        begin = np.where(planned, start, sent)
        first, done = instants(batch, Requests.first_token_ns), instants(batch, Requests.done_ns)
        base = start if anchor is Anchor.SCHEDULED else sent
        rates.add(batch, outcome, sent, first, done)
        chosen = _selected(batch, selection, begin)
        ok, timeout, there = outcome == OK, outcome == TIMEOUT, (base != MISSING) & (begin != MISSING)
        given_up = np.where((done != MISSING) & (sent != MISSING), done - base, timeout_ns)
        began = (ok | timeout) & (first != MISSING)
        cut = timeout & ~began & there
        miss = ~ok & ~timeout & (begin != MISSING)
        ttft.add(batch, begin, first - base, began & there, given_up, cut, miss, chosen)
        e2e.add(
            batch, begin, done - base, ok & there & (done != MISSING), given_up, timeout & there, miss, chosen
        )
        was_late = planned & (sent != MISSING)
        nothing = np.zeros(len(ok), np.bool_)
        lateness.add(batch, begin, sent - start, was_late, given_up, nothing, nothing, chosen)
    every_s = width_s((load_ns[1] - load_ns[0]) / 1e9, rows, each=IN_BUCKET)
    return Course(
        rates=rates.rates(),
        ttft=ttft.latencies(load_ns[0], every_s),
        e2e=e2e.latencies(load_ns[0], every_s),
        lateness=lateness.latencies(load_ns[0], every_s),
        ttft_ecdf=ttft.ecdf(),
        e2e_ecdf=e2e.ecdf(),
    )


def _selected(batch: pa.RecordBatch, selection: Selection, begin: NDArray[np.int64]) -> NDArray[np.bool_]:
    keep = np.ones(batch.num_rows, np.bool_)
    if selection.phase is not None:
        keep &= codes(batch.column(Requests.phase), PHASES) == PHASES.index(selection.phase)
    if selection.window_ns is not None:
        keep &= (begin >= selection.window_ns[0]) & (begin < selection.window_ns[1])
    return keep


@dataclass
class _Gathered:
    """Values with their starts; each row as well where there are `few`."""

    expected: int
    few: bool
    failed: int = 0
    dots: list[Dot] = field(default_factory=list)
    misses: list[Miss] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start, self.value = (Growing(np.int64, self.expected) for _ in range(2))
        self.cut, self.chosen = (Growing(np.bool_, self.expected) for _ in range(2))

    def add(
        self,
        batch: pa.RecordBatch,
        begin: NDArray[np.int64],
        values: NDArray[np.int64],
        measured: NDArray[np.bool_],
        bounds: NDArray[np.int64],
        cut: NDArray[np.bool_],
        miss: NDArray[np.bool_],
        chosen: NDArray[np.bool_],
    ) -> None:
        """Rows of `measured` have their `values`, those of `cut` took longer than `bounds`, in ns; rows of
        `miss` have none; `chosen` are those that the figures are about.
        """
        there = measured | cut
        self.start.append(begin[there])
        self.value.append(np.where(cut, bounds, values)[there])
        self.cut.append(cut[there])
        self.chosen.append(chosen[there])
        self.failed += int(miss.sum())
        if self.few:
            row = _row_maker(batch)
            self.dots += [
                Dot(
                    row(i)["id"],
                    begin[i] / 1e9,
                    _s(bounds[i] if cut[i] else values[i]),
                    bool(cut[i]),
                    row(i)["on"],
                )
                for i in np.flatnonzero(there)
            ]
            self.misses += [
                Miss(row(i)["id"], begin[i] / 1e9, row(i)["outcome"], row(i)["error"])
                for i in np.flatnonzero(miss)
            ]

    def latencies(self, from_ns: int, every_s: float) -> Latencies | None:
        """None where there was no request at all that could have had one."""
        start, value, cut = self.start.array(), self.value.array(), self.cut.array()
        if not len(value) and not self.failed:
            return None
        measured = ~cut
        peak = None
        if measured.any():
            top = np.flatnonzero(measured)[int(np.argmax(value[measured]))]
            peak = Peak(float(start[top]) / 1e9, float(value[top]) / 1e9)
        few = self.few and len(self.dots) <= MOST
        return Latencies(
            n=len(value),
            given_up=int(cut.sum()),
            failed=self.failed,
            peak=peak,
            dots=tuple(sorted(self.dots, key=lambda d: (d.t_s, d.request_id))) if few else (),
            misses=tuple(sorted(self.misses, key=lambda m: (m.t_s, m.request_id))) if few else (),
            buckets=() if few else _buckets(start, value, cut, from_ns, every_s),
            every_s=None if few else every_s,
        )

    def ecdf(self) -> Ecdf | None:
        chosen = self.chosen.array()
        cut = self.cut.array()[chosen]
        values, n = np.sort(self.value.array()[chosen][~cut]), int(chosen.sum())
        if not len(values):
            return None
        exact = len(values) <= POINTS
        ranks = np.arange(len(values))
        if not exact:
            ranks = np.unique(np.linspace(0, len(values) - 1, POINTS).round().astype(np.int64))
        return Ecdf(
            n=n,
            given_up=int(cut.sum()),
            value_s=tuple((values[ranks] / 1e9).tolist()),
            share=tuple(((ranks + 1) / n).tolist()),
            exact=exact,
        )


def _s(ns: Any) -> float:
    return float(ns) / 1e9


def _row_maker(batch: pa.RecordBatch) -> Any:
    ids, errors = batch.column(Requests.request_id), batch.column(Requests.error)
    outcomes, replicas = batch.column(Requests.outcome), batch.column(Requests.replica)

    def row(i: int) -> Mapping[str, Any]:
        return {
            "id": ids[i].as_py(),
            "outcome": str(Outcome(outcomes[i].as_py())),
            "error": (errors[i].as_py() or "")[:LONGEST_ERROR],
            "on": replicas[i].as_py(),
        }

    return row


def _buckets(
    start: NDArray[np.int64],
    value: NDArray[np.int64],
    cut: NDArray[np.bool_],
    from_ns: int,
    every_s: float,
) -> tuple[Bucket, ...]:
    """Exact percentiles of each bucket, nearest rank; timeouts count as larger than any measured value."""
    at = (start - from_ns) // max(1, round(every_s * 1e9))
    order = np.lexsort((value, cut, at))
    numbers, first = np.unique(at[order], return_index=True)
    made = []
    for number, low, high in zip(numbers, first, [*first[1:], len(order)], strict=True):
        n = int(high - low)
        ranks = [nearest_rank(p, n) for p in PERCENTS] + [n - 1]
        rows = order[[int(low) + r for r in ranks]]
        bounds = np.flatnonzero(cut[rows])
        made.append(
            Bucket(
                t_s=from_ns / 1e9 + float(number) * every_s,
                n=n,
                values_s=tuple((value[rows] / 1e9).tolist()),
                at_least=int(bounds[0]) if len(bounds) else None,
            )
        )
    return tuple(made)

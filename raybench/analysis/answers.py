"""The requests of a run as its scaling events look at them: who waited when, what was missed when, and what
all of it delivered. One pass for the first tokens of replicas, one for the rest; memory for two numbers a
request and objective.

Instants are ns after t0.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raybench.analysis.bill import Served
from raybench.analysis.columns import MISSING, OK, OUTCOMES, Rows, codes, difference, instants, time_per_token
from raybench.analysis.figures import LongWait, Waits
from raybench.analysis.latency import good
from raybench.analysis.question import SUCCESS_RATE, Anchor, Objective
from raybench.analysis.rows import joined
from raybench.analysis.source import Source
from raybench.schema import Requests

LONGEST = 10
Pieces = Sequence[tuple[int, int]]


def first_tokens(source: Source, names: Sequence[str]) -> tuple[dict[str, int], bool]:
    """The first token that came from each of these replicas, and whether any answer names one of them."""
    if not names:
        return {}, False
    found = np.full(len(names), np.iinfo(np.int64).max)
    named = False
    for batch in joined(source.batches(Requests, [Requests.replica, Requests.first_token_ns])):
        which = pc.index_in(batch.column(0), pa.array(names, pa.utf8())).fill_null(-1).to_numpy()
        first = instants(batch, Requests.first_token_ns)
        named = named or bool((which >= 0).any())
        keep = (which >= 0) & (first != MISSING)
        np.minimum.at(found, which[keep], first[keep])
    limit = np.iinfo(np.int64).max
    return {name: int(t) for name, t in zip(names, found, strict=True) if t != limit}, named


class Waiting:
    """Adds up how much of some stretches of time each request spent sent and without a first token."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._requests, self._total, self._max = 0, 0, 0
        self._longest: list[tuple[int, int]] = []  # (ns, −request_id), a heap

    def add(self, ids: NDArray[np.int64], sent: NDArray[np.int64], until: NDArray[np.int64]) -> None:
        """`until`: the first token, or the end of a request that had none."""
        if not self._pieces or not len(ids):
            return
        if int(until.max()) <= self._pieces[0][0] or int(sent.min()) >= self._pieces[-1][1]:
            return
        spent = np.zeros(len(ids), np.int64)
        for start, end in self._pieces:
            spent += np.maximum(np.minimum(until, end) - np.maximum(sent, start), 0)
        self._requests += int((spent > 0).sum())
        self._total += int(spent.sum())
        top = np.argsort(-spent, kind="stable")[:LONGEST]
        mine = [(int(spent[i]), -int(ids[i])) for i in top if spent[i] > 0]
        self._longest = heapq.nlargest(LONGEST, [*self._longest, *mine])

    def figures(self) -> Waits:
        longest = tuple(LongWait(-minus_id, ns / 1e9) for ns, minus_id in self._longest)
        return Waits(self._requests, self._total / 1e9, longest[0].wait_s if longest else 0.0, longest)


class FirstSent:
    """The first request sent in (after, until]."""

    def __init__(self, after: int, until: int) -> None:
        self._after, self._until = after, until
        self.at: int | None = None

    def add(self, sent: NDArray[np.int64]) -> None:
        within = sent[(sent >= self._after) & (sent <= self._until)]
        if len(within):
            first = int(within.min())
            self.at = first if self.at is None else min(self.at, first)


@dataclass(frozen=True)
class Course:
    """When each answer was felt and whether it missed an objective, in order of time. An objective on TTFT
    is felt at the first token, others at the end. A failure misses every objective.
    """

    objective: Objective
    felt: NDArray[np.int64]
    missed: NDArray[np.bool_]

    @property
    def allowed(self) -> float:
        """The share of answers that may miss it."""
        if self.objective.metric == SUCCESS_RATE:
            return 1 - self.objective.limit
        return 1 - (self.objective.percent or 0) / 100

    def is_missed_in(self, start: int, end: int) -> bool:
        i, j = np.searchsorted(self.felt, [start, end], side="left")
        return bool(self.missed[i:j].any())

    def met_from(self, start: int, end: int, window_ns: int) -> int | None:
        """The first answer felt in [start, end) that is within the objective and with which a window begins
        that meets it, by the rule of nearest rank: of n answers in the window, at most n − ceil(p·n) missed.
        A window that `end` cuts short counts as far as it goes. None where there is no such answer.
        """
        i, j = np.searchsorted(self.felt, [start, end], side="left")
        felt, missed = self.felt[i:j], self.missed[i:j]
        before = np.concatenate(([0], np.cumsum(missed)))
        stop = np.searchsorted(felt, felt + window_ns, side="left")
        n = stop - np.arange(len(felt))
        may = n - np.ceil((1 - self.allowed) * n - 1e-9).astype(np.int64)
        fine = ~missed & (before[stop] - before[: len(felt)] <= may)
        return int(felt[np.argmax(fine)]) if fine.any() else None


@dataclass(frozen=True)
class Answers:
    served: Served
    courses: tuple[Course, ...]


COLUMNS = [
    Requests.request_id,
    Requests.anchor_ns,
    Requests.sent_ns,
    Requests.first_token_ns,
    Requests.last_token_ns,
    Requests.done_ns,
    Requests.outcome,
    Requests.output_tokens,
]


def gather(
    source: Source,
    objectives: Sequence[Objective],
    anchor: Anchor,
    waiting: Sequence[Waiting],
    firsts: Sequence[FirstSent],
    last: int,
    *,
    with_courses: bool = True,
) -> Answers:
    """Read every row once: `waiting` and `firsts` are filled on the way. `last`: the end of observation,
    until which a request without an end is taken to have waited. Without courses, none are kept in memory.
    """
    tokens = without = within = 0
    parts: list[tuple[list[NDArray[np.int64]], list[NDArray[np.bool_]]]] = [([], []) for _ in objectives]
    kept = list(zip(objectives, parts, strict=True)) if with_courses else []
    for batch in joined(source.batches(Requests, COLUMNS)):
        sent, done = instants(batch, Requests.sent_ns), instants(batch, Requests.done_ns)
        first = instants(batch, Requests.first_token_ns)
        rows = _rows(batch, sent, first, done)
        good_ones = good(rows, anchor, objectives)
        ok = rows.outcome == OK
        within += int(good_ones.sum())
        tokens += int(rows.tokens[rows.tokens >= 0].sum())
        without += int((ok & (rows.tokens < 0)).sum())
        was_sent = sent != MISSING
        until = np.where(first != MISSING, first, np.where(done != MISSING, done, last))[was_sent]
        ids = batch.column(Requests.request_id).to_numpy()[was_sent]
        for w in waiting:
            w.add(ids, sent[was_sent], until)
        for f in firsts:
            f.add(sent[was_sent])
        for objective, (felt, missed) in kept:
            at = np.where(first != MISSING, first, done) if objective.metric == "ttft" else done
            known = at != MISSING
            miss = ~good(rows, anchor, [] if objective.metric == SUCCESS_RATE else [objective])
            felt.append(at[known])
            missed.append(miss[known])
    kept.clear()
    courses = [_course(objective, *parts.pop(0)) for objective in objectives if with_courses]
    return Answers(Served(tokens, without, within), tuple(courses))


def _course(objective: Objective, felt: list[NDArray[np.int64]], missed: list[NDArray[np.bool_]]) -> Course:
    at = np.concatenate([np.empty(0, np.int64), *felt])
    felt.clear()
    order = np.argsort(at, kind="stable")
    return Course(objective, at[order], np.concatenate([np.empty(0, np.bool_), *missed])[order])


def _rows(
    batch: pa.RecordBatch, sent: NDArray[np.int64], first: NDArray[np.int64], done: NDArray[np.int64]
) -> Rows:
    n = batch.num_rows
    tokens = np.asarray(batch.column(Requests.output_tokens).fill_null(-1).to_numpy(), np.int32)
    return Rows(
        outcome=codes(batch.column(Requests.outcome), OUTCOMES),
        answered=np.zeros(n, np.bool_),
        lateness=difference(sent, instants(batch, Requests.anchor_ns)),
        ttft=difference(first, sent),
        e2e=difference(done, sent),
        tpot=time_per_token(first, instants(batch, Requests.last_token_ns), tokens),
        tokens=tokens,
        stage=np.zeros(n, np.int16),
        group=np.zeros(n, np.int32),
    )

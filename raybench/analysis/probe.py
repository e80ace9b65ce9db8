"""Whether a run at one steady rate shows that the rate is sustained.

It is where the run is valid, every objective is met, requests do not fail, and latency does not grow:

    growth = (mean E2E of the second half − of the first) / half the time judged

Where requests come x% faster than they are served, each second of load adds x/100 s of waiting, whatever the
objectives allow; growth is that x/100. It counts where it is more than a quarter of the precision that is
searched for, and more than twice its own standard error. E2E is from scheduled, halves are of scheduled time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from raybench.analysis.columns import MISSING, OK, OUTCOMES, PHASES, TIMEOUT, codes, difference, instants
from raybench.analysis.figures import ObjectiveResult, Summary
from raybench.analysis.quantiles import nearest_rank
from raybench.analysis.question import SUCCESS_RATE, Objective
from raybench.analysis.source import Source
from raybench.schema import Outcome, Phase, Requests, Schedule

LEAST_SUCCESS = 0.99
"""Demanded where the scenario states no success rate: a server that refuses half its requests serves the rest
in good time."""

_STEADY = PHASES.index(Phase.STEADY)
_UNSENT = [OUTCOMES.index(o) for o in (Outcome.CANCELLED, Outcome.NOT_SENT, Outcome.LOST)]


class Judgement(StrEnum):
    """Of one probe."""

    SUSTAINED = "sustained"
    MISSED = "missed"
    INVALID = "invalid"  # the generators did not do what the plan said: nothing is known of the server


@dataclass(frozen=True)
class Growth:
    """Seconds of latency gained in each second of load, with its standard error."""

    per_s: float
    error: float

    def counts(self, precision: float) -> bool:
        return self.per_s > max(precision / 4, 2 * self.error)


@dataclass(frozen=True)
class Judged:
    word: Judgement
    reasons: tuple[str, ...]  # why it was not sustained
    growth: Growth | None


def judge(source: Source, summary: Summary, precision: float) -> Judged:
    """Of a run that ended by itself, over its steady rows. `summary` is of the same run."""
    found = growth(source)
    if not summary.verdict.valid:
        return Judged(Judgement.INVALID, summary.verdict.reasons, found)
    reasons = [missed(r) for r in summary.objectives if not r.met]
    stated = any(r.objective.metric == SUCCESS_RATE for r in summary.objectives)
    rate = summary.success_rate
    if not stated and (rate is None or rate < LEAST_SUCCESS):
        some = "nothing was asked" if rate is None else f"{rate:.2%}"
        reasons.append(f"success rate {some}, not {LEAST_SUCCESS:.0%} (no other is stated)")
    if found is not None and found.counts(precision):
        reasons.append(f"E2E grew by {found.per_s:.2g} s in each second")
    return Judged(Judgement.MISSED if reasons else Judgement.SUSTAINED, tuple(reasons), found)


def missed(result: ObjectiveResult) -> str:
    """An objective that was not met, in words."""
    o, value = result.objective, result.value
    if value is None:
        return f"{o.name}: nothing measured"
    if o.metric == SUCCESS_RATE:
        return f"{o.name} {value.value:.2%}, not {o.limit:.2%}"
    more = "more than " if value.censored else ""
    return f"{o.name} {more}{value.value:.3g} s, not {o.limit:g} s"


def growth(source: Source) -> Growth | None:
    """None where a half has fewer than two answers. Timeouts count with the time they were waited for."""
    anchor, e2e = _steady_e2e(source)
    load = source.manifest.scenario.get("load") or {}
    start_s = float(load.get("warmup") or 0)
    end_s = sum(float(stage.get("duration") or 0) for stage in load.get("stages") or [])
    half_s = (end_s - start_s) / 2
    second = anchor >= (start_s + half_s) * 1e9
    before, after = e2e[~second] / 1e9, e2e[second] / 1e9
    if half_s <= 0 or len(before) < 2 or len(after) < 2:
        return None
    variance = before.var(ddof=1) / len(before) + after.var(ddof=1) / len(after)
    return Growth(float(after.mean() - before.mean()) / half_s, float(np.sqrt(variance)) / half_s)


def _steady_e2e(source: Source) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(scheduled, done − scheduled) in ns of steady rows that ended well or timed out."""
    anchors, ends = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    columns = [Requests.anchor_ns, Requests.done_ns, Requests.outcome, Requests.phase]
    for batch in source.batches(Requests, columns):
        anchor = instants(batch, Requests.anchor_ns)
        e2e = difference(instants(batch, Requests.done_ns), anchor)
        outcome = codes(batch.column(Requests.outcome), OUTCOMES)
        steady = codes(batch.column(Requests.phase), PHASES) == _STEADY
        at = steady & (e2e != MISSING) & ((outcome == OK) | (outcome == TIMEOUT))
        anchors.append(anchor[at])
        ends.append(e2e[at])
    return np.concatenate(anchors), np.concatenate(ends)


def hopeless(source: Source, objectives: Sequence[Objective]) -> str | None:
    """Why a run that is still going can no longer meet its objectives, whatever comes; None while it can.

    Of n planned steady requests at most n − ceil(p·n) may lie beyond a limit at p; failures, which have no
    latency, only make n smaller. TPOT is not looked at.
    """
    planned = _planned_steady(source)
    over, failed = _beyond(source, objectives)
    for o in objectives:
        if o.metric == SUCCESS_RATE:
            allowed, bad = planned - int(np.ceil(o.limit * planned - 1e-9)), failed
        elif o.metric in ("ttft", "e2e") and planned:
            allowed, bad = planned - 1 - nearest_rank(o.percent or 0, planned), over[o.name]
        else:
            continue
        if bad > allowed:
            what = "failed" if o.metric == SUCCESS_RATE else f"took longer than {o.limit:g} s"
            return f"{o.name}: {bad} of {planned} requests {what} already, at most {allowed} may"
    return None


def _beyond(source: Source, objectives: Sequence[Objective]) -> tuple[dict[str, int], int]:
    """Steady rows so far beyond each latency limit, and those that failed."""
    over = {o.name: 0 for o in objectives}
    failed = 0
    columns = [
        Requests.anchor_ns,
        Requests.first_token_ns,
        Requests.done_ns,
        Requests.outcome,
        Requests.phase,
    ]
    for batch in source.batches(Requests, columns):
        outcome = codes(batch.column(Requests.outcome), OUTCOMES)
        steady = codes(batch.column(Requests.phase), PHASES) == _STEADY
        sent = steady & ~np.isin(outcome, _UNSENT)
        failed += int((sent & (outcome != OK)).sum())
        anchor, done = instants(batch, Requests.anchor_ns), instants(batch, Requests.done_ns)
        e2e = difference(done, anchor)
        ttft = difference(instants(batch, Requests.first_token_ns), anchor)
        ttft = np.where((ttft == MISSING) & (outcome == TIMEOUT), e2e, ttft)
        timed = sent & ((outcome == OK) | (outcome == TIMEOUT))
        for o in objectives:
            if o.metric in ("ttft", "e2e"):
                values = ttft if o.metric == "ttft" else e2e
                over[o.name] += int((timed & (values != MISSING) & (values > o.limit * 1e9)).sum())
    return over, failed


def _planned_steady(source: Source) -> int:
    """Requests planned from the end of the warm-up on."""
    warmup_ns = float((source.manifest.scenario.get("load") or {}).get("warmup") or 0) * 1e9
    columns = [Schedule.scheduled_ns]
    return sum(int((b.column(0).to_numpy() >= warmup_ns).sum()) for b in source.batches(Schedule, columns))

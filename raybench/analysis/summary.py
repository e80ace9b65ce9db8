"""From a run's tables to every figure of its report."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from raybench.analysis import latency, oha
from raybench.analysis.columns import CANCELLED, LOST, MISSING, OK, OUTCOMES, counts_for_oha
from raybench.analysis.figures import (
    Accounting,
    Goodput,
    Header,
    Latencies,
    ObjectiveResult,
    OhaFigures,
    Reason,
    Selected,
    Summary,
    Throughput,
)
from raybench.analysis.quantiles import Value, distribution
from raybench.analysis.question import SUCCESS_RATE, Anchor, Objective, Question, scenario_objectives
from raybench.analysis.rows import Collected, collect
from raybench.analysis.scaling import scaling
from raybench.analysis.source import Source
from raybench.analysis.tally import Tally
from raybench.analysis.verdict import clock_uncertainty_s, verdict
from raybench.schema import LoadKind, Manifest, Outcome, RunStatus


def summarise(source: Source, question: Question | None = None) -> Summary:
    """Every figure of a run, in whatever state. Raises ValueError for an objective it does not know."""
    question = question or Question()
    manifest = source.manifest
    objectives = question.objectives
    if objectives is None:
        objectives = scenario_objectives(manifest.scenario)
    closed = manifest.load_kind is LoadKind.CLOSED
    anchor = Anchor.SENT if closed else question.anchor or Anchor.SCHEDULED
    data = collect(source, question)
    tally = data.tally
    selected = _selected(manifest, question, data)
    accounting = _accounting(manifest, tally)
    percents = list(dict.fromkeys([*question.percentiles, *(o.percent for o in objectives if o.percent)]))
    latencies = latency.latencies(data, percents, manifest, scheduled=not closed)
    good = latency.good(data.rows, anchor, objectives)
    going = manifest.status is RunStatus.RUNNING
    planned = int(tally.selected.sum()) + (0 if going else tally.missing_selected)  # as far as one can know
    rate = int(tally.selected[OK]) / planned if planned else None
    anchors = [Anchor.SENT] + [Anchor.SCHEDULED] * (question.anchor is Anchor.SCHEDULED and not closed)
    late = sorted({50.0, 90.0, 99.0, *percents})
    reasons = sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0]))
    judged = verdict(
        source, accounting, None if closed else distribution(data.lateness_all, (99,)), objectives
    )
    scaled = scaling(source)
    return Summary(
        header=_header(source),  # after everything was read, since reading finds problems
        selected=selected,
        anchor=anchor,
        percentiles=question.percentiles,
        accounting=accounting,
        reasons=tuple(Reason(str(OUTCOMES[code]), error, count) for (code, error), count in reasons),
        lateness=None if closed else latency.lateness(data.rows, late),
        latencies=latencies,
        throughput=_throughput(data, selected, percents),
        goodput=_goodput(int(good.sum()), selected, planned),
        objectives=tuple(_result(o, latencies, anchor, rate) for o in objectives),
        stages=latency.by_stage(data.rows, good, percents, anchor, manifest),
        grouping=latency.by_group(data, good, percents, anchor, manifest, question),
        success_rate=rate,
        verdict=judged,
        oha=tuple(_oha(data, selected, planned, a) for a in anchors),
        scaling=scaled,
    )


def _header(source: Source) -> Header:
    m = source.manifest
    problems = [*m.problems, *getattr(source, "problems", [])]
    return Header(
        name=m.name,
        status=m.status,
        load_kind=m.load_kind,
        schedule_sha256=m.schedule_sha256,
        created_unix_s=m.created_unix_ns / 1e9,
        load_total_s=m.load_total_s,
        generators=m.generators,
        hosts=tuple(sorted({h.hostname for h in m.hosts if h.role == "generator"})),
        versions=dict(m.versions),
        measured=dict(m.measured),
        scenario=dict(m.scenario),
        calibration=m.calibration,
        clock_uncertainty_s=clock_uncertainty_s(m),
        problems=tuple(dict.fromkeys(problems)),
    )


def _seen_s(tally: Tally) -> float | None:
    return None if tally.from_ns is None or tally.to_ns is None else (tally.to_ns - tally.from_ns) / 1e9


def _selected(manifest: Manifest, question: Question, data: Collected) -> Selected:
    selection, tally = data.selection, data.tally
    span: float | None
    window: tuple[float, float | None] | None = None
    if question.window is not None:
        start, end = question.window
        if math.isinf(end):
            window, span, meaning = (start, None), _seen_s(tally), "first planned to last done in the window"
        else:
            window, span, meaning = (start, end), end - start, "length of the window"
    elif selection.phase is not None:
        span, meaning = _seen_s(tally), "first planned to last done of these requests"
    elif manifest.load_total_s is not None:
        span, meaning = manifest.load_total_s, "t0 to the last request accounted for"
    else:
        span, meaning = (tally.last_ns / 1e9 if tally.last_ns else None), "t0 to the last instant on record"
    return Selected(
        window_s=window,
        phase=None if selection.phase is None else str(selection.phase),
        phase_is_default=selection.phase_is_default,
        rows=data.rows.n,
        span_s=span if span and span > 0 else None,
        span_meaning=meaning,
    )


def _accounting(manifest: Manifest, tally: Tally) -> Accounting:
    """A request without a row is lost, unless the run is still going: then its row may yet come."""
    going = manifest.status is RunStatus.RUNNING
    outcomes = {str(o): int(n) for o, n in zip(OUTCOMES, tally.outcomes, strict=True)}
    outcomes[Outcome.LOST] += 0 if going else tally.missing
    return Accounting(
        planned=tally.planned,
        outcomes=outcomes,
        pending=tally.missing if going else 0,
        sent=tally.sent,
        duplicates=tally.duplicates,
        unknown=tally.unknown,
    )


def _per(count: float, span_s: float | None) -> float | None:
    return count / span_s if span_s else None


def _throughput(data: Collected, selected: Selected, percents: Sequence[float]) -> Throughput:
    rows, tally = data.rows, data.tally
    tokens = int(rows.tokens[rows.tokens > 0].sum(dtype=np.int64))
    return Throughput(
        sent_per_s=_per(tally.selected_sent, selected.span_s),
        ok_per_s=_per(int(tally.selected[OK]), selected.span_s),
        output_tokens=tokens,
        tokens_per_s=_per(tokens, selected.span_s),
        user_tokens_per_s=distribution(latency.user_rates(rows), sorted({5.0, 50.0, 95.0, *percents}), per=1),
        without_usage=int(((rows.outcome == OK) & (rows.tokens < 0)).sum()),
    )


def _goodput(good: int, selected: Selected, planned: int) -> Goodput:
    return Goodput(good=good, per_s=_per(good, selected.span_s), share=good / planned if planned else None)


def _result(objective: Objective, found: Latencies, anchor: Anchor, rate: float | None) -> ObjectiveResult:
    if objective.metric == SUCCESS_RATE:
        value = None if rate is None else Value(rate)
        return ObjectiveResult(objective, value, value is not None and value.value >= objective.limit)
    scheduled = anchor is Anchor.SCHEDULED
    of = {
        "ttft": found.ttft_scheduled if scheduled else found.ttft_sent,
        "e2e": found.e2e_scheduled if scheduled else found.e2e_sent,
        "tpot": found.tpot,
    }[objective.metric]
    value = of.at(objective.percent or 0) if of else None
    met = value is not None and not value.censored and value.value <= objective.limit
    return ObjectiveResult(objective, value, met)


def _oha(data: Collected, selected: Selected, planned: int, anchor: Anchor) -> OhaFigures:
    rows, tally = data.rows, data.tally
    counted = counts_for_oha(rows.outcome, rows.answered) & (rows.e2e != MISSING)
    if anchor is Anchor.SCHEDULED:
        counted &= rows.lateness != MISSING
    durations = rows.e2e[counted]
    if anchor is Anchor.SCHEDULED:
        durations += rows.lateness[counted]
    as_success = {str(OUTCOMES[i]): int(n) for i, n in enumerate(tally.as_success) if n and i != OK}
    left_out = {
        str(OUTCOMES[i]): int(tally.selected[i]) for i in (CANCELLED, OUTCOMES.index(Outcome.NOT_SENT))
    }
    left_out[str(OUTCOMES[LOST])] = planned - int(tally.selected.sum()) + int(tally.selected[LOST])
    return oha.figures(
        durations / 1e9,
        anchor=anchor,
        errors=tally.oha_errors,
        cut_off=tally.cut_off,
        total_s=selected.span_s,
        total_bytes=tally.bytes_answered,
        status_codes=tally.statuses,
        dialup_s=_dialup_s(tally),
        rates=latency.user_rates(rows),
        counted_as_success=as_success,
        left_out={outcome: n for outcome, n in left_out.items() if n},
    )


def _dialup_s(tally: Tally) -> tuple[float, float, float] | None:
    """Average, fastest, slowest."""
    if not tally.connects:
        return None
    average = tally.connect_sum_ns / tally.connects / 1e9
    return average, tally.connect_min_ns / 1e9, tally.connect_max_ns / 1e9

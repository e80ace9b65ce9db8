"""From a run's tables to every figure of its report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from raybench.analysis import oha
from raybench.analysis.bill import bill
from raybench.analysis.columns import CANCELLED, LOST, NOT_SENT, OK, OUTCOMES
from raybench.analysis.drift import drift
from raybench.analysis.events import chains
from raybench.analysis.figures import (
    Accounting,
    Bill,
    Goodput,
    Header,
    Latencies,
    ObjectiveResult,
    OhaFigures,
    Reason,
    Scaling,
    Selected,
    Summary,
    Throughput,
)
from raybench.analysis.latency import Parts
from raybench.analysis.load import plan
from raybench.analysis.metrics import E2E, LATENESS, TPOT, TTFT, Metrics
from raybench.analysis.observed import observe
from raybench.analysis.quantiles import Distribution, Value, distribution
from raybench.analysis.question import SUCCESS_RATE, Anchor, Objective, Question, scenario_objectives
from raybench.analysis.rows import Collected, collect, passes
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
    read = _read(source, question, objectives, anchor)
    data, tally = read.data, read.data.tally
    selected = _selected(manifest, question, data)
    accounting = _accounting(manifest, tally)
    latencies = _latencies(read, scheduled=not closed)
    going = manifest.status is RunStatus.RUNNING
    planned = int(tally.selected.sum()) + (0 if going else tally.missing_selected)  # as far as one can know
    rate = int(tally.selected[OK]) / planned if planned else None
    reasons = sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0]))
    judged = verdict(source, accounting, None if closed else read.lateness_all, objectives)
    scaled, billed = _scaling(source, question, objectives, anchor)
    return Summary(
        header=_header(source),  # after everything was read, since reading finds problems
        selected=selected,
        anchor=anchor,
        percentiles=question.percentiles,
        accounting=accounting,
        reasons=tuple(Reason(str(OUTCOMES[code]), error, count) for (code, error), count in reasons),
        lateness=None if closed else read.distributions[LATENESS],
        latencies=latencies,
        steady=data.series.suggest() if _is_constant(manifest) else None,
        throughput=_throughput(read, selected),
        goodput=_goodput(data.metrics.good, selected, planned),
        objectives=tuple(_result(o, latencies, anchor, rate) for o in objectives),
        stages=read.stages.grouping("stage") if len(read.stages) > 1 else None,
        grouping=read.groups.grouping(question.by) if question.by is not None else None,
        success_rate=rate,
        verdict=judged,
        oha=tuple(
            _oha(read, a, selected, planned) for a in (Anchor.SENT, Anchor.SCHEDULED) if a in read.answered
        ),
        scaling=scaled,
        drift=drift(source, question, anchor),
        bill=billed,
    )


def _scaling(
    source: Source, question: Question, objectives: Sequence[Objective], anchor: Anchor
) -> tuple[Scaling | None, Bill | None]:
    """What the deployment did and what it cost; None where none was observed."""
    seen = observe(source)
    scaled = scaling(source, seen) if seen else None
    if seen is None or scaled is None:
        return None, None
    planned = plan(source)
    taken_apart, answers = chains(source, seen, planned, objectives, anchor)
    return replace(scaled, chains=taken_apart), bill(source, seen, planned, answers.served, question)


def _is_constant(manifest: Manifest) -> bool:
    """Whether the load itself stays the same, so that a change in latency is one of the server."""
    stages = (manifest.scenario.get("load") or {}).get("stages") or [{}]
    process = (stages[0].get("arrival") or {}).get("process")
    return len(stages) == 1 and process in (None, "constant", "poisson", "gamma")


@dataclass
class _Read:
    """What one or more passes over the requests left: counts and distributions, no values."""

    data: Collected  # of the first pass
    lateness_all: Distribution  # of every request that was sent, selected or not
    inter_chunk: Distribution
    stages: Parts
    groups: Parts
    distributions: dict[str, Distribution] = field(default_factory=dict)
    rates: Distribution = field(default_factory=lambda: Distribution(0))
    answered: dict[Anchor, oha.Durations] = field(default_factory=dict)


def _read(source: Source, question: Question, objectives: Sequence[Objective], anchor: Anchor) -> _Read:
    manifest = source.manifest
    closed = manifest.load_kind is LoadKind.CLOSED
    percents = list(dict.fromkeys([*question.percentiles, *(o.percent for o in objectives if o.percent)]))
    stated = (manifest.scenario.get("load") or {}).get("stages") or []
    by_stage = len(stated) != 1
    parts = 1 + by_stage + (question.by is not None)
    read: _Read | None = None
    for names in passes(manifest.planned, parts=parts):
        data = collect(
            source,
            question,
            anchor=anchor,
            objectives=objectives,
            wanted=names,
            by_stage=by_stage,
            first=read is None,
        )
        if read is None:
            everyone = data.lateness_all
            read = _Read(
                data=data,
                lateness_all=distribution(everyone.array(), (99,)) if everyone else Distribution(0),
                inter_chunk=distribution(data.gaps.array(), percents),
                stages=Parts(anchor, percents),
                groups=Parts(anchor, percents),
            )
            data.lateness_all = data.gaps = None  # type: ignore[assignment]  # their memory is needed
        read.stages.take(data.stages, names)
        read.groups.take(data.groups, names)
        _describe(read, data.metrics, names, percents)
        asked = [Anchor.SENT] + [Anchor.SCHEDULED] * (question.anchor is Anchor.SCHEDULED and not closed)
        for a in (a for a in asked if E2E[a] in names):
            read.answered[a] = oha.durations(data.metrics.take_answered_s(a))
        data.metrics.forget()
    assert read is not None
    return read


def _describe(read: _Read, metrics: Metrics, names: Sequence[str], percents: Sequence[float]) -> None:
    def describe(name: str) -> Distribution:
        return metrics.describe(name, sorted({50.0, 90.0, 99.0, *percents}) if name == LATENESS else percents)

    with ThreadPoolExecutor(2) as threads:  # NumPy partitions without holding the interpreter's lock
        read.distributions.update(zip(names, threads.map(describe, names), strict=True))
    if LATENESS in names and read.data.selection.is_everything:
        read.lateness_all = read.distributions[LATENESS]
    if TPOT in names:
        rates = metrics.take_rates()
        read.rates = distribution(rates, sorted({5.0, 50.0, 95.0, *percents}), per=1)


def _latencies(read: _Read, *, scheduled: bool) -> Latencies:
    found, m, tally = read.distributions, read.data.metrics, read.data.tally
    return Latencies(
        ttft_scheduled=found[TTFT[Anchor.SCHEDULED]] if scheduled else None,
        ttft_sent=found[TTFT[Anchor.SENT]],
        e2e_scheduled=found[E2E[Anchor.SCHEDULED]] if scheduled else None,
        e2e_sent=found[E2E[Anchor.SENT]],
        tpot=found[TPOT],
        inter_chunk=read.inter_chunk,
        failed_left_out=m.failed_left_out,
        without_first_token=m.without_first_token,
        without_tpot=m.without_tpot,
        one_chunk_per_token=tally.with_usage > 0 and tally.chunks_are_tokens,
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
        rows=data.metrics.requests,
        span_s=span if span and span > 0 else None,
        span_meaning=meaning,
    )


def _accounting(manifest: Manifest, tally: Tally) -> Accounting:
    """A request without a row is lost, unless the run is still going: then its row may yet come. Where the
    load never started, nobody had any row to lose.
    """
    going = manifest.status is RunStatus.RUNNING
    outcomes = {str(o): int(n) for o, n in zip(OUTCOMES, tally.outcomes, strict=True)}
    missed = Outcome.LOST if manifest.t0_unix_ns is not None else Outcome.NOT_SENT
    outcomes[missed] += 0 if going else tally.missing
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


def _throughput(read: _Read, selected: Selected) -> Throughput:
    m, tally = read.data.metrics, read.data.tally
    return Throughput(
        sent_per_s=_per(tally.selected_sent, selected.span_s),
        ok_per_s=_per(m.ok, selected.span_s),
        output_tokens=m.output_tokens,
        tokens_per_s=_per(m.output_tokens, selected.span_s),
        user_tokens_per_s=read.rates,
        without_usage=m.without_usage,
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


def _oha(read: _Read, anchor: Anchor, selected: Selected, planned: int) -> OhaFigures:
    tally = read.data.tally
    as_success = {str(OUTCOMES[i]): int(n) for i, n in enumerate(tally.as_success) if n and i != OK}
    left_out = {str(OUTCOMES[i]): int(tally.selected[i]) for i in (CANCELLED, NOT_SENT)}
    left_out[str(OUTCOMES[LOST])] = planned - int(tally.selected.sum()) + int(tally.selected[LOST])
    rates = [read.rates.at(p) for p in (5.0, 95.0)]
    return oha.figures(
        read.answered[anchor],
        anchor=anchor,
        errors=tally.oha_errors,
        cut_off=tally.cut_off,
        total_s=selected.span_s,
        total_bytes=tally.bytes_answered,
        status_codes=tally.statuses,
        dialup_s=_dialup_s(tally),
        toks_per_s=(rates[0].value, rates[1].value) if rates[0] and rates[1] else None,
        counted_as_success=as_success,
        left_out={outcome: n for outcome, n in left_out.items() if n},
    )


def _dialup_s(tally: Tally) -> tuple[float, float, float] | None:
    """Average, fastest, slowest."""
    if not tally.connects:
        return None
    average = tally.connect_sum_ns / tally.connects / 1e9
    return average, tally.connect_min_ns / 1e9, tally.connect_max_ns / 1e9

"""A summary as sections: the same words and figures for every form of the report. No arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from raybench.analysis.figures import Group, Grouping, Summary
from raybench.analysis.quantiles import Distribution, Percentile
from raybench.analysis.question import SUCCESS_RATE, Anchor
from raybench.report import bill, drift, header, oha, scaling
from raybench.report.blocks import Block, Grid, Lines, Pairs, Section, Verbatim
from raybench.report.units import (
    MARK,
    NOTHING,
    bound,
    duration,
    number,
    per_second,
    percent,
    percentile,
    value,
)

MOST_REASONS = 12


def sections(summary: Summary) -> list[Section]:
    """In the order of a report. A section that has nothing to say is left out."""
    made = [
        header.section(summary),
        _verdict(summary),
        _accounting(summary),
        _latency(summary),
        _throughput(summary),
        _grouping(summary.stages, summary),
        _grouping(summary.grouping, summary),
        drift.section(summary),
        *_oha(summary),
        scaling.section(summary),
        scaling.chains(summary),
        bill.section(summary),
    ]
    return [s for s in made if s is not None]


def _verdict(s: Summary) -> Section:
    v = s.verdict
    lines = [f"UNFINISHED: {v.unfinished}"] if v.unfinished else []
    lines.append(v.word if v.valid else f"{v.word}: the figures below are what was measured, but")
    lines += [f"  - {reason}" for reason in v.reasons]
    lines += [f"  ok: {check}" for check in v.checks if check not in v.reasons]
    blocks: list[Block] = [Lines(tuple(lines))]
    if s.objectives:
        rows = []
        for o in s.objectives:
            is_rate = o.objective.metric == SUCCESS_RATE
            limit = (
                f"at least {percent(o.objective.limit)}"
                if is_rate
                else f"at most {duration(o.objective.limit)}"
            )
            found = percent(o.value.value if o.value else None) if is_rate else value(o.value)
            rows.append((o.objective.name, limit, found, "met" if o.met else "MISSED"))
        blocks.append(Grid(("objective", "limit", "measured", ""), tuple(rows)))
    return Section("Verdict", tuple(blocks))


def _accounting(s: Summary) -> Section:
    a = s.accounting
    rows = [("planned", number(a.planned)), *((o, number(n)) for o, n in a.outcomes.items())]
    if a.pending:
        rows.append(("not yet", number(a.pending)))
    total = sum(a.outcomes.values()) + a.pending
    blocks: list[Block] = [Grid(("of the whole run", "requests"), tuple(rows))]
    if a.balances:
        blocks.append(Lines((f"It balances: {number(a.planned)} planned, {number(total)} accounted for.",)))
    else:
        blocks.append(
            Lines(
                (
                    f"*** IT DOES NOT BALANCE: {number(a.planned)} planned, {number(total)} accounted for, "
                    f"{number(a.duplicates)} rows repeat a request, {number(a.unknown)} were never planned. "
                    "This is a fault in raybench or in the files; do not use the figures. ***",
                )
            )
        )
    blocks.append(
        Lines((f"Success rate {percent(s.success_rate)} (2xx and a complete answer, of those planned).",))
    )
    if s.reasons:
        reasons = [
            (r.outcome, number(r.count), r.error or "(no reason recorded)") for r in s.reasons[:MOST_REASONS]
        ]
        if len(s.reasons) > MOST_REASONS:
            rest = s.reasons[MOST_REASONS:]
            reasons.append(("others", number(sum(r.count for r in rest)), f"{len(rest)} further reasons"))
        blocks.append(Grid(("failure", "requests", "reason"), tuple(reasons), left=(0, 2)))
    return Section("Accounting", tuple(blocks))


# --- latency ----------------------------------------------------------------------------------------


def _latency(s: Summary) -> Section:
    found, finest = s.latencies, s.header.clock_uncertainty_s or 0.0
    chunk = "inter-token (ITL)" if found.one_chunk_per_token else "inter-chunk"
    closed = found.e2e_scheduled is None
    named: list[tuple[str, Distribution | None, float]] = [
        ("lateness (sent - scheduled)", s.lateness, finest),
        ("TTFT from scheduled", found.ttft_scheduled, finest),
        ("TTFT from sent", found.ttft_sent, 0.0),
        ("E2E from scheduled", found.e2e_scheduled, finest),
        ("E2E from sent", found.e2e_sent, 0.0),
        ("TPOT", found.tpot, 0.0),
        (chunk, found.inter_chunk if found.inter_chunk.n else None, 0.0),
    ]
    if s.anchor is Anchor.SENT and not closed:
        named[1:5] = [named[2], named[1], named[4], named[3]]
    shown = [(name, d, f) for name, d, f in named if d is not None]
    tail = max((p for p in s.percentiles if p < 100), default=None)
    head = ("", "n", "mean", *(f"p{p:g}" for p in s.percentiles), "max")
    rows = [_latency_row(name, d, s.percentiles, tail, f) for name, d, f in shown]
    if tail is not None and tail >= 90:
        head = (*head, f"p{tail:g} is at most")
    else:
        rows = [row[:-1] for row in rows]
    notes = _latency_notes(s, [d for _, d, _ in shown], tail) + _steady(s)
    return Section("Latency", (Grid(head, tuple(rows)), Lines(tuple(notes))))


def _of(d: Distribution, percent_: float | None) -> Percentile | None:
    return next((p for p in d.percentiles if p.percent == percent_), None)


def _latency_row(
    name: str, d: Distribution, percents: Sequence[float], tail: float | None, finest_s: float
) -> tuple[str, ...]:
    last = _of(d, tail)
    return (
        name,
        number(d.n),
        duration(d.mean, finest_s),
        *(percentile(_of(d, p), finest_s) for p in percents),
        value(d.max, finest_s),
        value(last.upper, finest_s) if last else NOTHING,
    )


def _latency_notes(s: Summary, shown: Sequence[Distribution], tail: float | None) -> list[str]:
    found = s.latencies
    notes = []
    if any(not p.supported for d in shown for p in d.percentiles if p.percent in s.percentiles):
        notes.append(f"{MARK} fewer than 10 requests are expected beyond it: too few to rely on.")
    if any(p.upper for d in shown for p in d.percentiles if p.percent == tail):
        notes.append(f"p{tail:g} is at most: its upper bound at 99% confidence, whatever the distribution.")
    cut = found.e2e_sent
    if cut.censored and cut.censored_at is not None:
        notes.append(
            f"{number(cut.censored)} timed out: they count as longer than any other, so a percentile among "
            f"them reads {bound(cut.censored_at)} and there is no mean."
        )
    if found.failed_left_out:
        notes.append(f"{number(found.failed_left_out)} others failed; they have no latency and are left out.")
    if found.without_first_token:
        notes.append(f"{number(found.without_first_token)} good answers came without a first-token instant.")
    if found.without_tpot:
        notes.append(
            f"{number(found.without_tpot)} good answers have no TPOT: no usage from the server, or no tokens."
        )
    return notes


def _steady(s: Summary) -> list[str]:
    if s.steady is None:
        return []
    of = f"(MSER-5 of {s.steady.metric.upper()})"
    if not s.steady.reached:
        return [f"No steady state is seen in the data {of}: it still changes in the second half of the load."]
    if s.steady.from_s == 0:
        return [f"No warm-up is seen in the data {of}."]
    start = f"{s.steady.from_s:g}s"
    return [f"The data suggest leaving out the first {start} as warm-up {of}: --window {start}: does."]


# --- throughput, groups, oha ------------------------------------------------------------------------


def _throughput(s: Summary) -> Section:
    t, g = s.throughput, s.goodput
    rate = t.user_tokens_per_s
    users = [f"p{p:g} {number(v.value)}" for p in (5.0, 50.0, 95.0) if (v := rate.at(p)) is not None]
    limits = [o.objective.name for o in s.objectives if o.objective.metric != SUCCESS_RATE]
    within = (
        f"ended well within {', '.join(limits)}" if limits else "ended well; no latency objective is stated"
    )
    rows = [
        ("requests", f"{per_second(t.sent_per_s)} sent, {per_second(t.ok_per_s)} ended well"),
        ("goodput", f"{per_second(g.per_s)}: {number(g.good)} requests ({percent(g.share)}) {within}"),
        (
            "tokens, the system",
            f"{per_second(t.tokens_per_s)} ({number(t.output_tokens)} output tokens over wall time)",
        ),
        ("tokens, a user", f"{', '.join(users) or NOTHING} /s (1/TPOT of {number(rate.n)} answers)"),
    ]
    blocks: list[Block] = [Pairs(tuple(rows))]
    if t.without_usage:
        blocks.append(
            Lines((f"{number(t.without_usage)} good answers did not say how many tokens they had.",))
        )
    return Section("Throughput", tuple(blocks))


def _grouping(grouping: Grouping | None, s: Summary) -> Section | None:
    if grouping is None:
        return None
    middle, tail = 50.0 if 50.0 in s.percentiles else s.percentiles[0], max(s.percentiles)
    head: tuple[str, ...] = (grouping.by, "n", "ok", "good", "tokens", "late")
    head += tuple(f"{m} p{p:g}" for m in ("TTFT", "E2E", "TPOT") for p in dict.fromkeys((middle, tail)))
    rows = tuple(_group_row(g, tuple(dict.fromkeys((middle, tail)))) for g in grouping.groups)
    note = f"TTFT and E2E from {s.anchor}; late: the largest lateness; good: within every objective."
    return Section(f"By {grouping.by}", (Grid(head, rows), Lines((note,))))


def _group_row(g: Group, percents: Sequence[float]) -> tuple[str, ...]:
    latencies = [percentile(_of(d, p)) for d in (g.ttft, g.e2e, g.tpot) for p in percents]
    counts = (number(g.requests), number(g.ok), number(g.good), number(g.output_tokens))
    return (g.name, *counts, value(g.lateness.max), *latencies)


def _oha(s: Summary) -> list[Section]:
    made = []
    for f in s.oha:
        start = "sent" if f.anchor is Anchor.SENT else "scheduled"
        note = Lines((oha.difference(f, s.success_rate),))
        made.append(
            Section(
                f"In oha's form ({start} to done, any HTTP status a success)", (Verbatim(oha.render(f)), note)
            )
        )
    return made

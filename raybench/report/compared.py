"""Several runs side by side: a column a run, a row a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raybench.analysis.figures import Provisioning, Summary
from raybench.analysis.quantiles import Distribution
from raybench.report import json, markdown, text
from raybench.report.bill import amount
from raybench.report.blocks import Grid, Lines, Section
from raybench.report.units import NOTHING, duration, number, per_second, percent, percentile, value

Figure = Callable[[Summary], str]


def render(named: Sequence[tuple[str, Summary]], format: str = "text") -> str:
    """`named`: what to call each run, and its summary. As JSON, a list of whole reports."""
    if format == "json":
        return json.render_many(named)
    document = {"text": text.document, "markdown": markdown.document}[format]
    return document([section(named)])


def section(named: Sequence[tuple[str, Summary]]) -> Section:
    figures = _figures([s for _, s in named])
    rows = tuple((title, *(figure(s) for _, s in named)) for title, figure in figures)
    notes = [
        "* fewer than 10 requests are expected beyond it. For differences with confidence: raybench compare."
    ]
    if len({s.header.schedule_sha256 for _, s in named}) > 1:
        notes.append("The runs had different schedules.")
    known = [s.bill.provisioning.capacity for _, s in named if s.bill and s.bill.provisioning]
    notes += [f"One replica: {number(c.requests_per_s)}/s, {c.source}." for c in dict.fromkeys(known)]
    return Section("Runs side by side", (Grid(("", *(name for name, _ in named)), rows), Lines(tuple(notes))))


def _figures(summaries: Sequence[Summary]) -> list[tuple[str, Figure]]:
    percents = summaries[0].percentiles
    figures: list[tuple[str, Figure]] = [
        ("verdict", lambda s: "UNFINISHED" if s.verdict.unfinished else s.verdict.word),
        (
            "objectives missed",
            lambda s: number(sum(not o.met for o in s.objectives)) if s.objectives else NOTHING,
        ),
        ("load", lambda s: str(s.header.load_kind)),
        ("schedule", lambda s: s.header.schedule_sha256[:12]),
        ("engine", lambda s: str(s.header.measured.get("engine", NOTHING))),
        *([("policy", _policy)] if any(_policy(s) != NOTHING for s in summaries) else []),
        ("planned", lambda s: number(s.accounting.planned)),
        ("success rate", lambda s: percent(s.success_rate)),
        ("goodput", lambda s: per_second(s.goodput.per_s)),
        ("tokens", lambda s: per_second(s.throughput.tokens_per_s)),
        ("lateness p99", lambda s: value(s.lateness.at(99)) if s.lateness else NOTHING),
    ]
    for title, of in (
        ("TTFT", lambda s: s.latencies.ttft_scheduled or s.latencies.ttft_sent),
        ("E2E", lambda s: s.latencies.e2e_scheduled or s.latencies.e2e_sent),
        ("TPOT", lambda s: s.latencies.tpot),
    ):
        figures += [(f"{title} p{p:g}", _percentile(of, p)) for p in percents]
    return [
        *figures,
        ("replica-seconds", lambda s: number(s.scaling.replica_seconds) if s.scaling else NOTHING),
        ("nothing available", lambda s: duration(s.scaling.nothing_available_s) if s.scaling else NOTHING),
        ("queue area", lambda s: f"{number(s.bill.queue_area)} request-s" if s.bill else NOTHING),
        ("oscillations", lambda s: number(s.bill.oscillations) if s.bill else NOTHING),
        *_provisioning(summaries),
        *_cost(summaries),
    ]


def _provisioning(summaries: Sequence[Summary]) -> list[tuple[str, Figure]]:
    """Nothing where no run was billed with a capacity."""
    if all(s.bill is None or s.bill.provisioning is None for s in summaries):
        return []

    def area(of: Callable[[Provisioning], float]) -> Figure:
        return lambda s: (
            f"{number(of(s.bill.provisioning))} replica-s" if s.bill and s.bill.provisioning else NOTHING
        )

    return [
        ("over-provisioned", area(lambda p: p.over_area)),
        ("under-provisioned", area(lambda p: p.under_area)),
    ]


def _policy(s: Summary) -> str:
    return str((s.header.measured.get("autoscaling") or {}).get("policy") or NOTHING)


def _cost(summaries: Sequence[Summary]) -> list[tuple[str, Figure]]:
    """Nothing where no run was billed with a price."""
    if all(s.bill is None or s.bill.cost is None for s in summaries):
        return []
    return [
        ("cost", lambda s: amount(s.bill.cost if s.bill else None)),
        ("a million tokens", lambda s: amount(s.bill.cost_per_million_output_tokens if s.bill else None)),
        ("a good request", lambda s: amount(s.bill.cost_per_good_request if s.bill else None)),
    ]


def _percentile(of: Callable[[Summary], Distribution], percent_: float) -> Figure:
    def figure(s: Summary) -> str:
        return percentile(next((p for p in of(s).percentiles if p.percent == percent_), None))

    return figure

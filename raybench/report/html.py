"""The report as one page that works with no network at all: `report.html`.

Its figures are the summary's own and its words those of the text report; nothing is computed here. The page
loads nothing and says so to the browser as well: its content security policy allows no address whatever,
and only the two scripts that are in it, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from raybench.analysis.figures import Chain, Summary
from raybench.analysis.quantiles import Distribution
from raybench.analysis.question import Anchor
from raybench.analysis.series import Series
from raybench.report import charts
from raybench.report.blocks import Block, Grid, Lines, Pairs, Section, Verbatim
from raybench.report.charts import Chart
from raybench.report.charts.forms import as_json, javascript
from raybench.report.sections import sections
from raybench.report.units import MARK, NOTHING, duration, instant, number, per_second, percent, percentile

LONG_CELL = 40
"""Characters from which on a cell may wrap."""

FROM_ZERO = "from_zero"

DRAWING = (
    "A dashed line marks a change of the target number of replicas, a green triangle a replica that became "
    "able to serve; grey areas are not part of the figures. Up to 2,000 samples or requests are all drawn. "
    "More samples are drawn as the mean of each of 400 stretches of time, with a band from the smallest to "
    "the largest; more requests as the exact percentiles of stretches of time, up to the longest: no peak is "
    "lost, and each chart says so where it applies. Time is counted from the start of the load."
)


def render(summary: Summary, series: Series) -> str:
    """The whole page."""
    made = charts.charts(summary, series)
    parts = sections(summary)
    groups = list(dict.fromkeys(c.group for c in made))
    named = [("glance", "At a glance"), *((_id(g), g) for g in groups), ("report", "The report in full")]
    style, script, library = _asset("page.css"), _asset("page.js"), javascript()
    body = [
        f"<header>{_top(summary, parts[0])}{_contents(named)}</header>",
        "<main>",
        _section("glance", "At a glance", [_cards(summary), _steps(summary)]),
        *(_section(_id(g), g, [_figure(c) for c in made if c.group == g]) for g in groups),
        _section("report", "The report in full", [_part(s) for s in parts]),
        "</main>",
        f'<footer><h2>How the charts are drawn</h2><p class="muted">{escape(DRAWING)}</p></footer>',
        '<div id="tip" role="presentation" aria-hidden="true" hidden></div>',
        f"<script>{library}</script>",
        f"<script>{script}</script>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy([library, script])}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(summary.header.name)}: raybench report</title>\n<style>{style}</style>\n</head>\n"
        "<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return resources.files("raybench.report").joinpath("page", name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """Nothing from anywhere. Vega turns a chart's expressions into functions: hence unsafe-eval."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed} 'unsafe-eval'"


def _id(text: str) -> str:
    return re.sub(r"[^a-z]+", "-", text.lower()).strip("-")


def _section(id_: str, title: str, content: Iterable[str]) -> str:
    inside = "\n".join(c for c in content if c)
    return f'<section aria-labelledby="{id_}"><h2 id="{id_}">{escape(title)}</h2>\n{inside}\n</section>'


# --- the top -----------------------------------------------------------------------------------------


def _top(summary: Summary, header: Section) -> str:
    rows = dict(next((b.rows for b in header.blocks if isinstance(b, Pairs)), ()))
    warnings = [line for b in header.blocks if isinstance(b, Lines) for line in b.lines]
    made = [f"<h1>{escape(header.title)}</h1>"]
    made += [f'<p class="muted">{escape(rows[k])}</p>' for k in ("run", "load") if k in rows]
    made += [f'<p class="warning">{escape(line.strip("* "))}</p>' for line in warnings]
    v = summary.verdict
    if v.unfinished:
        made.append(f'<p class="warning">Unfinished: {escape(v.unfinished)}</p>')
    missed = [o.objective.name for o in summary.objectives if not o.met]
    words = [f'<span class="{"good" if v.valid else "bad"}">{escape(v.word)}</span>']
    if summary.objectives:
        told = f"objectives missed: {', '.join(missed)}" if missed else "every objective met"
        words.append(f'<span class="{"bad" if missed else "good"}">{escape(told)}</span>')
    made.append(f'<p class="verdict">{", ".join(words)}</p>')
    made += [f'<p class="bad">{escape(reason)}</p>' for reason in v.reasons]
    return "\n".join(made)


def _contents(named: Sequence[tuple[str, str]]) -> str:
    items = "".join(f'<li><a href="#{id_}">{escape(title)}</a></li>' for id_, title in named)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def _cards(s: Summary) -> str:
    ok = next((n for o, n in s.accounting.outcomes.items() if o == "ok"), 0)
    scheduled = s.anchor is Anchor.SCHEDULED
    found = s.latencies
    ttft = found.ttft_scheduled if scheduled else found.ttft_sent
    e2e = found.e2e_scheduled if scheduled else found.e2e_sent
    cards = [
        ("requests", f"{number(ok)} of {number(s.accounting.planned)}", "ended well, of those planned"),
        ("goodput", per_second(s.goodput.per_s), f"{percent(s.goodput.share)} good"),
        *_latency_card("TTFT", ttft, s),
        *_latency_card("E2E", e2e, s),
        ("output tokens", per_second(s.throughput.tokens_per_s), "all replicas together"),
    ]
    if s.scaling is not None:
        cards.append(("replica-seconds", number(s.scaling.replica_seconds), "start-up and drain included"))
        cards.append(("nothing available", duration(s.scaling.nothing_available_s), "of the load"))
    if s.bill is not None and s.bill.cost is not None:
        cards.append(("cost", number(s.bill.cost), f"{number(s.bill.cost_per_good_request)} a good request"))
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in cards
    )
    return f'<dl class="cards">{items}</dl>'


def _latency_card(name: str, d: Distribution | None, s: Summary) -> list[tuple[str, str, str]]:
    if d is None or not d.percentiles:
        return []
    by_percent = sorted((p for p in d.percentiles if p.percent in s.percentiles), key=lambda p: p.percent)
    if not by_percent:
        return []
    middle, tail = by_percent[0], by_percent[-1]
    mark = f"; {MARK} too few to rely on" if not tail.supported else ""
    return [
        (
            f"{name} p{tail.percent:g}",
            percentile(tail),
            f"p{middle.percent:g} {percentile(middle)}, from {s.anchor}{mark}",
        )
    ]


def _steps(s: Summary) -> str:
    """When it scaled, why, how long that took and who waited."""
    if s.scaling is None:
        return "<p>Nothing was observed of a deployment that could scale.</p>"
    if not s.scaling.steps:
        return "<p>The number of replicas asked for never changed.</p>"
    chains = {c.step: c for c in s.scaling.chains}
    rows = []
    for i, step in enumerate(s.scaling.steps):
        change = f"{_count(step.from_replicas)} → {_count(step.to_replicas)}"
        why = (step.reason or NOTHING) + (" [hit a busy replica]" if step.busy else "")
        rows.append((instant(step.t_s), change, *_chain(chains.get(i)), why))
    head = ("when", "replicas", "took in all", "who waited", "the longest", "why")
    note = "Took in all: from the first link of the chain to the last; each chain is in the full report."
    note += " Who waited: requests sent and without a first token while the new replica started."
    if any(step.reason == FROM_ZERO for step in s.scaling.steps):
        note += f" {FROM_ZERO}: the host brings up the first replica as soon as one request waits."
    return (
        "<h3>When it scaled, how long it took, who waited, and why</h3>"
        + _grid(Grid(head, tuple(rows), left=(0, 1, 5)), "Changes of the number of replicas")
        + f'<p class="muted">{escape(note)}</p>'
    )


def _chain(c: Chain | None) -> tuple[str, str, str]:
    if c is None:
        return NOTHING, NOTHING, NOTHING
    if c.waited is None:
        return duration(c.total_s), NOTHING, NOTHING
    return duration(c.total_s), number(c.waited.requests), duration(c.waited.max_s)


def _count(n: int | None) -> str:
    return "?" if n is None else str(n)


# --- charts ------------------------------------------------------------------------------------------


def _figure(chart: Chart) -> str:
    title, text = f"title-{chart.name}", f"text-{chart.name}"
    heading = f'<h3 id="{title}">{escape(chart.title)}</h3>'
    caption = f'<figcaption id="{text}">{escape(chart.text)}</figcaption>'
    if not chart.drawn:
        return f"{heading}<p>{escape(chart.text)}</p>"
    still = re.sub(r'(\bid="|url\(#)', rf"\g<1>{chart.name}-", charts.svg(chart, titled=False))
    return (
        f'<figure class="chart" id="chart-{chart.name}" aria-labelledby="{title}">{heading}\n'
        f'<div class="drawing" role="img" aria-labelledby="{title}" aria-describedby="{text}">{still}</div>\n'
        f'{caption}\n<script type="application/json">{as_json(charts.fitted(chart))}</script></figure>'
    )


# --- the sections of every report --------------------------------------------------------------------


def _part(s: Section) -> str:
    blocks = "\n".join(_block(b, s.title) for b in s.blocks if b != Lines(()))
    return f"<h3>{escape(s.title)}</h3>\n{blocks}"


def _block(block: Block, title: str) -> str:
    match block:
        case Pairs(rows):
            cells = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in rows)
            return f'<table class="pairs"><tbody>{cells}</tbody></table>'
        case Grid():
            return _grid(block, title)
        case Lines(lines):
            items = "".join(f"<li>{escape(line.strip().removeprefix('- '))}</li>" for line in lines)
            return f'<ul class="lines">{items}</ul>'
        case Verbatim(text):
            return f'<pre tabindex="0">{escape(text)}</pre>'


def _grid(g: Grid, name: str) -> str:
    """Wider than a phone at times: then it scrolls by itself, by keyboard too."""
    head = "".join(
        f'<th scope="col"{_left(i, g)}>{escape(h)}</th>' if h else "<td></td>" for i, h in enumerate(g.head)
    )
    rows = []
    for row in g.rows:
        cells = [f'<th scope="row"{_left(0, g)}>{escape(row[0])}</th>'] if row else []
        for i, cell in enumerate(row[1:], start=1):
            is_long = i in g.left and len(cell) > LONG_CELL
            cells.append(f"<td{' class=long' if is_long else _left(i, g)}>{escape(cell)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _left(i: int, g: Grid) -> str:
    return ' class="left"' if i in g.left else ""

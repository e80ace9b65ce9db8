"""Charts of latency: each request or percentiles over time, and distributions."""

from __future__ import annotations

from typing import Any

from raybench.analysis.quantiles import Distribution
from raybench.analysis.question import Anchor
from raybench.analysis.requests_over_time import PERCENTS, Ecdf, Latencies
from raybench.report.charts import style
from raybench.report.charts.style import BLUE, GREEN, GREY, VERMILION, Chart, Frame, Layer, Row, none, y
from raybench.report.units import duration, instant, number, value
from raybench.schema import LoadKind

GROUP, OF_THE_LOAD = "Latency", "Load and throughput"


def charts(frame: Frame) -> list[Chart]:
    s = frame.series
    since = "the instant it was planned for" if s.anchor is Anchor.SCHEDULED else "the instant it was sent"
    return [
        _over_time(frame, "ttft", "TTFT over time", f"From {since} to its first token", s.ttft),
        _over_time(frame, "e2e", "E2E over time", f"From {since} to its end", s.e2e),
        _distributions(frame),
    ]


def lateness(frame: Frame) -> Chart:
    closed = frame.summary.header.load_kind is LoadKind.CLOSED
    what = "Sent minus scheduled, the generator's own fault"
    if closed:
        why = "a closed loop has no schedule to be late against."
        return none("lateness-over-time", OF_THE_LOAD, "Lateness", why)
    return _over_time(frame, "lateness", "Lateness", what, frame.series.lateness, OF_THE_LOAD)


def _over_time(
    frame: Frame, metric: str, title: str, what: str, found: Latencies | None, group: str = GROUP
) -> Chart:
    name = f"{metric}-over-time"
    if found is None or not (found.n or found.failed):
        return none(name, group, title, "no request has one.")
    planned = frame.summary.header.load_kind is not LoadKind.CLOSED
    by = "planned" if planned else "sent"
    dots = not found.buckets
    text = f"{what}; the axis is when it was {by}."
    if found.peak is not None:
        text += (
            f" The longest, {duration(found.peak.value)}, is of a request {by} at {instant(found.peak.t_s)}."
        )
    else:
        text += " No request ended well, so that none has a value."
    if found.given_up:
        shape = " (triangles)" if dots else ""
        text += f" Longer than drawn: {number(found.given_up)} given up{shape}."
    if found.failed:
        shape = " (crosses at 0)" if dots else ""
        text += f" Without a value: {number(found.failed)} that failed in other ways{shape}."
    if dots:
        return Chart(name, group, title, text, _dots(frame, found, metric))
    text += (
        f" Of {number(found.n)} requests, the exact percentiles of every {found.every_s:g} s are drawn; one "
        "that falls among requests given up is a bound."
    )
    return Chart(name, group, title, text, _percentiles(frame, found, metric))


MEASURED, GIVEN_UP, FAILED = KINDS = ("measured", "given up: longer", "failed")
_LOOKS = {MEASURED: (BLUE, "circle"), GIVEN_UP: (VERMILION, "triangle-up"), FAILED: (VERMILION, "cross")}


def _dots(frame: Frame, found: Latencies, metric: str) -> list[Layer]:
    rows: list[Row] = [
        {
            "t": d.t_s,
            "v": d.value_s,
            "kind": GIVEN_UP if d.at_least else MEASURED,
            "is": ("> " if d.at_least else "") + duration(d.value_s),
            "request": d.request_id,
            "replica": d.replica or "-",
        }
        for d in found.dots
    ]
    for m in found.misses:
        told = f"{m.outcome} {m.error}".strip()
        rows.append(
            {"t": m.t_s, "v": 0.0, "kind": FAILED, "is": told, "request": m.request_id, "replica": "-"}
        )
    kinds = [k for k in KINDS if any(r["kind"] == k for r in rows)]
    color = style.shared(kinds, [_LOOKS[k][0] for k in kinds], None)
    shape: dict[str, Any] = {"scale": {"domain": kinds, "range": [_LOOKS[k][1] for k in kinds]}}
    shape["legend"] = color["legend"] = color["legend"] if len(kinds) > 1 else None
    points = style.layer(
        {"type": "point", "filled": True, "size": 28, "opacity": 0.85},
        rows,
        x=frame.x(),
        y=style.seconds("v", _axis_title(metric)),
        color={"field": "kind", "type": "nominal", **color},
        shape={"field": "kind", "type": "nominal", **shape},
        tooltip=[
            style.tip("t", "at, s", ".2f"),
            style.tip("is", _axis_title(metric), None),
            style.tip("request", "request", None),
            style.tip("replica", "replica", None),
        ],
    )
    return [*frame.events(), *_limit(frame, metric, found), points]


def _axis_title(metric: str) -> str:
    return metric if metric == "lateness" else metric.upper()


def _limit(frame: Frame, metric: str, found: Latencies) -> list[Layer]:
    """The objectives of this metric, where they are near enough not to flatten everything else."""
    highest = found.peak.value if found.peak else 0.0
    rows = [
        {"v": o.objective.limit, "label": o.objective.name}
        for o in frame.summary.objectives
        if o.objective.metric == metric and o.objective.limit <= 1.5 * highest
    ]
    return style.levels(rows, style.seconds("v", _axis_title(metric))) if rows else []


def _percentiles(frame: Frame, found: Latencies, metric: str) -> list[Layer]:
    names = [*(f"p{p:g}" for p in PERCENTS), "max"]
    every = found.every_s or 0.0
    rows: list[Row] = []
    for b, after in zip(found.buckets, [*found.buckets[1:], None], strict=True):
        end = b.t_s + every
        row: Row = {"t": b.t_s, "t2": end, "n": b.n, **dict(zip(names, b.values_s, strict=True))}
        for i, name in enumerate(names):
            is_bound = b.at_least is not None and i >= b.at_least
            row[f"is_{name}"] = ("> " if is_bound else "") + duration(row[name])
        rows.append(row)
        if after is None or after.t_s > end + 1e-6:  # the step reaches its end, and nothing follows
            rows += [{**row, "t": end}, {"t": end, "t2": end}]
    x, range_ = frame.x(), (BLUE, GREEN, VERMILION, GREY)
    layers = frame.events()
    for name, dash in zip(names, (style.SOLID, style.DASHED, style.SHORT, style.DOTS), strict=True):
        color = style.colour(name, names, range_)
        look = {"interpolate": "step-after", "strokeWidth": 1.5, "strokeDash": dash}
        layers.append(style.line(rows, x, style.seconds(name, _axis_title(metric)), color, **look))
    tips = [style.tip(f"is_{n}", n, None) for n in names] + [style.tip("n", "requests", ",d")]
    return [*layers, style.hover(rows, x, tips)]


# --- distributions -----------------------------------------------------------------------------------


def _distributions(frame: Frame) -> Chart:
    s, found = frame.series, frame.summary.latencies
    name, title = "distributions", "TTFT and E2E distributions"
    scheduled = s.anchor is Anchor.SCHEDULED
    of: dict[str, tuple[Ecdf | None, Distribution | None, str, list[int]]] = {
        "TTFT": (s.ttft_ecdf, found.ttft_scheduled if scheduled else found.ttft_sent, BLUE, style.SOLID),
        "E2E": (s.e2e_ecdf, found.e2e_scheduled if scheduled else found.e2e_sent, VERMILION, style.DASHED),
    }
    drawn = {n: (e, d, c, dash) for n, (e, d, c, dash) in of.items() if e is not None}
    if not drawn:
        return none(name, GROUP, title, "no request of those selected ended well.")
    told = "; ".join(f"{n} {_in_words(d)}" for n, (_, d, _, _) in drawn.items() if d is not None)
    text = f"The share of requests that took at most so long, from {s.anchor}: {told}."
    if any(e.given_up for e, _, _, _ in drawn.values()):
        text += " A line ends below 100% where requests were given up."
    if not all(e.exact for e, _, _, _ in drawn.values()):
        text += " Drawn are 1,000 of the ranks, each exact."
    x = _duration_axis(drawn.values())
    names, range_ = list(drawn), [c for _, _, c, _ in drawn.values()]
    layers: list[Layer] = []
    for n, (e, _, _, dash) in drawn.items():
        steps: list[Row] = [{"t": e.value_s[0], "share": 0.0}]
        steps += [{"t": v, "share": p} for v, p in zip(e.value_s, e.share, strict=True)]
        look = {"interpolate": "step-after", "strokeDash": dash, "clip": False}
        layers.append(style.line(steps, x, _share(), style.colour(n, names, range_), **look))
    for n, (_, d, color, _) in drawn.items():
        points = [
            {
                "t": p.value.value,
                "share": p.percent / 100,
                "what": f"{n} p{p.percent:g}",
                "is": value(p.value),
            }
            for p in (d.percentiles if d else ())
            if not p.value.censored
        ]
        mark = {"type": "point", "filled": True, "size": 50, "color": color, "opacity": 1}
        tips = [style.tip("what", "percentile", None), style.tip("is", "took", None)]
        layers.append(style.layer(mark, points, x=x, y=_share(), tooltip=tips))
    return Chart(name, GROUP, title, text, layers)


def _share() -> style.Encoding:
    whole = y("share", "share of requests", domain=[0, 1])
    return whole | {"axis": whole["axis"] | {"format": "%"}}


def _duration_axis(drawn: Any) -> style.Encoding:
    """Logarithmic where one value is more than 50 times another."""
    low = min(e.value_s[0] for e, *_ in drawn)
    high = max(e.value_s[-1] for e, *_ in drawn)
    log = low > 0 and high / low > 50
    return {
        "field": "t",
        "type": "quantitative",
        "scale": {"type": "log", "nice": False} if log else {"zero": True},
        "axis": {
            "title": "at most so long" + (" (logarithmic)" if log else ""),
            "labelExpr": "datum.value < 1 ? format(datum.value * 1000, '~r') + ' ms'"
            " : format(datum.value, '~r') + ' s'",
            "labelOverlap": "greedy",
            "grid": False,
            **({"tickCount": 6} if log else {}),
        },
    }


def _in_words(d: Distribution) -> str:
    return ", ".join(f"p{p.percent:g} {value(p.value)}" for p in d.percentiles)

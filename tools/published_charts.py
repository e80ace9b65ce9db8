"""The pictures of docs/published.md: several of the house's charts on one board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raybench.report.charts.forms import specification
from raybench.report.charts.style import (
    BLUE,
    GREY,
    HOVER,
    VERMILION,
    Chart,
    Layer,
    colour,
    layer,
    shared,
    y,
)

WIDTH = 420
THE_FOUR = ("queue-depth", "average-queue-depth", "qps", "replicas")


def board(charts: Sequence[Chart], columns: int, width: int = WIDTH) -> dict[str, Any]:
    """Charts beside and below each other, each with its title, as one Vega-Lite specification."""
    views, data = [], {}
    config: dict[str, Any] = {}
    for number, chart in enumerate(charts):
        made = specification(chart)
        config = made["config"]
        data |= {f"{number}-{name}": rows for name, rows in made["datasets"].items()}
        layers = [
            {**one, "data": {"name": f"{number}-{one['data']['name']}"}}
            for one in made["layer"]
            if one.get("name") != HOVER
        ]
        views.append({"title": chart.title, "width": width, "height": chart.height, "layer": layers})
    return {
        "config": config,
        "background": "white",
        "datasets": data,
        "concat": views,
        "columns": columns,
        "resolve": {"scale": {"color": "independent"}},
    }


def svg(specification: Mapping[str, Any]) -> str:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(dict(specification)))


PUBLISHED, OURS, BAND = "published", "simulated, median", "90% of the repeats"
MEAN = "simulated, mean"


def percentiles(
    profile: str, percents: Sequence[float], bands: Sequence[Sequence[float]], stated: Mapping[float, float]
) -> Chart:
    """Latency over the share of the answers that took no longer. `bands`: low, median, high of each percent,
    in seconds; `stated`: the published percentiles.
    """
    rows = [
        {"share": p, "low": low, "mid": mid, "high": high}
        for p, (low, mid, high) in zip(percents, bands, strict=True)
    ]
    points = [{"share": p, "mid": v} for p, v in stated.items()]
    names, range_ = [PUBLISHED, OURS, BAND], [VERMILION, BLUE, GREY]
    x = {
        "field": "share",
        "type": "quantitative",
        "scale": {"domain": [0, 100], "nice": False},
        "axis": {"title": "percent of the answers", "grid": False, "values": [0, 25, 50, 75, 100]},
    }

    def vertical(column: str) -> dict[str, Any]:
        return y(column, "seconds", domain=[0, 310], nice=False)

    def legend(name: str) -> dict[str, Any]:
        return colour(name, names, range_, "circle")

    mark = {"type": "area", "opacity": 0.3, "clip": True}
    layers: list[Layer] = [
        layer(mark, rows, x=x, y=vertical("low"), y2={"field": "high"}, color=legend(BAND)),
        layer({"type": "line", "strokeWidth": 2}, rows, x=x, y=vertical("mid"), color=legend(OURS)),
        layer(
            {"type": "point", "filled": True, "size": 55, "opacity": 1, "shape": "diamond"},
            points,
            x=x,
            y=vertical("mid"),
            color=legend(PUBLISHED),
        ),
    ]
    return Chart(f"percentiles-{profile}", "Published", profile, "", layers)


def histogram(profile: str, edges: Sequence[float], stated: Sequence[int], ours: Sequence[float]) -> Chart:
    """Answers in each published bin: as published, and the mean of the repeats. `edges`: the upper ones."""
    names, range_ = [PUBLISHED, MEAN], [VERMILION, BLUE]
    lows = [0.0, *edges[:-1]]
    rows = []
    for place, (name, counts) in enumerate(zip(names, (stated, ours), strict=True)):
        for low, high, count in zip(lows, edges, counts, strict=True):
            left = low + (high - low) * (0.08 + 0.44 * place)
            right = left + (high - low) * 0.40
            rows.append({"left": left, "right": right, "count": count, "whose": name})
    x = {
        "field": "left",
        "type": "quantitative",
        "scale": {"domain": [0, edges[-1]], "nice": False},
        "axis": {"title": "seconds", "grid": False, "values": [0, 60, 120, 180, 240, 300]},
    }
    coloured = {"field": "whose", "type": "nominal", **shared(names, range_, "square")}
    ends = {"x2": {"field": "right"}, "y2": {"datum": 0}}
    bars = layer({"type": "rect"}, rows, x=x, y=y("count", "answers"), color=coloured, **ends)
    return Chart(f"histogram-{profile}", "Published", f"{profile}: answers by latency", "", [bars])


def alternatives(title: str, rows: Sequence[Mapping[str, Any]], *, labelled: bool) -> Chart:
    """For each setting, from p50 to p95 of a latency, logarithmic: `rows` with setting, p50 and p95, in
    seconds. `labelled`: with the names of the settings.
    """
    order = [row["setting"] for row in rows]
    text = "datum.value < 1 ? format(datum.value * 1000, '~r') + ' ms' : format(datum.value, '~r') + ' s'"
    x = {
        "field": "p50",
        "type": "quantitative",
        "scale": {"type": "log", "domain": [0.01, NEVER_S], "nice": False},
        "axis": {
            "title": None,
            "values": [0.1, 1, 10, 100, NEVER_S],
            "labelExpr": f"datum.value >= {NEVER_S} ? 'never' : {text}",
        },
    }
    names = {"labelLimit": 330, "minExtent": 260} if labelled else {"labels": False, "ticks": False}
    axis = {"title": None, "grid": False, **names}
    places = {"field": "setting", "type": "ordinal", "sort": order, "axis": axis}
    ends = [{"setting": r["setting"], "p50": r[k], "which": k} for r in rows for k in ("p50", "p95")]
    coloured = {
        "field": "which",
        "type": "nominal",
        **shared(["p50", "p95"], [BLUE, VERMILION], "circle"),
    }
    span = {"type": "rule", "strokeWidth": 5, "color": BLUE, "opacity": 0.35}
    dot = {"type": "point", "filled": True, "size": 60, "opacity": 1}
    layers = [
        layer(span, list(rows), x=x, x2={"field": "p95"}, y=places),
        layer(dot, ends, x=x, y=places, color=coloured),
    ]
    return Chart("alternatives", "Alternatives", title, "", layers, height=24 * len(order))


NEVER_S = 1000
"""Where a percentile is drawn that falls among requests that failed."""

"""How every chart looks: colours, axes, lines, marks of scaling events. A chart is layers of Vega-Lite.

Colours are from Okabe and Ito's palette, those of it that stand out at 3:1 on white and on the dark page
alike; a second line is dashed as well and a failure has its own shape, so that nothing hangs on colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raybench.analysis.curves import WIDTHS_S, Curve
from raybench.analysis.figures import Summary
from raybench.analysis.series import Series
from raybench.report.units import instant
from raybench.schema import ReplicaState

BLUE, VERMILION, GREEN, PURPLE, OCHRE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#9a6f00", "#767676"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, OCHRE)
HEIGHT = 190
HOVER = "hover"
"""Name of the layer that answers the pointer; left out of PNG and SVG."""
MOST_EVENTS = 100
MOST_LABELS = 12
TICKS = 8
PHONE = 320
"""Pixels that a legend must do with."""
TIP_FORMAT = ",.3~r"

Row = dict[str, Any]
Layer = dict[str, Any]
Encoding = dict[str, Any]
FAINT = {"strokeDash": [4, 3], "strokeWidth": 1.5, "color": GREY}
DOTTED = {"strokeDash": [1, 3], "strokeWidth": 2, "color": OCHRE}
SOLID, DASHED, SHORT, DOTS = [1, 0], [6, 2], [3, 2], [1, 2]


@dataclass(frozen=True)
class Chart:
    """One chart: its layers, or none and why. `text` says in words what it shows, with the key figures."""

    name: str
    group: str
    title: str
    text: str
    layers: list[Layer] = field(default_factory=list)
    height: int = HEIGHT

    @property
    def drawn(self) -> bool:
        return bool(self.layers)


def none(name: str, group: str, title: str, why: str) -> Chart:
    return Chart(name, group, title, f"Not drawn: {why}")


@dataclass(frozen=True)
class Frame:
    """What the charts over time share: the axis and the marks of scaling events."""

    series: Series
    summary: Summary

    def x(self, column: str = "t", span_s: tuple[float, float] | None = None) -> Encoding:
        start, end = span_s or self.series.span_s
        return {
            "field": column,
            "type": "quantitative",
            "scale": {"domain": [start, end], "nice": False},
            "axis": {
                "title": "time since the load began",
                "values": _ticks(start, end),
                "labelExpr": _clock(start, end),
                "labelFlush": True,
                "labelOverlap": "greedy",
                "grid": False,
            },
        }

    def events(self) -> list[Layer]:
        """A dashed rule at each change of the target, labelled above the plot; a triangle below where a
        replica became ready; grey over what the figures leave out.
        """
        layers = self._left_out()
        scaling = self.summary.scaling
        if scaling is None:
            return layers
        start, end = self.series.span_s
        steps = [s for s in scaling.steps if start <= s.t_s <= end][:MOST_EVENTS]
        if steps:
            rows = [
                {
                    "t": s.t_s,
                    "label": f"{count(s.from_replicas)}→{count(s.to_replicas)}",
                    "at": instant(s.t_s),
                    "why": s.reason,
                }
                for s in steps
            ]
            tips = [tip("at", "at", None), tip("label", "replicas", None), tip("why", "why", None)]
            layers += rules(rows, self.x(), tips, labelled=len(rows) <= MOST_LABELS)
        ready = [
            {"t": c.t_s, "replica": c.replica, "ready": instant(c.t_s)}
            for c in scaling.changes
            if c.state == ReplicaState.RUNNING and start <= c.t_s <= end
        ][:MOST_EVENTS]
        if ready:
            mark = {"type": "point", "shape": "triangle-up", "filled": True, "size": 45, "color": GREEN}
            mark |= {"opacity": 1, "yOffset": -4}
            tips = [tip("ready", "ready", None), tip("replica", "replica", None)]
            layers.append(layer(mark, ready, x=self.x(), y={"value": HEIGHT}, tooltip=tips))
        return layers

    def _left_out(self) -> list[Layer]:
        if self.series.selected_s is None:
            return []
        (start, end), (low, high) = self.series.span_s, self.series.selected_s
        rows = [{"t": a, "t2": b} for a, b in ((start, low), (high, end)) if a < b]
        mark = {"type": "rect", "color": GREY, "opacity": 0.15}
        whole = {"y": {"value": 0}, "y2": {"value": HEIGHT}}
        return [layer(mark, rows, x=self.x(), x2={"field": "t2"}, **whole)] if rows else []


def layer(mark: str | Mapping[str, Any], rows: Sequence[Row], **encoding: Any) -> Layer:
    """One mark of `rows`. Layers that share the same list share it in the specification too."""
    mark = {"type": mark} if isinstance(mark, str) else dict(mark)
    return {"mark": mark, "data": {"values": rows}, "encoding": encoding}


def rules(
    rows: Sequence[Row], x: Encoding, tips: Sequence[Encoding] = (), *, labelled: bool = True
) -> list[Layer]:
    """A dashed rule at each row's `t`; its `label` above the plot, one line higher where the one before it is
    near.
    """
    made = [layer({"type": "rule", **FAINT}, rows, x=x, **({"tooltip": list(tips)} if tips else {}))]
    start, end = x["scale"]["domain"]
    near = (end - start) / MOST_LABELS
    levels: tuple[list[Row], list[Row]] = ([], [])
    for i, row in enumerate(rows):
        above = i > 0 and row["t"] - rows[i - 1]["t"] < near and rows[i - 1] in levels[0]
        levels[above].append(row)
    for labels, y_ in zip(levels, (-3, -14), strict=True):
        if labels and labelled:
            mark = {"type": "text", "y": y_, "baseline": "bottom", "fontSize": 10}
            made.append(layer(mark, labels, x=x, text={"field": "label"}))
    return made


def levels(rows: Sequence[Row], y_: Encoding) -> list[Layer]:
    """A dotted rule at each row's `v`, with its `label` at the left."""
    text = {"type": "text", "align": "left", "baseline": "bottom", "dx": 4, "dy": -1, "fontSize": 10}
    return [
        layer({"type": "rule", **DOTTED}, rows, y=y_),
        layer(text, rows, y=y_, x={"value": 0}, text={"field": "label"}),
    ]


def y(column: str, title: str, **scale: Any) -> Encoding:
    return {
        "field": column,
        "type": "quantitative",
        "axis": {"title": title, "minExtent": 40, "tickCount": 5},
        "scale": {"zero": True, "nice": True, **scale},
    }


def seconds(column: str, title: str) -> Encoding:
    """An axis of durations, in ms where that is easier to read."""
    text = "datum.value && abs(datum.value) < 0.95 ? format(datum.value * 1000, '~r') + ' ms'"
    whole = y(column, title)
    return whole | {"axis": whole["axis"] | {"labelExpr": f"{text} : format(datum.value, '~r') + ' s'"}}


def colour(name: str, names: Sequence[str], range_: Sequence[str], symbol: str = "stroke") -> Encoding:
    """The colour of one of `names`, with the legend that they share."""
    return {"datum": name, "type": "nominal", **shared(names, range_, symbol)}


def shared(names: Sequence[str], range_: Sequence[str], symbol: str | None = "stroke") -> Encoding:
    return {
        "scale": {"domain": list(names), "range": list(range_[: len(names)])},
        "legend": {
            "orient": "bottom",
            "title": None,
            "direction": "horizontal",
            "symbolStrokeWidth": 3,
            "symbolOpacity": 1,
            "labelLimit": 150,
            "columns": max(1, PHONE // (6 * max(map(len, names), default=1) + 24)),
            **({"symbolType": symbol} if symbol else {}),
        },
    }


def line(rows: Sequence[Row], x: Encoding, y_: Encoding, color: Encoding, **mark: Any) -> Layer:
    look = {"type": "line", "strokeWidth": 2, "clip": True, **mark}
    return layer(look, rows, x=x, y=y_, color=color)


def band(rows: Sequence[Row], x: Encoding, column: str, title: str, color: str) -> Layer:
    """From the smallest to the largest value of each bucket."""
    mark = {"type": "area", "opacity": 0.25, "color": color, "clip": True}
    return layer(mark, rows, x=x, y=y(f"{column}_low", title), y2={"field": f"{column}_high"})


def hover(rows: Sequence[Row], x: Encoding, tips: Sequence[Encoding]) -> Layer:
    """What the pointer meets: a bar as wide as a sample, seen only while it is met."""
    met = {"name": "met", "select": {"type": "point", "on": "pointerover", "clear": "pointerout"}}
    seen = {"condition": {"param": "met", "empty": False, "value": 0.3}, "value": 0}
    made = layer(
        {"type": "rect", "color": GREY},
        rows,
        x=x,
        x2={"field": "t2"},
        y={"value": 0},
        y2={"value": HEIGHT},
        opacity=seen,
        tooltip=[tip("t", "from, s", ".2f"), *tips],
    )
    return {"name": HOVER, "params": [met], **made}


def tip(column: str, title: str, format: str | None = TIP_FORMAT) -> Encoding:
    """A line of a tooltip; with a format for numbers, without one for text."""
    if format is None:
        return {"field": column, "type": "nominal", "title": title}
    return {"field": column, "type": "quantitative", "title": title, "format": format}


def curve_rows(**curves: Curve | None) -> list[Row]:
    """Curves of the same samples as rows: t, t2 (the next one's t), each one's value, low and high."""
    at: dict[float, Row] = {}
    for name, c in curves.items():
        for i, t in enumerate(c.t_s if c else ()):
            assert c is not None
            row = at.setdefault(t, {"t": t})
            row[name] = c.value[i]
            if c.low:
                row[f"{name}_low"], row[f"{name}_high"] = c.low[i], c.high[i]
    return with_ends([at[t] for t in sorted(at)])


def with_ends(rows: list[Row], end: float | None = None) -> list[Row]:
    """Each row's `t2` is where the next one begins; the last one lasts until `end` and is drawn to it."""
    if rows and end is not None:
        rows = [*rows, {**rows[-1], "t": end}]
    ends = [r["t"] for r in rows[1:]] + [r["t"] for r in rows[-1:]]
    return [{**row, "t2": t2} for row, t2 in zip(rows, ends, strict=True)]


def reduced(c: Curve | None) -> str:
    """The sentence that says so where a curve is not every sample."""
    if c is None or c.every_s is None:
        return ""
    return (
        f" Drawn from {c.samples:,} samples: the line is the mean of every {c.every_s:.3g} s, "
        "the band reaches from the smallest to the largest."
    )


def count(n: int | None) -> str:
    return "?" if n is None else str(n)


def _ticks(start: float, end: float) -> list[float]:
    every = next((w for w in WIDTHS_S if (end - start) / w <= TICKS), (end - start) / TICKS)
    first = -int(-start // every)
    return [round(k * every, 6) for k in range(first, int(end // every) + 1)]


def _clock(start: float, end: float) -> str:
    """A Vega expression: seconds, m:ss, h:mm:ss or h:mm, whichever the time and the span ask for."""
    if end <= 600:
        return "format(datum.value, '~r') + ' s'"
    sign, t = "(datum.value < 0 ? '−' : '')", "abs(datum.value)"
    seconds, minutes = f"format({t} % 60, '02d')", f"format(floor({t} % 3600 / 60), '02d')"
    if end <= 7200:
        return f"{sign} + floor({t} / 60) + ':' + {seconds}"
    hours = f"{sign} + floor({t} / 3600) + ':' + {minutes}"
    return f"{hours} + ':' + {seconds}" if end - start <= 1800 else f"{hours} + ' h'"

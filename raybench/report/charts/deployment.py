"""Charts of the deployment over time: the published four, and what stands beside them."""

from __future__ import annotations

from typing import Any

from raybench.analysis.curves import Curve
from raybench.report.charts import style
from raybench.report.charts.style import BLUE, GREEN, GREY, PURPLE, VERMILION, Chart, Frame, Layer, none, y
from raybench.report.units import duration, instant, number, percent

GROUP = "Autoscaling"
UNOBSERVED = "nothing was recorded of the deployment, as with a target that raybench did not deploy."
DEPTH = "requests per replica"


def charts(frame: Frame) -> list[Chart]:
    """The four as published, then the queue behind them, then the cache where an engine tells."""
    cache = _kv_cache(frame)
    made = [_depth(frame), _average_depth(frame), _qps(frame), _replicas(frame), _queue(frame)]
    return [*made, cache] if cache else made


def _depth(frame: Frame) -> Chart:
    name, title, s = "queue-depth", "Instant queue depth", frame.series
    if s.depth is None:
        why = "no sample says how many replicas were available." if s.samples else UNOBSERVED
        return none(name, GROUP, title, why)
    text = (
        f"Requests waiting and being served, over available replicas. It peaks at {_peak(s.depth)}; the line "
        f"stops where no replica was available.{_thresholds(frame)}{style.reduced(s.depth)}"
    )
    return Chart(name, GROUP, title, text, _depth_layers(frame, s.depth))


def _average_depth(frame: Frame) -> Chart:
    name, title, s = "average-queue-depth", "Average queue depth", frame.series
    if s.average_depth is None:
        why = "no queue depth was recorded." if s.samples else UNOBSERVED
        if s.samples and s.average_window_s is None:
            why = "the policy has no autoscaling window to average over."
        return none(name, GROUP, title, why)
    text = (
        f"The mean queue depth of the {duration(s.average_window_s)} before each sample, which is the "
        f"autoscaling window. It peaks at {_peak(s.average_depth)}.{_thresholds(frame)}"
        f"{style.reduced(s.average_depth)}"
    )
    return Chart(name, GROUP, title, text, _depth_layers(frame, s.average_depth))


def _peak(c: Curve) -> str:
    return f"{number(c.peak.value)} at {instant(c.peak.t_s)}"


def _limits(frame: Frame) -> dict[str, float]:
    """The queue-depth policy's thresholds; other policies have none."""
    autoscaling = (frame.summary.header.scenario.get("deployment") or {}).get("autoscaling") or {}
    of: dict[str, Any] = {
        "one more": autoscaling.get("scale_up_queue_depth"),
        "one fewer": autoscaling.get("scale_down_queue_depth"),
    }
    is_by_depth = autoscaling.get("policy") in (None, "queue_depth")
    return {name: float(v) for name, v in of.items() if is_by_depth and isinstance(v, int | float)}


def _thresholds(frame: Frame) -> str:
    if not (limits := _limits(frame)):
        return ""
    told = ", ".join(f"{number(v)} for {name}" for name, v in limits.items())
    return f" The dotted lines are the policy's thresholds: {told}."


def _depth_layers(frame: Frame, c: Curve) -> list[Layer]:
    x, rows = frame.x(), style.curve_rows(v=c)
    near = [(name, v) for name, v in _limits(frame).items() if v <= 3 * c.peak.value]
    made = frame.events()
    if near:
        made += style.levels([{"v": v, "label": f"{name}: {v:g}"} for name, v in near], y("v", DEPTH))
    made += [style.band(rows, x, "v", DEPTH, BLUE)] if c.low else []
    mark = {"type": "line", "color": BLUE, "strokeWidth": 2, "clip": True}
    made.append(style.layer(mark, rows, x=x, y=y("v", DEPTH)))
    return [*made, style.hover(rows, x, _tips("v", "depth", c))]


def _tips(column: str, title: str, c: Curve) -> list[style.Encoding]:
    tips = [style.tip(column, title)]
    if c.low:
        tips += [style.tip(f"{column}_low", "smallest"), style.tip(f"{column}_high", "largest")]
    return tips


def _qps(frame: Frame) -> Chart:
    title, r = "QPS", frame.series.rates
    if r is None:
        return none("qps", GROUP, title, "no request was recorded.")
    text = (
        "Requests sent in the 3 minutes before each instant, over 180 s, and those that ended well in them. "
        f"It peaks at {number(r.peak_qps.value)}/s sent at {instant(r.peak_qps.t_s)}; in the first 3 minutes "
        "it can only rise, because it counts from nothing."
    )
    of_row = zip(r.qps_t_s, r.qps_sent, r.qps_ok, strict=True)
    rows = style.with_ends([{"t": t, "sent": a, "ok": b} for t, a, b in of_row])
    names, range_ = ["sent", "ended well"], [BLUE, GREEN]
    x, unit = frame.x(), "requests per second"
    layers = [
        *frame.events(),
        style.line(rows, x, y("sent", unit), style.colour("sent", names, range_)),
        style.line(
            rows, x, y("ok", unit), style.colour("ended well", names, range_), strokeDash=style.DASHED
        ),
        style.hover(rows, x, [style.tip("sent", "sent"), style.tip("ok", "ended well")]),
    ]
    return Chart("qps", GROUP, title, text, layers)


def _replicas(frame: Frame) -> Chart:
    title, r = "Replicas deployed", frame.series.replicas
    if r is None:
        return none("replicas", GROUP, title, UNOBSERVED)
    text = (
        "Replicas able to serve, starting and stopping, on top of each other, and the target: at most "
        f"{r.most_available} able to serve.{_steps(frame)}"
    )
    if r.every_s is not None:
        text += f" Drawn is the state at every {r.every_s:.3g} s."
    rows = style.with_ends(
        [
            {"t": t, "available": a, "starting": b, "stopping": c, "target": d}
            | {"y1": a or 0, "y2": (a or 0) + (b or 0), "y3": (a or 0) + (b or 0) + (c or 0)}
            for t, a, b, c, d in zip(r.t_s, r.available, r.starting, r.stopping, r.target, strict=True)
        ]
    )
    names, range_ = ["available", "starting", "stopping", "target"], [GREEN, PURPLE, GREY, VERMILION]
    top = max([1, *(row["y3"] for row in rows), *(row["target"] or 0 for row in rows)])
    x = frame.x()

    def vertical(column: str) -> style.Encoding:
        whole = y(column, "replicas", domain=[0, top * 1.08], nice=False)
        every = max(1, -(-top // 6))
        return whole | {"axis": whole["axis"] | {"values": list(range(0, top + 1, every)), "format": "d"}}

    layers = frame.events()
    for name, low, high in (("available", None, "y1"), ("starting", "y1", "y2"), ("stopping", "y2", "y3")):
        area = style.layer(
            {"type": "area", "interpolate": "step-after", "opacity": 0.7, "clip": True},
            rows,
            x=x,
            y=vertical(high),
            y2={"field": low} if low else {"datum": 0},
            color=style.colour(name, names, range_, "square"),
        )
        layers.append(area)
    target = style.colour("target", names, range_, "square")
    look = {"interpolate": "step-after", "strokeDash": style.DASHED}
    layers.append(style.line(rows, x, vertical("target"), target, **look))
    layers.append(style.hover(rows, x, [style.tip(n, n, "d") for n in names]))
    return Chart("replicas", GROUP, title, text, layers)


def _steps(frame: Frame) -> str:
    scaling = frame.summary.scaling
    if scaling is None or not scaling.steps:
        return ""
    told = [
        f"{style.count(s.from_replicas)} to {style.count(s.to_replicas)} at {instant(s.t_s)}"
        for s in scaling.steps[:8]
    ]
    rest = len(scaling.steps) - len(told)
    more = f" and {rest} more" if rest else ""
    return f" The target changed {len(scaling.steps)} times: {'; '.join(told)}{more}."


_QUEUE = {
    "waiting": ("not yet given to a replica slot", VERMILION, style.SOLID),
    "serving": ("in a replica slot", BLUE, style.DASHED),
    "in flight": ("sent and not done, as the generators count", GREY, style.DOTS),
}


def _queue(frame: Frame) -> Chart:
    title, s = "Requests waiting and being served", frame.series
    all_ = {"waiting": s.waiting, "serving": s.serving, "in flight": s.in_flight}
    there = {name: c for name, c in all_.items() if c is not None}
    if not there:
        return none("queue", GROUP, title, UNOBSERVED)
    told = "; ".join(f"{name} ({_QUEUE[name][0]}) peaks at {_peak(c)}" for name, c in there.items())
    text = f"{told[0].upper()}{told[1:]}.{style.reduced(next(iter(there.values())))}"
    column = {name: name.replace(" ", "_") for name in there}
    x, rows = frame.x(), style.curve_rows(**{column[n]: c for n, c in there.items()})
    names, range_ = list(there), [_QUEUE[n][1] for n in there]
    layers = frame.events()
    layers += [style.band(rows, x, column[n], "requests", _QUEUE[n][1]) for n, c in there.items() if c.low]
    for n in names:
        color = style.colour(n, names, range_)
        layers.append(style.line(rows, x, y(column[n], "requests"), color, strokeDash=_QUEUE[n][2]))
    layers.append(style.hover(rows, x, [style.tip(column[n], n) for n in names]))
    return Chart("queue", GROUP, title, text, layers)


def _kv_cache(frame: Frame) -> Chart | None:
    """Only where an engine tells."""
    c = frame.series.kv_cache
    if c is None:
        return None
    text = (
        "The share of the KV cache in use, of the replica where it is fullest: at most "
        f"{percent(c.peak.value)}.{style.reduced(c)}"
    )
    x, rows, vertical = frame.x(), style.curve_rows(v=c), y("v", "share of the cache")
    vertical["axis"]["format"] = ".2~%"
    layers = frame.events() + ([style.band(rows, x, "v", "share of the cache", BLUE)] if c.low else [])
    layers.append(style.layer({"type": "line", "color": BLUE, "clip": True}, rows, x=x, y=vertical))
    layers.append(style.hover(rows, x, [style.tip("v", "in use", ".2%")]))
    return Chart("kv-cache", GROUP, "KV cache in use", text, layers)

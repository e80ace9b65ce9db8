"""Charts of the load: rates, tokens, lateness, and requests through the steps up."""

from __future__ import annotations

from raybench.analysis.waterfall import Waterfall
from raybench.report.charts import style
from raybench.report.charts.latency import OF_THE_LOAD, lateness
from raybench.report.charts.style import (
    BLUE,
    GREEN,
    GREY,
    PALETTE,
    VERMILION,
    Chart,
    Frame,
    Layer,
    Row,
    none,
    y,
)
from raybench.report.units import duration, instant, number

THROUGH = "Requests through the steps up"


def charts(frame: Frame) -> list[Chart]:
    return [_rates(frame), _tokens(frame), lateness(frame)]


def _rates(frame: Frame) -> Chart:
    title, r = "Requests per second", frame.series.rates
    if r is None:
        return none("rates", OF_THE_LOAD, title, "no request was recorded.")
    fails = any(r.failed)
    names = {"sent": "sent", "ok": "ended well"} | ({"failed": "failed"} if fails else {})
    text = f"Sent, ended well and failed, in every {r.every_s:g} s."
    text += "" if fails else " None failed after it was sent."
    of_row = zip(r.t_s, r.sent, r.ok, r.failed, strict=True)
    rows: list[Row] = [{"t": t, "sent": a, "ok": b, "failed": c} for t, a, b, c in of_row]
    rows = style.with_ends(rows, rows[-1]["t"] + r.every_s)
    x, range_ = frame.x(), (BLUE, GREEN, VERMILION)
    layers = frame.events()
    for (column, name), dash in zip(names.items(), (style.SOLID, style.DASHED, style.SHORT), strict=False):
        color = style.colour(name, list(names.values()), range_)
        look = {"interpolate": "step-after", "strokeWidth": 1.5, "strokeDash": dash}
        layers.append(style.line(rows, x, y(column, "requests per second"), color, **look))
    layers.append(style.hover(rows, x, [style.tip(c, n) for c, n in names.items()]))
    return Chart("rates", OF_THE_LOAD, title, text, layers)


def _tokens(frame: Frame) -> Chart:
    title, r = "Output tokens per second", frame.series.rates
    if r is None or not r.output_tokens:
        why = "no answer says how many tokens it had."
        return none("tokens", OF_THE_LOAD, title, why)
    text = (
        f"Of all replicas together, {number(r.output_tokens)} in all, in every {r.every_s:g} s; an answer's "
        f"tokens are spread evenly from its first to its last. It peaks at {number(r.peak_tokens.value)}/s "
        f"from {instant(r.peak_tokens.t_s)} on."
    )
    rows = [{"t": t, "v": v} for t, v in zip(r.t_s, r.tokens, strict=True)]
    rows = style.with_ends(rows, r.t_s[-1] + r.every_s)
    x = frame.x()
    mark = {"type": "area", "color": BLUE, "opacity": 0.35, "interpolate": "step-after", "clip": True}
    mark |= {"line": {"color": BLUE, "strokeWidth": 1.5}}
    area = style.layer(mark, rows, x=x, y=y("v", "tokens per second"))
    layers = [*frame.events(), area, style.hover(rows, x, [style.tip("v", "tokens/s")])]
    return Chart("tokens", OF_THE_LOAD, title, text, layers)


# --- waterfalls --------------------------------------------------------------------------------------


def waterfalls(frame: Frame) -> list[Chart]:
    s = frame.series
    if not s.waterfalls:
        observed = s.samples or frame.summary.scaling
        why = "no step up was observed." if observed else "no deployment was observed that could step up."
        return [none("waterfall", THROUGH, "Requests through a step up", why)]
    return [_waterfall(frame, w, i + 1) for i, w in enumerate(s.waterfalls)]


def _waterfall(frame: Frame, w: Waterfall, number_: int) -> Chart:
    name, step = f"waterfall-{number_}", f"{w.step.from_replicas} → {w.step.to_replicas}"
    title = f"Requests through the step {step} at {instant(w.step.t_s)}"
    if not w.bars:
        return none(name, THROUGH, title, "no request was under way.")
    drawn = "Each bar is a request" if w.every == 1 else f"Each bar is one in {w.every} of the requests"
    ready = "No new replica was seen to run after it."
    if w.running_s is not None:
        ready = f"A new replica was able to serve at {instant(w.running_s)}."
    later = frame.series.steps_up - number_
    if number_ == len(frame.series.waterfalls) and later:
        ready += f" {later} later steps up are not drawn."
    text = (
        f"{drawn} under way from {instant(w.from_s)} to {instant(w.to_s)} ({number(w.requests)} in all), in "
        "order of their planned instants: pale while it waited for its first token, full while the answer "
        "streamed, coloured by the replica that answered. Why the step: "
        f"{w.step.reason or 'no reason recorded'}. {ready}"
    )
    height = max(120, min(420, 6 * len(w.bars)))
    return Chart(name, THROUGH, title, text, _bars(frame, w), height)


OTHERS, UNKNOWN = "other replicas", "no replica known"


def _bars(frame: Frame, w: Waterfall) -> list[Layer]:
    seen = list(dict.fromkeys(b.replica for b in w.bars if b.replica is not None))
    named: dict[str | None, str] = {r: r if i < len(PALETTE) else OTHERS for i, r in enumerate(seen)}
    rows: list[Row] = []
    for i, b in enumerate(w.bars):
        end = b.end_s if b.end_s is not None else w.to_s
        row: Row = {
            "row": i,
            "row2": i + 0.8,
            "replica": named.get(b.replica, UNKNOWN),
            "request": b.request_id,
            "outcome": b.outcome,
            "t": b.start_s,
            "first": end if b.first_s is None else b.first_s,
            "wait": "no first token" if b.first_s is None else duration(b.first_s - b.start_s),
            "end": end,
        }
        rows.append(row)
    names = list(dict.fromkeys(r["replica"] for r in rows))
    range_ = [GREY if n in (OTHERS, UNKNOWN) else PALETTE[seen.index(n)] for n in names]
    window = (w.from_s, w.to_s)
    across = {
        "y": {
            "field": "row",
            "type": "quantitative",
            "scale": {"reverse": True, "domain": [0, len(rows)], "nice": False},
            "axis": None,
        },
        "y2": {"field": "row2"},
        "color": {"field": "replica", "type": "nominal", **style.shared(names, range_, "square")},
        "tooltip": [
            style.tip("request", "request", None),
            style.tip("replica", "replica", None),
            style.tip("wait", "waited", None),
            style.tip("outcome", "outcome", None),
        ],
    }
    pale, full = ({"type": "rect", "clip": True, "opacity": o} for o in (0.35, 1.0))
    marks: list[Row] = [{"t": w.step.t_s, "label": f"{w.step.from_replicas}→{w.step.to_replicas}"}]
    if w.running_s is not None:
        marks.append({"t": w.running_s, "label": "replica ready"})
    return [
        style.layer(pale, rows, x=frame.x("t", window), x2={"field": "first"}, **across),
        style.layer(full, rows, x=frame.x("first", window), x2={"field": "end"}, **across),
        *style.rules([m for m in marks if w.from_s <= m["t"] <= w.to_s], frame.x("t", window)),
    ]

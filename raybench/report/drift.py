"""The drift section: what a long run was like hour by hour, and whether it changed."""

from __future__ import annotations

from collections.abc import Sequence

from raybench.analysis.drifted import Drift, DriftWindow, Trend
from raybench.analysis.figures import Summary
from raybench.report.blocks import Block, Grid, Lines, Section
from raybench.report.units import NOTHING, binary_bytes, duration, number, value

_HOUR_S = 3600.0


def section(summary: Summary) -> Section | None:
    d = summary.drift
    if d is None:
        return None
    finest = summary.header.clock_uncertainty_s or 0.0
    head = ("from", "n", "failed", "connect", "TTFT p50", "p99", "E2E p50", "p99", "late p99", "memory")
    blocks: list[Block] = [
        Grid(head, tuple(_row(w, finest) for w in d.windows)),
        Grid(
            ("an hour", "changes by", f"{d.confidence:.0%} interval", "", "windows"),
            tuple(_trend(t) for t in d.trends),
            left=(0, 3),
        ),
        Lines(tuple(_notes(d))),
    ]
    every = "hour" if d.window_s == _HOUR_S else duration(d.window_s)
    return Section(f"Drift (every {every})", tuple(blocks))


def _row(w: DriftWindow, finest_s: float) -> tuple[str, ...]:
    return (
        clock(w.from_s),
        number(w.requests),
        number(w.failed),
        number(w.connect_errors),
        value(w.ttft_p50, finest_s),
        value(w.ttft_p99, finest_s),
        value(w.e2e_p50, finest_s),
        value(w.e2e_p99, finest_s),
        value(w.lateness_p99, finest_s),
        NOTHING if w.rss_bytes is None else binary_bytes(w.rss_bytes),
    )


def _trend(t: Trend) -> tuple[str, ...]:
    if t.low is None or t.high is None:
        interval = NOTHING
    else:
        interval = f"{_change(t.low, t.unit)} to {_change(t.high, t.unit)}"
    return (t.metric, _change(t.per_hour, t.unit), interval, t.direction, number(t.windows))


def _change(x: float | None, unit: str) -> str:
    if x is None:
        return NOTHING
    size = abs(x)
    shown = {
        "s": lambda: duration(size),
        "bytes": lambda: binary_bytes(round(size)),
        "requests": lambda: number(size),
    }[unit]()
    return shown if x == 0 else f"{'+' if x > 0 else '-'}{shown}"


def clock(t_s: float) -> str:
    """`3:00:00` after t0."""
    hours, rest = divmod(round(t_s), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


def _notes(d: Drift) -> Sequence[str]:
    notes = [
        "memory: the most of any generator. A trend is the median change between two windows (Theil-Sen); it "
        "rises or falls where the interval leaves 0 out."
    ]
    if not d.same_load:
        notes.append("The load itself changes: only windows under the same arrivals are compared.")
    if any(w.ttft_p99 and w.ttft_p99.censored for w in d.windows) or any(
        w.e2e_p99 and w.e2e_p99.censored for w in d.windows
    ):
        notes.append("What is only known to be larger than a bound enters a trend as that bound.")
    return notes

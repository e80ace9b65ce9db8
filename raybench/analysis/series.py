"""What the charts draw: a run over time, its distributions, and requests through scaling events.

Computed here from the tables, so that no report computes anything. Everything is bounded in size, whatever
the run's: `curves` says how a long timeline is reduced, `requests_over_time` how many requests are.
Over time the whole run is shown; distributions are of the rows that the summary is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raybench.analysis.columns import MISSING, instants
from raybench.analysis.curves import MOST, Curve, Floats, curve, known, trailing_mean
from raybench.analysis.figures import Summary
from raybench.analysis.question import Anchor, Question
from raybench.analysis.rates import Rates
from raybench.analysis.requests_over_time import Course, Ecdf, Latencies, course
from raybench.analysis.selection import Selection
from raybench.analysis.source import Source
from raybench.analysis.waterfall import Waterfall, waterfalls
from raybench.schema import Phase, Replicas, Requests, Timeline

__all__ = ["Curve", "Ecdf", "Latencies", "Rates", "ReplicaCounts", "Series", "Waterfall", "series"]

BEFORE = 0.2
"""Of the time before t0 at most this share of the time after it is shown: a deployment can take an hour."""


@dataclass(frozen=True)
class ReplicaCounts:
    """Step functions: each row of counts holds until the next instant. None where it was not counted.

    Only instants at which something changed are kept, and the last one; `every_s` where these were still too
    many, so that only the state at every so many seconds is here.
    """

    t_s: tuple[float, ...]
    available: tuple[int | None, ...]
    starting: tuple[int | None, ...]
    stopping: tuple[int | None, ...]
    target: tuple[int | None, ...]
    most_available: int
    every_s: float | None = None


@dataclass(frozen=True)
class Series:
    """None is what was not recorded. Instants are seconds after t0."""

    span_s: tuple[float, float]
    selected_s: tuple[float, float] | None  # what the figures are about; None: the whole run
    anchor: Anchor
    samples: int  # of the deployment
    depth: Curve | None
    average_depth: Curve | None  # trailing mean over the autoscaling window
    average_window_s: float | None
    waiting: Curve | None
    serving: Curve | None
    in_flight: Curve | None
    kv_cache: Curve | None  # the fullest replica's
    replicas: ReplicaCounts | None
    rates: Rates | None
    ttft: Latencies | None
    e2e: Latencies | None
    lateness: Latencies | None
    ttft_ecdf: Ecdf | None
    e2e_ecdf: Ecdf | None
    waterfalls: tuple[Waterfall, ...]
    steps_up: int


def series(source: Source, question: Question, summary: Summary) -> Series:
    """Everything that the charts of a run draw, for the question that `summary` answers."""
    timeline = _Timeline(source)
    load_ns = _extent(source)
    span_s = _span(load_ns, timeline.t_s, summary)
    selection = Selection.of(question, source.manifest.scenario)
    found = course(source, selection, summary.anchor, load_ns, span_s) if load_ns else Course()
    window_s = _window_s(source.manifest.scenario)
    shown = (timeline.t_s >= span_s[0]) & (timeline.t_s <= span_s[1])
    t_s = timeline.t_s[shown]
    depth = timeline.column(Timeline.queue_depth)
    average = trailing_mean(timeline.t_s, depth, window_s)[shown] if window_s else np.empty(0)
    steps_up = [s for s in summary.scaling.steps if _is_up(s)] if summary.scaling else []
    return Series(
        span_s=span_s,
        selected_s=_selected_s(selection, span_s),
        anchor=summary.anchor,
        samples=len(timeline.t_s),
        depth=curve(t_s, depth[shown]),
        average_depth=curve(t_s, average) if window_s else None,
        average_window_s=window_s,
        waiting=curve(t_s, timeline.column(Timeline.waiting)[shown]),
        serving=curve(t_s, timeline.column(Timeline.serving)[shown]),
        in_flight=curve(t_s, timeline.column(Timeline.in_flight)[shown]),
        kv_cache=_kv_cache(source, span_s),
        replicas=_replicas(timeline, summary, span_s),
        rates=found.rates,
        ttft=found.ttft,
        e2e=found.e2e,
        lateness=found.lateness,
        ttft_ecdf=found.ttft_ecdf,
        e2e_ecdf=found.e2e_ecdf,
        waterfalls=waterfalls(source, steps_up, summary.scaling.changes if summary.scaling else (), span_s),
        steps_up=len(steps_up),
    )


class _Timeline:
    """The timeline's columns in order of time, NaN for null."""

    def __init__(self, source: Source) -> None:
        columns = list(Timeline.columns)
        parts: dict[str, list[NDArray[Any]]] = {c: [] for c in columns}
        for batch in source.batches(Timeline, columns):
            for name in columns:
                parts[name].append(
                    instants(batch, name) if name == Timeline.t_ns else known(batch.column(name).to_pylist())
                )
        self._columns = {c: np.concatenate(p) if p else np.empty(0) for c, p in parts.items()}
        t_ns = self._columns[Timeline.t_ns]
        self._order = np.argsort(t_ns, kind="stable")
        self.t_s: Floats = t_ns[self._order] / 1e9

    def column(self, name: str) -> Floats:
        return np.asarray(self._columns[name][self._order], np.float64)


def _extent(source: Source) -> tuple[int, int] | None:
    """First start and last instant of any request, ns; None without requests."""
    low, high = [], []
    for batch in source.batches(Requests, [Requests.anchor_ns, Requests.sent_ns, Requests.done_ns]):
        columns = [instants(batch, c) for c in (Requests.anchor_ns, Requests.sent_ns, Requests.done_ns)]
        there = [c[c != MISSING] for c in columns]
        low += [int(c.min()) for c in there if len(c)]
        high += [int(c.max()) for c in there if len(c)]
    return (min(low), max(high)) if low else None


def _span(load_ns: tuple[int, int] | None, t_s: Floats, summary: Summary) -> tuple[float, float]:
    ends = [load_ns[1] / 1e9] if load_ns else []
    starts = [load_ns[0] / 1e9] if load_ns else []
    if len(t_s):
        starts.append(float(t_s[0]))
        ends.append(float(t_s[-1]))
    if summary.scaling is not None:
        starts.append(summary.scaling.observed_s[0])
        ends.append(summary.scaling.observed_s[1])
    end = max(ends, default=1.0)
    return min(0.0, max(min(starts, default=0.0), -BEFORE * max(end, 0.0))), max(end, 1e-3)


def _selected_s(selection: Selection, span_s: tuple[float, float]) -> tuple[float, float] | None:
    """By planned instant; None where every row is selected."""
    if selection.is_everything:
        return None
    start, end = span_s
    if selection.phase is not None:
        steady, cooldown = selection.warmup_ns / 1e9, _or(selection.cooldown_from_ns, end)
        edges = {
            Phase.WARMUP: (start, steady),
            Phase.STEADY: (steady, cooldown),
            Phase.COOLDOWN: (cooldown, end),
        }
        start, end = edges[selection.phase]
    if selection.window_ns is not None:
        start, end = max(start, selection.window_ns[0] / 1e9), min(end, selection.window_ns[1] / 1e9)
    return (start, end) if start < end else None


def _or(ns: int | None, otherwise: float) -> float:
    return otherwise if ns is None else ns / 1e9


def _window_s(scenario: Any) -> float | None:
    autoscaling = (scenario.get("deployment") or {}).get("autoscaling") or {}
    window = autoscaling.get("autoscaling_window")
    return float(window) if isinstance(window, int | float) and window > 0 else None


def _is_up(step: Any) -> bool:
    return None not in (step.from_replicas, step.to_replicas) and step.to_replicas > step.from_replicas


def _kv_cache(source: Source, span_s: tuple[float, float]) -> Curve | None:
    fullest: dict[int, float] = {}
    for batch in source.batches(Replicas, [Replicas.t_ns, Replicas.kv_cache_usage]):
        for t, used in zip(*(c.to_pylist() for c in batch.columns), strict=True):
            if used is not None and span_s[0] <= t / 1e9 <= span_s[1]:
                fullest[t] = max(used, fullest.get(t, 0.0))
    t_ns = sorted(fullest)
    return curve(np.array(t_ns, np.float64) / 1e9, np.array([fullest[t] for t in t_ns], np.float64))


def _replicas(timeline: _Timeline, summary: Summary, span_s: tuple[float, float]) -> ReplicaCounts | None:
    names = (
        Timeline.replicas_available,
        Timeline.replicas_starting,
        Timeline.replicas_stopping,
        Timeline.replicas_target,
    )
    table = np.array([timeline.column(c) for c in names])
    counted = ~np.isnan(table).all(axis=0)
    table, t_s = table[:, counted], timeline.t_s[counted]
    if not len(t_s):
        if summary.scaling is None or not summary.scaling.available:
            return None  # else the events alone tell
        t, n = zip(*summary.scaling.available, strict=True)
        none = (None,) * (len(t) + 1)
        t, n = (*t, span_s[1]), (*n, n[-1])
        return ReplicaCounts(t, n, none, none, none, max(n))
    comparable = np.nan_to_num(table, nan=-1)
    keep = np.ones(len(t_s), np.bool_)
    keep[1:-1] = (np.diff(comparable, axis=1)[:, :-1] != 0).any(axis=0)
    keep[: max(0, int(np.searchsorted(t_s, span_s[0], side="right")) - 1)] = False
    most = int(np.nanmax(table[0])) if not np.isnan(table[0]).all() else 0
    t_s, table, every_s = np.maximum(t_s[keep], span_s[0]), table[:, keep], None
    if len(t_s) > MOST:
        every_s = float(t_s[-1] - t_s[0]) / (MOST // 2)
        grid = np.linspace(t_s[0], t_s[-1], MOST // 2 + 1)
        table = table[:, np.searchsorted(t_s, grid, side="right") - 1]
        t_s = grid
    columns = [_counts(row) for row in table]
    return ReplicaCounts(tuple(t_s.tolist()), columns[0], columns[1], columns[2], columns[3], most, every_s)


def _counts(row: Floats) -> tuple[int | None, ...]:
    return tuple(None if np.isnan(v) else int(v) for v in row)

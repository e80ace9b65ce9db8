"""Whether a long run stayed what it was: latency, lateness, memory and connection errors by hour.

Values are exact within each window. A trend compares like with like: only windows under the same arrivals,
and, where these change by themselves (a ramp, a sine), only at the same place of a repeated stage.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raybench.analysis.columns import MISSING, OK, OUTCOMES, PHASES, TIMEOUT, codes, instants
from raybench.analysis.drifted import Drift, DriftWindow, Trend
from raybench.analysis.latency import request_timeout_s
from raybench.analysis.quantiles import Distribution, Value, distribution
from raybench.analysis.question import Anchor, Question
from raybench.analysis.rows import BUDGET_BYTES, ahead, joined
from raybench.analysis.selection import Selection
from raybench.analysis.source import Source
from raybench.analysis.trend import CONFIDENCE, theil_sen
from raybench.schema import Generators, LoadKind, Manifest, Outcome, Phase, Requests

LONG_S = 600.0
"""A run of this length has the section without being asked."""
HOUR_S = 3600.0
PARTS = 12
MOST_HOURS = 48
_CONNECT_ERROR = OUTCOMES.index(Outcome.CONNECT_ERROR)
_NOT_SENT = OUTCOMES.index(Outcome.NOT_SENT)
_STILL = ("constant", "poisson", "gamma", "bursts")
"""Arrivals that are the same in every hour of a stage."""
_METRICS = ("ttft", "e2e", "lateness")


def drift(source: Source, question: Question, anchor: Anchor) -> Drift | None:
    """None where the run is short and nobody asked, or nothing was planned in two windows at least."""
    manifest = source.manifest
    selection = Selection.of(question, manifest.scenario)
    start_s, end_s = _span_s(manifest, selection)
    length_s = end_s - start_s
    if question.drift is False or length_s <= 0 or (question.drift is None and length_s < LONG_S):
        return None
    edges = _edges(start_s, end_s)
    windows = _windows(source, edges, selection, anchor)
    if sum(w.requests > 0 for w in windows) < 2:
        return None
    kinds = _kinds(manifest.scenario, edges)
    return Drift(
        window_s=edges[1] - edges[0],
        windows=windows,
        trends=tuple(_trends(windows, kinds)),
        confidence=CONFIDENCE,
        same_load=len(set(kinds)) == 1 and kinds[0] is not None,
    )


# --- windows ----------------------------------------------------------------------------------------


def _span_s(manifest: Manifest, selection: Selection) -> tuple[float, float]:
    """From where to where the selected load went, seconds after t0."""
    load = manifest.scenario.get("load") or {}
    planned_s = sum(float(stage.get("duration") or 0) for stage in load.get("stages") or [])
    went_s = manifest.load_total_s
    if went_s is None and manifest.t0_unix_ns is not None:
        went_s = max(0, manifest.heartbeat_unix_ns - manifest.t0_unix_ns) / 1e9
    start_s, end_s = 0.0, min(planned_s or math.inf, went_s or 0.0)
    if selection.phase is not None:
        warmup_s = selection.warmup_ns / 1e9
        cool_s = math.inf if selection.cooldown_from_ns is None else selection.cooldown_from_ns / 1e9
        start_s, phase_end_s = {
            Phase.WARMUP: (0.0, warmup_s),
            Phase.STEADY: (warmup_s, cool_s),
            Phase.COOLDOWN: (cool_s, math.inf),
        }[selection.phase]
        end_s = min(end_s, phase_end_s)
    if selection.window_ns is not None:
        start_s = max(start_s, selection.window_ns[0] / 1e9)
        end_s = min(end_s, selection.window_ns[1] / 1e9)
    return start_s, end_s


def _edges(start_s: float, end_s: float) -> list[float]:
    """Hours, a twelfth of less than twelve, or as few hours at once as make 48 windows. A rest shorter than
    half a window belongs to the one before it."""
    length_s = end_s - start_s
    if length_s < PARTS * HOUR_S:
        return [start_s + i * length_s / PARTS for i in range(PARTS)] + [end_s]
    width_s = HOUR_S * math.ceil(length_s / HOUR_S / MOST_HOURS)
    count = max(1, math.floor(length_s / width_s + 0.5))
    return [start_s + i * width_s for i in range(count)] + [end_s]


def _windows(
    source: Source, edges: Sequence[float], selection: Selection, anchor: Anchor
) -> tuple[DriftWindow, ...]:
    """One pass over the requests, or one for each metric of a run too large for that."""
    bounds = np.array([round(e * 1e9) for e in edges], np.int64)
    n = len(edges) - 1
    at_once = max(1, BUDGET_BYTES // max(1, source.manifest.planned * 8))
    found: dict[str, list[Distribution]] = {}
    for i in range(0, len(_METRICS), at_once):
        values = _Values(_METRICS[i : i + at_once], n, request_timeout_s(source.manifest.scenario))
        _read(source, bounds, selection, anchor, values)
        for name in values.metrics:
            found[name] = [values.take(name, window) for window in range(n)]
    rss = _memory(source, bounds)
    has_schedule = source.manifest.load_kind is not LoadKind.CLOSED
    return tuple(
        DriftWindow(
            from_s=edges[w],
            to_s=edges[w + 1],
            requests=int(values.rows[w]),
            failed=int(values.rows[w] - values.outcomes[w, OK]),
            connect_errors=int(values.outcomes[w, _CONNECT_ERROR]),
            ttft_p50=found["ttft"][w].at(50.0),
            ttft_p99=found["ttft"][w].at(99.0),
            e2e_p50=found["e2e"][w].at(50.0),
            e2e_p99=found["e2e"][w].at(99.0),
            lateness_p99=found["lateness"][w].at(99.0) if has_schedule else None,
            rss_bytes=rss[w],
        )
        for w in range(n)
    )


class _Values:
    """What is gathered for each window."""

    def __init__(self, metrics: Sequence[str], windows: int, timeout_s: float) -> None:
        self.metrics, self._timeout_s = tuple(metrics), timeout_s
        self.rows = np.zeros(windows, np.int64)
        self.outcomes = np.zeros((windows, len(OUTCOMES)), np.int64)
        self._parts: dict[tuple[str, int], list[NDArray[np.int64]]] = {}
        self._censored: dict[tuple[str, int], list[int]] = {}  # how many, and the least that was waited

    def count(self, window: int, outcome: NDArray[np.int8]) -> None:
        self.rows[window] += len(outcome)
        self.outcomes[window] += np.bincount(outcome, minlength=len(OUTCOMES))

    def keep(self, name: str, window: int, values: NDArray[np.int64]) -> None:
        if name in self.metrics and len(values):
            self._parts.setdefault((name, window), []).append(values)

    def censor(self, name: str, window: int, waited: NDArray[np.int64]) -> None:
        """`waited`: ns of each timeout."""
        if name in self.metrics and len(waited):
            so_far = self._censored.setdefault((name, window), [0, int(waited.min())])
            so_far[0] += len(waited)
            so_far[1] = min(so_far[1], int(waited.min()))

    def take(self, name: str, window: int) -> Distribution:
        """Describes and forgets."""
        parts = self._parts.pop((name, window), [])
        together = np.concatenate(parts) if parts else np.empty(0, np.int64)
        parts.clear()
        count, least_ns = self._censored.get((name, window), (0, 0))
        at_s = max(self._timeout_s, least_ns / 1e9) if count else None
        return distribution(together, (50.0, 99.0), censored=count, censored_at=at_s)


def _read(
    source: Source, bounds: NDArray[np.int64], selection: Selection, anchor: Anchor, into: _Values
) -> None:
    columns = [Requests.anchor_ns, Requests.sent_ns, Requests.outcome]
    columns += [Requests.first_token_ns] if "ttft" in into.metrics else []
    columns += [Requests.done_ns]
    columns += [Requests.phase] if selection.phase is not None else []
    for batch in ahead(joined(source.batches(Requests, columns))):
        sent, planned = instants(batch, Requests.sent_ns), instants(batch, Requests.anchor_ns)
        planned = np.where(planned == MISSING, sent, planned)
        window = np.searchsorted(bounds, planned, side="right") - 1
        inside = (planned >= bounds[0]) & (planned < bounds[-1])
        if selection.phase is not None:
            inside &= codes(batch.column(Requests.phase), PHASES) == PHASES.index(selection.phase)
        window[~inside] = -1
        numbers = np.unique(window)
        for number in numbers[numbers >= 0]:
            where = window == number
            whole = len(numbers) == 1
            _add(batch if whole else batch.filter(pa.array(where)), int(number), anchor, into)


def _add(batch: pa.RecordBatch, window: int, anchor: Anchor, into: _Values) -> None:
    outcome = codes(batch.column(Requests.outcome), OUTCOMES)
    sent, planned = instants(batch, Requests.sent_ns), instants(batch, Requests.anchor_ns)
    begun = sent if anchor is Anchor.SENT else np.where(planned == MISSING, sent, planned)
    into.count(window, outcome)
    both = (sent != MISSING) & (planned != MISSING)
    into.keep("lateness", window, sent[both] - planned[both])
    ok, timeout = outcome == OK, outcome == TIMEOUT
    done = instants(batch, Requests.done_ns)
    ended = done != MISSING
    into.keep("e2e", window, (done - begun)[ok & ended])
    into.censor("e2e", window, (done - begun)[timeout & ended])
    if "ttft" in into.metrics:
        first = instants(batch, Requests.first_token_ns)
        came = (ok | timeout) & (first != MISSING)
        into.keep("ttft", window, (first - begun)[came])
        into.censor("ttft", window, (done - begun)[timeout & ~came & ended])


def _memory(source: Source, bounds: NDArray[np.int64]) -> list[int | None]:
    """The largest resident memory that any generator had in each window, bytes."""
    found = np.zeros(len(bounds) - 1, np.int64)
    for batch in joined(source.batches(Generators, [Generators.t_ns, Generators.rss_bytes])):
        t_ns, rss = batch.column(0).to_numpy(), batch.column(1).fill_null(0).to_numpy()
        inside = (t_ns >= bounds[0]) & (t_ns < bounds[-1])
        np.maximum.at(found, np.searchsorted(bounds, t_ns[inside], side="right") - 1, rss[inside])
    return [int(value) or None for value in found]


# --- trends -----------------------------------------------------------------------------------------


def _kinds(scenario: Mapping[str, Any], edges: Sequence[float]) -> list[Hashable]:
    """Under which load each window lies; None for one that lies under several."""
    stages = (scenario.get("load") or {}).get("stages") or []
    if len(stages) <= 1 and _process(stages[0] if stages else {}) in (None, *_STILL):
        return [0] * (len(edges) - 1)
    begin_s, spans = 0.0, []
    for stage in stages:
        spans.append((begin_s, begin_s + float(stage.get("duration") or 0), stage))
        begin_s = spans[-1][1]
    slack_s = 0.02 * (edges[1] - edges[0])  # a window that reaches so far into the next stage is still one's
    kinds: list[Hashable] = []
    for a, b in pairwise(edges):
        within = [s for s in spans if s[0] <= a + slack_s and b - slack_s <= s[1]]
        if not within:
            kinds.append(None)
            continue
        begin, _, stage = within[0]
        name = json.dumps(stage.get("arrival"), sort_keys=True)
        still = _process(stage) in (None, *_STILL)
        kinds.append(name if still else (name, round(10 * (a - begin) / (b - a))))
    return kinds


def _process(stage: Mapping[str, Any]) -> str | None:
    process: str | None = (stage.get("arrival") or {}).get("process")
    return process


def _an_hour(w: DriftWindow) -> float | None:
    return w.connect_errors * HOUR_S / (w.to_s - w.from_s) if w.requests else None


def _trends(windows: Sequence[DriftWindow], kinds: Sequence[Hashable]) -> list[Trend]:
    def seconds(v: Value | None) -> float | None:
        return None if v is None else v.value

    series: list[tuple[str, str, list[float | None]]] = [
        ("TTFT p50", "s", [seconds(w.ttft_p50) for w in windows]),
        ("TTFT p99", "s", [seconds(w.ttft_p99) for w in windows]),
        ("E2E p50", "s", [seconds(w.e2e_p50) for w in windows]),
        ("E2E p99", "s", [seconds(w.e2e_p99) for w in windows]),
        ("lateness p99", "s", [seconds(w.lateness_p99) for w in windows]),
        ("memory", "bytes", [w.rss_bytes for w in windows]),
        ("connection errors an hour", "requests", [_an_hour(w) for w in windows]),
    ]
    made = []
    for name, unit, values in series:
        known = [i for i, v in enumerate(values) if v is not None]
        if not known:
            continue
        middle_h = [(windows[i].from_s + windows[i].to_s) / 2 / HOUR_S for i in known]
        found = theil_sen(middle_h, [float(values[i] or 0) for i in known], [kinds[i] for i in known])
        made.append(
            Trend(
                metric=name,
                unit=unit,
                per_hour=found.value if found else None,
                low=found.low if found else None,
                high=found.high if found else None,
                windows=found.points if found else 0,
            )
        )
    return made

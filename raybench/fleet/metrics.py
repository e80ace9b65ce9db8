"""A run's live figures as Ray metrics, exported for Prometheus by Ray's own exporter (as `ray_` + name).

Requests are counted in each generator behind its writer thread, from the rows on their way to the disk, as
numbers in fixed buckets (`Counted`). They travel with the generator's progress to the conductor, which
publishes everything about twice a second (`Publisher`). Nothing is on the way of a request, and nothing that
fails here can end a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raybench.generator import Sink
from raybench.schema import Outcome, Requests, Table
from raybench.schema.tables import OUTCOMES

if TYPE_CHECKING:
    from raybench.fleet.snapshot import Snapshot

LATENCY_S = tuple(round(step * 10.0**power, 6) for power in range(-2, 3) for step in (1, 1.5, 2, 3, 5, 7))
"""Upper edges of the buckets of TTFT and E2E, 10 ms to 700 s."""
LATENESS_S = tuple(round(step * 10.0**power, 6) for power in range(-4, 1) for step in (1, 2, 5))
"""Upper edges of the buckets of lateness, 0.1 ms to 5 s."""

TTFT, E2E, LATENESS, TOKENS = "ttft", "e2e", "lateness", "output_tokens"
BUCKETS: dict[str, tuple[float, ...]] = {TTFT: LATENCY_S, E2E: LATENCY_S, LATENESS: LATENESS_S}

RUN, OUTCOME, STATE = "run", "outcome", "state"


@dataclass(frozen=True)
class Spec:
    """One metric: its name (Ray's exporter puts `ray_` before it), what it says, and its tags."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    tags: tuple[str, ...] = (RUN,)
    counted: str = ""  # of a histogram: which of `BUCKETS`


SPECS: tuple[Spec, ...] = (
    Spec("raybench_requests_planned", "gauge", "requests in the schedule"),
    Spec("raybench_requests_offered_total", "counter", "requests whose planned instant has come"),
    Spec("raybench_requests_sent_total", "counter", "requests sent"),
    Spec("raybench_requests_total", "counter", "requests accounted for, by outcome", (RUN, OUTCOME)),
    Spec("raybench_in_flight_requests", "gauge", "requests sent and not done"),
    Spec("raybench_output_tokens_total", "counter", "output tokens of good answers, by the servers' usage"),
    Spec("raybench_ttft_seconds", "histogram", "scheduled to first token, of good answers", counted=TTFT),
    Spec("raybench_e2e_seconds", "histogram", "scheduled to done, of good answers", counted=E2E),
    Spec("raybench_lateness_seconds", "histogram", "sent minus scheduled", counted=LATENESS),
    Spec("raybench_waiting_requests", "gauge", "requests not yet given to a replica slot"),
    Spec("raybench_serving_requests", "gauge", "requests in a replica slot"),
    Spec("raybench_queue_depth", "gauge", "(waiting + serving) / available, requests per replica"),
    Spec("raybench_replicas", "gauge", "replicas starting, available and stopping", (RUN, STATE)),
    Spec("raybench_replicas_target", "gauge", "replicas asked for by the autoscaler"),
    Spec("raybench_problems", "gauge", "different problems of the run so far"),
)


# --- in a generator ------------------------------------------------------------------------------------


class Counted:
    """A sink in front of another: counts the requests that pass, some 50 µs a batch, on the caller's thread.

    In a closed loop, where nothing is scheduled, TTFT and E2E run from sent and there is no lateness.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._counts = {name: np.zeros(len(edges) + 1, np.int64) for name, edges in BUCKETS.items()}
        self._counts[TOKENS] = np.zeros(1, np.int64)
        self._good = OUTCOMES.to_pylist().index(str(Outcome.OK))
        self._broken = False

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None:
        self._sink.write(table, batch)
        if table is Requests and not self._broken:
            try:
                self._count(batch)
            except Exception:
                self._broken = True  # rows go on being written; what is exported stays where it is

    def close(self) -> None:
        self._sink.close()

    def totals(self) -> dict[str, tuple[int, ...]]:
        """Requests by bucket since the start, the last one above the highest edge; and output tokens."""
        return {name: tuple(counts.tolist()) for name, counts in self._counts.items()}

    def _count(self, batch: pa.RecordBatch) -> None:
        def column(name: str) -> NDArray[np.float64]:
            floats = batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
            return np.asarray(floats, np.float64)

        anchor, sent = column(Requests.anchor_ns), column(Requests.sent_ns)
        good = batch.column(Requests.outcome).indices.to_numpy(zero_copy_only=False) == self._good
        begun = np.where(np.isnan(anchor), sent, anchor)
        self._add(LATENESS, np.maximum(sent - anchor, 0.0) / 1e9)
        self._add(TTFT, (column(Requests.first_token_ns) - begun)[good] / 1e9)
        self._add(E2E, (column(Requests.done_ns) - begun)[good] / 1e9)
        self._counts[TOKENS][0] += int(np.nansum(column(Requests.output_tokens)[good]))

    def _add(self, name: str, seconds: NDArray[np.float64]) -> None:
        """NaN, where an instant never came, counts nowhere."""
        edges = BUCKETS[name]
        where = np.searchsorted(edges, seconds[~np.isnan(seconds)], side="left")
        self._counts[name] += np.bincount(where, minlength=len(edges) + 1)


def add_up(parts: list[Mapping[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    """The totals of several generators as one."""
    names = {name: None for part in parts for name in part}
    return {
        name: tuple(sum(column) for column in zip(*(p[name] for p in parts if name in p), strict=True))
        for name in names
    }


# --- in the conductor ----------------------------------------------------------------------------------


class Publisher:
    """Sets a run's metrics to what a snapshot says. The first failure is told, and ends the publishing."""

    def __init__(self, run: str, problem: Callable[[str], Any]) -> None:
        self._run, self._problem = run[-200:], problem
        self._metrics: dict[str, Any] | None = None
        self._told: dict[tuple[str, str], float] = {}
        self._counted: dict[str, tuple[int, ...]] = {}
        self._broken = False

    def show(self, snapshot: Snapshot) -> None:
        """Raises nothing."""
        if self._broken:
            return
        try:
            if self._metrics is None:
                self._metrics = {spec.name: _make(spec, self._run) for spec in SPECS}
            self._publish(snapshot)
        except Exception as error:
            self._broken = True
            self._problem(f"Ray metrics are not exported (any more): {type(error).__name__}: {error}")

    def _publish(self, s: Snapshot) -> None:
        self._set("raybench_requests_planned", s.planned)
        self._raise_to("raybench_requests_offered_total", s.offered)
        self._raise_to("raybench_requests_sent_total", s.sent)
        for outcome, count in (s.counts or {}).items():
            self._raise_to("raybench_requests_total", count, {OUTCOME: str(outcome)})
        self._set("raybench_in_flight_requests", s.in_flight)
        self._set("raybench_problems", len(s.problems))
        self._deployment(s)
        for spec in SPECS:
            if spec.counted in s.counted:
                self._observe(spec, s.counted[spec.counted])
        if TOKENS in s.counted:
            self._raise_to("raybench_output_tokens_total", s.counted[TOKENS][0])

    def _deployment(self, s: Snapshot) -> None:
        """What is not known is NaN: an earlier figure would pass for today's."""
        now, unknown = s.now, math.nan
        waiting = serving = depth = target = unknown
        states = dict.fromkeys(("starting", "available", "stopping"), unknown)
        if now is not None:
            waiting = unknown if now.waiting is None else now.waiting
            serving = unknown if now.serving is None else now.serving
            target = unknown if now.target is None else float(now.target)
            depth = (waiting + serving) / now.available if now.available else unknown
            if now.target is not None:
                states = {"starting": now.starting, "available": now.available, "stopping": now.stopping}
            elif now.available:  # the engines of a target's metrics page: nobody tells the others
                states["available"] = now.available
        self._set("raybench_waiting_requests", waiting)
        self._set("raybench_serving_requests", serving)
        self._set("raybench_queue_depth", depth)
        self._set("raybench_replicas_target", target)
        for state, count in states.items():
            self._set("raybench_replicas", count, {STATE: state})

    def _set(self, name: str, value: float, tags: dict[str, str] | None = None) -> None:
        assert self._metrics is not None
        self._metrics[name].set(float(value), tags=tags)

    def _raise_to(self, name: str, total: float, tags: dict[str, str] | None = None) -> None:
        """A counter only rises: where a generator died with its last progress untold, it waits."""
        assert self._metrics is not None
        key = (name, ",".join((tags or {}).values()))
        more = total - self._told.get(key, 0)
        if more > 0:
            self._told[key] = total
            self._metrics[name].inc(more, tags=tags)

    def _observe(self, spec: Spec, counts: tuple[int, ...]) -> None:
        """As many values as each bucket has got since, in the bucket's middle: Ray takes values one by one
        (3 µs each), and exports buckets."""
        assert self._metrics is not None
        edges = BUCKETS[spec.counted]
        before = self._counted.get(spec.counted, (0,) * len(counts))
        lower, upper = (0.0, *edges), (*edges, 2 * edges[-1])
        for low, high, now, then in zip(lower, upper, counts, before, strict=True):
            for _ in range(now - then):
                self._metrics[spec.name].observe((low + high) / 2)
        self._counted[spec.counted] = tuple(map(max, counts, before))


def _make(spec: Spec, run: str) -> Any:
    from ray.util import metrics

    if spec.kind == "histogram":
        edges = list(BUCKETS[spec.counted])
        made = metrics.Histogram(spec.name, spec.meaning, boundaries=edges, tag_keys=spec.tags)
    elif spec.kind == "counter":
        made = metrics.Counter(spec.name, spec.meaning, tag_keys=spec.tags)
    else:
        made = metrics.Gauge(spec.name, spec.meaning, tag_keys=spec.tags)
    return made.set_default_tags({RUN: run})

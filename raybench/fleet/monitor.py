"""The monitor: one Ray actor beside the coordinator that watches the deployment and writes what it sees.

Serve's autoscaling policy finds it by name and tells it each tick; it polls Serve's controller for
replica states (a few ms a poll). Of a target that is no deployment it reads the metrics page instead. It
also takes the batches of generators on other hosts.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray

from raybench.fleet import clocks
from raybench.fleet.patience import REFUSED, Patient
from raybench.fleet.scrape import Page, Scraper
from raybench.fleet.timekeeper import Now, ReplicaSeen, Sample, Seen, Timekeeper
from raybench.rundir import LocalSink, is_written
from raybench.schema import TABLES, EventKind, ReplicaState
from raybench.serving.deployer import monitor_name, status

REST_S = 1.0
"""From poll to poll of Serve while everything is as it should be: what happens then unasked, such as a
replica's death, is seen so much later."""
EMPTY_S = 0.25
"""While nothing is available: Serve goes from zero to one without asking the policy."""
MOTION_S, LONG_S = 0.1, 0.15
"""While replicas come or go. A start-up that takes longer than `LONG_AFTER_S` is polled with more leisure."""
LONG_AFTER_S = 30.0
DECIDED_S = 2.0
"""After a decision of the policy, which it tells at once: so long something is about to happen."""
SAMPLE_S = 1.0
NODES_S = 5.0
MOST_SPELLS = 20
"""Of failures to read a metrics page; further ones are counted only."""
NAMESPACE = "raybench"


class Beat:
    """Something that is due every `period_s`, first at once. One that comes late is not made up for."""

    def __init__(self, period_s: float, now_s: float) -> None:
        self.period_s, self.next_s = period_s, now_s

    def due(self, now_s: float) -> bool:
        """Whether it is; then the next one lies after `now_s`, on the same grid."""
        if now_s < self.next_s:
            return False
        missed = (now_s - self.next_s) // self.period_s
        self.next_s = max(self.next_s + (missed + 1) * self.period_s, math.nextafter(now_s, math.inf))
        return True

    def pace(self, period_s: float, now_s: float) -> None:
        """From now on every `period_s`, and the next no later than that."""
        self.period_s = period_s
        self.next_s = min(self.next_s, now_s + period_s)


@ray.remote(num_cpus=0, max_concurrency=16, max_restarts=0)
class Monitor:
    """Named after the application, so that the policy in Serve's controller finds it."""

    def __init__(self, run_path: str, application: str | None, deployment: str) -> None:
        self._run_path, self._application = run_path, application
        self._lock = threading.Lock()
        self._sink = Patient(LocalSink(run_path, "monitor"), "monitor")
        self._keeper = Timekeeper(self._sink, deployment)
        self._guests: dict[str, tuple[LocalSink, threading.Lock]] = {}
        self._boot_id = clocks.boot_id()
        self._stop, self._hurry = threading.Event(), threading.Event()
        self._decided_s = self._at_rest_s = -math.inf
        self._scraper: Scraper | None = None
        self._failing, self._spells = False, 0
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        self._thread.start()

    def who(self) -> clocks.Identity:
        return clocks.identity(ray.get_runtime_context().get_node_id())

    # --- told by others ------------------------------------------------------------------------

    def start(self, t0_ns: int) -> None:
        """t0 on this host's monotonic clock, which is the coordinator's."""
        with self._lock:
            self._keeper.start(t0_ns)

    def event(self, t_ns: int, kind: str, subject: str, detail: dict[str, Any]) -> None:
        with self._lock:
            self._keeper.event(t_ns, EventKind(kind), subject, **detail)

    def read_page(self, metrics_url: str, model: str) -> None:
        """Begins to read a target's metrics page, once a second until `stop`."""
        self._scraper = Scraper(metrics_url, model, self._page)

    def observed(self, samples: list[dict[str, Any]]) -> None:
        """Ticks of the policy, in order. Another host's are placed by the wall clock."""
        wall_minus_mono = time.time_ns() - time.monotonic_ns()
        with self._lock:
            for s in samples:
                same = s.get("boot_id") == self._boot_id
                self._keeper.observed(
                    Sample(
                        t_ns=int(s["mono_ns"]) if same else int(s["wall_ns"]) - wall_minus_mono,
                        waiting=float(s["waiting"]),
                        serving=float(s["serving"]),
                        available=int(s["available"]),
                        target_before=int(s["target_before"]),
                        target=int(s["target"]),
                        reason=str(s["reason"]),
                        window_s=s.get("window_s"),
                        policy=str(s.get("policy", "policy")),
                        engine=s.get("engine") or {},
                    )
                )
        if any(s["target"] != s["target_before"] for s in samples):
            self._decided_s = time.monotonic()
            self._hurry.set()

    def append(self, writer: str, table: str, batch: pa.RecordBatch, again: bool = False) -> None:
        """Writes a batch of a generator that cannot reach the run directory. `again`: it may be there, from
        the monitor before this one; then nothing happens. Calls come in on several threads at once."""
        with self._lock:
            sink, one_at_a_time = self._guests.setdefault(
                writer, (LocalSink(self._run_path, writer), threading.Lock())
            )
        into = next(t for t in TABLES if t.name == table)
        with one_at_a_time:
            if not (again and is_written(self._run_path, writer, into, batch)):
                sink.write(into, batch)

    def close_writer(self, writer: str) -> None:
        with self._lock:
            guest = self._guests.pop(writer, None)
        if guest:
            guest[0].close()

    # --- asked by the coordinator --------------------------------------------------------------

    def now(self, in_flight: int | None = None) -> Now:
        """The latest state. `in_flight`: what the generators have under way, for the timeline."""
        if in_flight is not None:
            self._keeper.in_flight = in_flight
        page = self._scraper.reads if self._scraper else None
        return replace(self._keeper.now, problems=tuple(self._sink.problems), page=page)

    def stop(self) -> list[str]:
        """Stops watching, writes what is left and returns the problems met."""
        self._stop.set()
        self._hurry.set()
        if self._scraper:
            self._scraper.stop()
        self._thread.join(timeout=10)
        with self._lock:
            self._keeper.flush()
            sinks: list[Patient | LocalSink] = [self._sink, *(guest for guest, _ in self._guests.values())]
            for sink in sinks:
                try:
                    sink.close()
                except OSError as error:
                    self._sink.problems.append(f"monitor: the end of a stream {REFUSED}: {error}")
            return self._sink.problems

    # --- inside --------------------------------------------------------------------------------

    def _watch(self) -> None:
        now = time.monotonic()
        poll, sample, nodes = Beat(EMPTY_S, now), Beat(SAMPLE_S, now), Beat(NODES_S, now)
        beats = (poll, sample, nodes) if self._application else (sample, nodes)
        complained = False
        while not self._stop.is_set():
            now = time.monotonic()
            self._hurry.clear()
            poll.pace(self._pace_s(now), now)
            if self._application and poll.due(now):
                try:
                    self._poll(self._application)
                    complained = False
                except Exception as error:
                    # Serve's controller may be restarting; the gap shows in the timeline
                    if not complained:
                        text = f"Serve not seen: {error}"
                        self.event(time.monotonic_ns(), EventKind.NOTE, "monitor", {"text": text})
                    complained = True
            if nodes.due(now):
                self._keeper.nodes = sum(1 for n in ray.nodes() if n.get("Alive"))
            if sample.due(now):
                with self._lock:
                    self._keeper.sample(time.monotonic_ns())
                    self._keeper.flush()
            self._hurry.wait(max(0.0, min(beat.next_s for beat in beats) - time.monotonic()))

    def _pace_s(self, now_s: float) -> float:
        """From poll to poll: short where a state is about to change, so that its instant is known."""
        now = self._keeper.now
        if now_s - self._decided_s < DECIDED_S:
            return MOTION_S
        if now.in_motion:
            return MOTION_S if now_s - self._at_rest_s < LONG_AFTER_S else LONG_S
        self._at_rest_s = now_s
        return REST_S if now.available else EMPTY_S

    def _poll(self, application: str) -> None:
        began_ns = time.monotonic_ns()
        found = status(application, count=self._keeper.is_in_the_dark(began_ns))
        if found is None:
            return
        ended_ns = time.monotonic_ns()
        mono_minus_wall = ended_ns - time.time_ns()

        def started(unix_s: float | None) -> int | None:
            return None if unix_s is None else round(unix_s * 1e9) + mono_minus_wall

        seen = Seen(
            t_ns=ended_ns,
            target=found.target,
            replicas=[
                ReplicaSeen(r.replica, r.node, ReplicaState(r.state), started_ns=started(r.started_unix_s))
                for r in found.replicas
            ],
            total_requests=found.total_requests,
        )
        with self._lock:
            self._keeper.seen(seen)

    def _page(self, page: Page | None, reason: str) -> None:
        """Told by the scraper. A spell of failures is one note, and its end another."""
        said = ""
        with self._lock:
            if page is not None:
                self._keeper.page_read(page)
                said = "the metrics page is read again" if self._failing else ""
            else:
                self._keeper.page_lost()
                said = "" if self._failing else f"the metrics page cannot be read: {reason}"
            self._failing = page is None
        if said and self._spells < MOST_SPELLS:
            self._spells += page is None
            self.event(time.monotonic_ns(), EventKind.NOTE, "monitor", {"text": said})


def start_monitor(run_path: str, application: str | None, deployment: str) -> Any:
    """Starts the monitor on this very node, under the name by which the policy looks for it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"scheduling_strategy": here}
    if application:
        options |= {"name": monitor_name(application), "namespace": NAMESPACE}
    return Monitor.options(**options).remote(run_path, application, deployment)  # type: ignore[attr-defined]

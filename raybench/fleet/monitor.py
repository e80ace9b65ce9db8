"""The monitor: one Ray actor beside the coordinator that watches the deployment and writes what it sees.

Serve's autoscaling policy finds it by name and tells it each tick; it polls Serve's controller for
replica states (a few ms a poll). It also takes the batches of generators on other hosts.
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
from raybench.fleet.timekeeper import Now, ReplicaSeen, Sample, Seen, Timekeeper
from raybench.rundir import LocalSink, is_written
from raybench.schema import TABLES, EventKind, ReplicaState
from raybench.serving.deployer import monitor_name, status

POLL_S = 0.25
SAMPLE_S = 1.0
NODES_S = 5.0
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
        self._stop = threading.Event()
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

    def in_flight(self, requests: int) -> None:
        with self._lock:
            self._keeper.in_flight = requests

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

    def now(self) -> Now:
        return replace(self._keeper.now, problems=tuple(self._sink.problems))

    def stop(self) -> list[str]:
        """Stops watching, writes what is left and returns the problems met."""
        self._stop.set()
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
        poll, sample, nodes = Beat(POLL_S, now), Beat(SAMPLE_S, now), Beat(NODES_S, now)
        beats = (poll, sample, nodes) if self._application else (sample, nodes)
        complained = False
        while not self._stop.is_set():
            now = time.monotonic()
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
            self._stop.wait(max(0.0, min(beat.next_s for beat in beats) - time.monotonic()))

    def _poll(self, application: str) -> None:
        found = status(application, count=self._keeper.is_in_the_dark(time.monotonic_ns()))
        if found is None:
            return
        seen = Seen(
            t_ns=time.monotonic_ns(),
            target=found.target,
            replicas=[ReplicaSeen(r.replica, r.node, ReplicaState(r.state)) for r in found.replicas],
            total_requests=found.total_requests,
        )
        with self._lock:
            self._keeper.seen(seen)


def start_monitor(run_path: str, application: str | None, deployment: str) -> Any:
    """Starts the monitor on this very node, under the name by which the policy looks for it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"scheduling_strategy": here}
    if application:
        options |= {"name": monitor_name(application), "namespace": NAMESPACE}
    return Monitor.options(**options).remote(run_path, application, deployment)  # type: ignore[attr-defined]

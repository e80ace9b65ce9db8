"""One simulated run: everything put together, and the loop that goes from event to event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop
from typing import Any

import pyarrow as pa

from raybench import schedule as scheduling
from raybench.policies import Policy, make
from raybench.scenario import Scenario
from raybench.scenario.models import Settle
from raybench.schema import EventKind, LoadKind, ReplicaState
from raybench.simulator.asked import PHASE, Asked, asked, engine_of
from raybench.simulator.clients import CappedSender, ClosedSender, OpenSender, Plan
from raybench.simulator.engine import NEVER, NS
from raybench.simulator.host import Host
from raybench.simulator.server import Server
from raybench.simulator.watch import STATES, Watch, period_ns
from raybench.workload.draws import Draws

STEADY_AFTER_NS = 2 * NS
"""Settled means: at the minimum, and nothing in motion, for this long; as in a live run."""

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Finished:
    """What a run leaves behind, not yet as tables."""

    plan: pa.Table
    asked: Asked
    server: Server
    watch: Watch
    sender: OpenSender
    load_ns: int  # t0 to the last request accounted for
    end_ns: int
    period_ns: int
    settled: bool


class Run:
    """Built for one scenario and gone through once."""

    def __init__(
        self,
        scenario: Scenario,
        plan: pa.Table,
        *,
        policy: Policy | None = None,
        progress: Progress | None = None,
        tick_all: bool = False,
    ) -> None:
        deployment = scenario.deployment
        assert deployment is not None, "checked by `simulate`"
        self._scenario, self._plan, self._progress = scenario, plan, progress
        delays, load = scenario.simulation.serve, scenario.load
        model = engine_of(deployment)
        self._asked = asked(scenario, plan, model)
        self._heap: list[tuple[int, int, Callable[[int, Any], None], Any]] = []
        self._watch = Watch()
        self._server = server = Server(self._heap, self._asked, model, scenario)
        drain_s = load.request.timeout if deployment.drain is None else deployment.drain
        phases = Draws(scenario.seed, PHASE).uniform(2).tolist()
        self._host = Host(
            server,
            self._watch,
            policy or make(deployment.autoscaling.policy, deployment.autoscaling),
            deployment.autoscaling,
            delays,
            startup_ns=round(model.startup_s * NS),
            drain_ns=round(drain_s * NS),
            phases=(phases[0], phases[1]),
            tick_all=tick_all,
        )
        self._duration_ns = scheduling.duration_ns(scenario)
        self._sender = self._make_sender()
        self._period_ns = period_ns(self._duration_ns / NS)
        self._settle_ns = round((load.settle or Settle()).at_most * NS)
        self._load_ns: int | None = None
        self._rest: tuple[int, int] | None = None  # changes of the host's by then, and since when
        self._end_ns = NEVER
        self._settled = False
        server.on_all_over = self._all_over

    def _make_sender(self) -> OpenSender:
        load, plan = self._scenario.load, Plan(self._plan, self._duration_ns)
        kind = scheduling.load_kind(self._scenario)
        if kind is LoadKind.CLOSED:
            return ClosedSender(self._server, plan, load.concurrency or 1)
        if kind is LoadKind.CAPPED:
            return CappedSender(self._server, plan, load.max_in_flight or 1)
        return OpenSender(self._server, plan)

    def go(self) -> Finished:
        """From before t0 to the end of settling."""
        watch, name = self._watch, self._scenario.name
        self._host.start()
        watch.event(0, EventKind.LOAD_STARTED, name, planned=self._plan.num_rows)
        self._server.at(0, self._sample)
        self._sender.start()
        if not self._plan.num_rows:
            self._all_over(0)
        self._loop()
        self._server.release()
        assert self._load_ns is not None, "every request is accounted for"
        watch.event(self._end_ns, EventKind.RUN_ENDED, name, status="complete")
        first_ns = min(e["t_ns"] for e in watch.events)
        watch.event(min(first_ns, 0), EventKind.RUN_STARTED, name)
        watch.events.insert(0, watch.events.pop())
        return Finished(
            self._plan,
            self._asked,
            self._server,
            watch,
            self._sender,
            self._load_ns,
            self._end_ns,
            self._period_ns,
            self._settled,
        )

    def _loop(self) -> None:
        """Events in order of time; those of one instant in the order in which they were planned, after a row
        of the plan that is due then.
        """
        heap, sender = self._heap, self._sender
        due_ns, rows, count = sender.due_ns, sender.rows, len(sender.due_ns)
        # The open loop's rows are looked at where they arrive.
        straight = type(sender) is OpenSender
        shift_ns = self._server.network_ns if straight else 0
        arrive, due = self._server.arrive, sender.due
        at = 0
        next_ns = due_ns[0] + shift_ns if count else NEVER
        while True:
            while next_ns <= heap[0][0]:
                if straight:
                    arrive(next_ns, rows[at], next_ns - shift_ns)
                else:
                    due(next_ns, rows[at])
                at += 1
                next_ns = due_ns[at] + shift_ns if at < count else NEVER
            t_ns, _, action, argument = heappop(heap)
            if t_ns >= self._end_ns:
                return
            action(t_ns, argument)

    def _sample(self, t_ns: int, _: None) -> None:
        """The monitor's look; at the end of the run nobody looks any more."""
        host, server, watch = self._host, self._server, self._watch
        self._server.at(t_ns + self._period_ns, self._sample)
        starting, available, stopping = len(host.starting), len(server.open), len(host.stopping)
        if available:
            waiting, serving = host.waiting, host.serving
            depth = (waiting + serving) / available
        else:
            waiting, serving, depth = server.waiting + server.serving, 0.0, NAN
        watch.state(t_ns, (waiting, serving, depth, host.target, starting, available, stopping))
        for replica in server.open:
            engine = replica.engine
            inside = (engine.waiting, engine.running, engine.kv_usage(t_ns))
            watch.replica(t_ns, (replica.number, RUNNING, *inside))
        if starting or stopping:
            for replica in (*host.starting, *host.stopping):
                watch.replica(t_ns, (replica.number, STATES.index(replica.state), NAN, NAN, NAN))
        if self._progress is not None:
            self._progress(min(1.0, t_ns / self._duration_ns) if self._load_ns is None else 1.0)

    # --- the end -----------------------------------------------------------------------------------

    def _all_over(self, t_ns: int) -> None:
        self._load_ns = t_ns
        self._watch.event(t_ns, EventKind.LOAD_ENDED, self._scenario.name)
        self._end_ns = t_ns + self._settle_ns
        self._server.at(self._end_ns, _nothing)
        self._settling(t_ns, None)

    def _settling(self, t_ns: int, _: None) -> None:
        """Looks whether the deployment has been at rest for long enough; as often as a live run does."""
        host = self._host
        if not host.at_rest:
            self._rest = None
        elif self._rest is None or self._rest[0] != host.changed:
            self._rest = (host.changed, t_ns)
        elif t_ns - self._rest[1] >= STEADY_AFTER_NS:
            self._end_ns, self._settled = t_ns, True
        if t_ns < self._end_ns:
            self._server.at(t_ns + NS // 2, self._settling)
        else:
            self._server.at(t_ns, _nothing)


NAN = float("nan")
RUNNING = STATES.index(ReplicaState.RUNNING)


def _nothing(t_ns: int, argument: None) -> None:
    """Only to be woken at that instant."""

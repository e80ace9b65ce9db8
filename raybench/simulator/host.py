"""The deployment's host, as Ray Serve is one: it shows the policy the load and does what it says.

    push    every `metrics_interval` the router tells how many wait and are served: a mean over `look_back`
    tick    every `control_tick` the policy is asked, with the last push; its decision begins one tick later
    0 -> 1  belongs to the host: with nothing available and somebody there, one replica is asked for, and the
            policy is not asked until it runs

Between two pushes, as long as no replica comes or goes, the policy sees the same at every tick. So only the
first of those ticks is gone through, and later ones from the instant on that the policy itself names
(`next_decision_s`). While the load does not change for a whole look-back, pushes sleep as well. `tick_all`
goes through every tick; a test compares the two.
"""

from __future__ import annotations

from collections import deque
from math import ceil, inf

from raybench.policies import Decision, Observation, Policy
from raybench.policies.queue_depth import GAP_S, SLACK_S
from raybench.scenario.deployment import Autoscaling
from raybench.scenario.simulation import ServeDelays
from raybench.schema import EventKind, ReplicaState
from raybench.simulator.engine import NEVER, NS
from raybench.simulator.replica import Replica
from raybench.simulator.server import Server
from raybench.simulator.watch import Watch

DEPLOYMENT = "llm"


class PolicyError(ValueError):
    """A policy that raised instead of deciding."""


class Host:
    """Replicas, their number, and who decides about it."""

    def __init__(
        self,
        server: Server,
        watch: Watch,
        policy: Policy,
        autoscaling: Autoscaling,
        delays: ServeDelays,
        *,
        startup_ns: int,
        drain_ns: int,
        phases: tuple[float, float],
        tick_all: bool = False,
    ) -> None:
        """`phases`: where in their periods the first tick and the first push are, 0 to 1."""
        self._server, self._watch, self._policy = server, watch, policy
        self._least, self._most = autoscaling.min_replicas, autoscaling.max_replicas
        # Where the bounds leave one number, nobody's answer could change it.
        self._decided_already = self._least == self._most and not tick_all
        self._next_decision_s = getattr(policy, "next_decision_s", None)
        self._looks_inside = autoscaling.depth_source == "engine"
        self._tick_all = tick_all or self._next_decision_s is None
        self._tick_ns = max(1, round(delays.control_tick * NS))
        self._push_ns = max(1, round(delays.metrics_interval * NS))
        self._look_back_ns = round(delays.look_back * NS)
        self._start_ns = max(0, round(delays.start_delay * NS) - self._tick_ns) + startup_ns
        self._stop_ns, self._drain_ns = round(delays.stop_delay * NS), drain_ns
        self._tick_phase_ns = int(phases[0] * self._tick_ns)
        self._push_phase_ns = int(phases[1] * self._push_ns)
        self.target = self._least
        self.starting: list[Replica] = []
        self.stopping: list[Replica] = []
        # what was pushed last
        self.waiting = self.serving = 0.0
        self._busy, self._next_push_ns = 0, self._push_phase_ns
        self._marks: deque[tuple[int, int, int]] = deque()  # instant, integrals of waiting and serving
        # ticks
        self._planned_ns, self._ticked_ns = NEVER, -1
        self._wanted_ns = NEVER  # when the policy wants to be asked, where a push comes before
        self._silent_ns: int | None = None  # since which tick the policy has not been asked
        self._asked = False
        self._knocked = False
        self.changed = 0  # counts changes of replicas and target

        server.on_drained = self._drained
        server.on_knock = self._knock

    def start(self) -> None:
        """The least number of replicas has been there since before the load."""
        for _ in range(self._least):
            replica = self._server.add_replica()
            self._state(-self._start_ns - self._tick_ns, replica, ReplicaState.STARTING)
            self._state(-self._tick_ns, replica, ReplicaState.RUNNING)
            self._server.open_replica(0, replica)
        self._server.at(self._next_push_ns, self._push)
        self._tick_at(0)

    @property
    def at_rest(self) -> bool:
        """At the least number, and nothing in motion."""
        counts = (self.target, len(self.starting), len(self._server.open), len(self.stopping))
        return counts == (self._least, 0, self._least, 0)

    # --- what is seen ------------------------------------------------------------------------------

    def _push(self, t_ns: int, _: None) -> None:
        server, marks = self._server, self._marks
        waited = server.waiting * t_ns + server.waiting_sum
        served = server.serving * t_ns + server.serving_sum
        start_ns = t_ns - self._look_back_ns
        while len(marks) > 1 and marks[1][0] <= start_ns:
            marks.popleft()
        waiting, serving = float(server.waiting), float(server.serving)
        if marks and t_ns > marks[0][0]:
            then_ns, waited_then, served_then = marks[0]
            if then_ns < start_ns:  # between two pushes: in proportion
                next_ns, waited_next, served_next = marks[1] if len(marks) > 1 else (t_ns, waited, served)
                part, whole = start_ns - then_ns, next_ns - then_ns
                waited_then += (waited_next - waited_then) * part // whole
                served_then += (served_next - served_then) * part // whole
                then_ns = start_ns
            waiting = (waited - waited_then) / (t_ns - then_ns)
            serving = (served - served_then) / (t_ns - then_ns)
        marks.append((t_ns, waited, served))
        if self._looks_inside:
            inside = sum(replica.engine.waiting for replica in server.open)
            waiting, serving = waiting + inside, max(0.0, serving - inside)
        busy = 0
        for replica in server.open:
            if replica.ongoing:
                busy += 1
        if waiting != self.waiting or serving != self.serving or busy != self._busy:
            self.waiting, self.serving, self._busy = waiting, serving, busy
            self._tick_at(t_ns)
        else:
            self._tick_at(self._wanted_ns)
            self._wanted_ns = NEVER
            if waiting == server.waiting and serving == server.serving and not self._tick_all:
                # Nothing moved for a whole look-back: only a push after a change will say something else.
                server.on_change = self._wake
                self._next_push_ns = NEVER
                return
        self._next_push_ns = t_ns + self._push_ns
        server.at(self._next_push_ns, self._push)

    def _wake(self, t_ns: int) -> None:
        """The load changes at `t_ns`, for the first time since the last push."""
        server = self._server
        server.on_change = None
        self._next_push_ns = next_ns = self._grid(t_ns, self._push_phase_ns, self._push_ns)
        last_ns = next_ns - self._push_ns
        marks = self._marks
        if marks[-1][0] < last_ns:  # as all the pushes in between would have left it
            waited = server.waiting * last_ns + server.waiting_sum
            served = server.serving * last_ns + server.serving_sum
            marks.append((last_ns, waited, served))
        server.at(next_ns, self._push)

    def _knock(self, t_ns: int) -> None:
        """A request is refused while nothing is available: nobody waits, but somebody was there."""
        if not self.target and not self._knocked:
            self._knocked = True
            self._tick_at(t_ns)

    def _grid(self, t_ns: int, phase_ns: int, period_ns: int) -> int:
        """The first instant of the grid at or after `t_ns`."""
        return t_ns + (phase_ns - t_ns) % period_ns

    # --- who decides -------------------------------------------------------------------------------

    def _tick_at(self, t_ns: int) -> None:
        """The first tick at or after `t_ns` that has not been yet is gone through."""
        if self._decided_already or t_ns == NEVER:
            return
        if t_ns <= self._ticked_ns:
            t_ns = self._ticked_ns + 1
        tick_ns = t_ns + (self._tick_phase_ns - t_ns) % self._tick_ns
        if tick_ns < self._planned_ns:
            self._planned_ns = tick_ns
            self._server.at(tick_ns, self._tick, last=True)

    def _tick(self, t_ns: int, _: None) -> None:
        if t_ns != self._planned_ns:
            return
        self._planned_ns, self._wanted_ns, self._ticked_ns = NEVER, NEVER, t_ns
        if self._tick_all:
            self._tick_at(t_ns)
        available = len(self._server.open)
        if not available and (self.waiting + self.serving > 0 or self._knocked):
            self._knocked = False
            if self._silent_ns is None:
                self._silent_ns = t_ns
            if not self.target:
                self._watch.event(
                    t_ns,
                    EventKind.TARGET_CHANGED,
                    DEPLOYMENT,
                    **{"from": 0, "to": 1, "reason": "from_zero"},
                )
                self._aim(t_ns, 1)
            return
        now_s = t_ns / NS
        unbroken = self._asked and not self._tick_all
        if self._silent_ns is not None:
            gap_s = (t_ns - self._silent_ns + self._tick_ns) / NS
            unbroken = unbroken and gap_s <= GAP_S + SLACK_S
            self._silent_ns = None
        self._asked = True
        seen = Observation(
            now_s,
            self.waiting,
            self.serving,
            available,
            self.target - available if self.target > available else 0,
            self.target,
            self._busy,
            unbroken,
        )
        try:
            decision = self._policy.decide(seen)
        except Exception as error:  # somebody's own class may raise anything; live, Serve's number would stay
            raise PolicyError(f"the policy failed at {now_s:g} s: {type(error).__name__}: {error}") from error
        target = decision.target
        if target != self.target:
            target = min(max(target, self._least), self._most)
        if target != self.target:
            self._decided(t_ns, seen, target, decision)
            self._tick_at(t_ns)
        elif not self._tick_all and self._next_decision_s is not None:
            next_s = self._next_decision_s(seen)
            if next_s != inf:
                wanted_ns = ceil((next_s - SLACK_S) * NS)
                if wanted_ns < self._next_push_ns:
                    self._tick_at(wanted_ns)
                else:
                    self._wanted_ns = wanted_ns  # if the next push says nothing new

    def _decided(self, t_ns: int, seen: Observation, target: int, decision: Decision) -> None:
        self._watch.event(
            t_ns,
            EventKind.DECISION,
            getattr(self._policy, "name", type(self._policy).__name__),
            **{
                "from": self.target,
                "to": target,
                "reason": decision.reason,
                "queue_depth": seen.queue_depth,
                "waiting": seen.waiting,
                "serving": seen.serving,
                "available": seen.available,
                "window_s": getattr(decision, "window_s", None),  # a class of one's own may lack it
            },
        )
        self._aim(t_ns, target)

    # --- what is done ------------------------------------------------------------------------------

    def _aim(self, t_ns: int, target: int) -> None:
        self.target = target
        self.changed += 1
        self._server.at(t_ns + self._tick_ns, self._reconcile)

    def _reconcile(self, t_ns: int, _: None) -> None:
        """Starts what is missing. Stops what is too much: those still starting first, then the newest."""
        server = self._server
        while len(self.starting) + len(server.open) < self.target:
            replica = server.add_replica()
            self.starting.append(replica)
            self._state(t_ns, replica, ReplicaState.STARTING)
            server.at(t_ns + self._start_ns, self._ready, replica)
        while len(self.starting) + len(server.open) > self.target:
            replica = self.starting.pop() if self.starting else max(server.open, key=_number)
            self.stopping.append(replica)
            self._state(t_ns, replica, ReplicaState.STOPPING)
            server.at(t_ns + self._drain_ns, self._kill, replica)
            server.close_replica(t_ns, replica)
            self._tick_at(t_ns)

    def _ready(self, t_ns: int, replica: Replica) -> None:
        if replica.state is ReplicaState.STARTING:
            self.starting.remove(replica)
            self._state(t_ns, replica, ReplicaState.RUNNING)
            self._server.open_replica(t_ns, replica)
            self._tick_at(t_ns)

    def _drained(self, t_ns: int, replica: Replica) -> None:
        self._server.at(t_ns + self._stop_ns, self._gone, replica)

    def _kill(self, t_ns: int, replica: Replica) -> None:
        if replica.state is ReplicaState.STOPPING and replica.ongoing:
            self._server.kill_replica(t_ns, replica)

    def _gone(self, t_ns: int, replica: Replica) -> None:
        if replica.state is ReplicaState.STOPPING:
            self.stopping.remove(replica)
            self._state(t_ns, replica, ReplicaState.STOPPED)

    def _state(self, t_ns: int, replica: Replica, state: ReplicaState) -> None:
        previous = None if state is ReplicaState.STARTING else str(replica.state)
        replica.state = state
        self.changed += 1
        self._watch.event(
            t_ns,
            EventKind.REPLICA_STATE,
            replica.name,
            state=str(state),
            node=None,
            previous=previous,
        )


def _number(replica: Replica) -> int:
    return replica.number

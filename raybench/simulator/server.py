"""The server's side of a request: gateway, router, slot, engine, answer.

    gateway   may refuse while nothing is available, or beyond so many waiting; cuts what takes too long
    router    one queue, first come first served. With a free slot and nobody waiting a request goes at once
              to the less loaded of two replicas drawn at random. Else it waits, and once a slot frees, the
              router's polling finds it after `dispatch` and the least of m uniform draws from the back-off,
              m = 2 for each replica, at most one for each that waits. A new replica is found at once.
    replica   `slots_per_replica` requests; the engine admits them at the end of the step under way

Every request ends in exactly one call of `_over`. The sums for the policy's means are kept on the way: the
integral of a count n over time is n t plus the sum of the instants at which it fell, less those at which it
rose.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable
from heapq import heappush
from operator import attrgetter
from random import Random
from typing import Any

from raybench.engine_model import EngineModel
from raybench.scenario import Scenario
from raybench.schema import Outcome, ReplicaState
from raybench.simulator.asked import AT_ONCE, ROUTER, Asked, Fate
from raybench.simulator.engine import NEVER, NS, Engine, History
from raybench.simulator.replica import Replica
from raybench.workload.draws import Draws

PLANNED, WAITING, SERVED, CUT, OVER = range(5)
"""A request at the server. CUT: the client has its answer, the engine goes on."""

LAST = 2**60  # added to an event's place, it comes after the others of its instant
_ongoing = attrgetter("ongoing")


class Server:
    """Everything behind the network. Instants are the server's; the client's are `network_ns` off."""

    def __init__(
        self,
        heap: list[tuple[int, int, Callable[[int, Any], None], Any]],
        asked: Asked,
        model: EngineModel,
        scenario: Scenario,
    ) -> None:
        """`heap`: what is to happen, as the run's loop goes through it."""
        deployment, load, delays = scenario.deployment, scenario.load, scenario.simulation.serve
        assert deployment is not None, "checked by `simulate`"
        router, gateway = deployment.router, scenario.simulation.gateway
        n, self._stepped = len(asked.prompt), self._step  # bound once: it is planned with every request
        self._heap, self._asked, self._model = heap, asked, model
        self._fate, self._stream = asked.fate, load.request.stream
        self._slots, queued = model.slots, deployment.max_queued_requests
        self._max_queued = queued if queued >= 0 else NEVER
        self._gateway, self.network_ns = gateway, round(delays.network * NS)
        self._timeout_ns = round(load.request.timeout * NS)
        self._limit_ns = round(gateway.cut_off * NS) if gateway.cut_off is not None else NEVER
        # What the server says after this instant would come too late; it is left off at once.
        self._patience_ns = min(self._timeout_ns, self._limit_ns) - self.network_ns
        self._record_chunks = load.record_chunks and load.request.stream
        self._random = Random(int(Draws(scenario.seed, ROUTER).raw(1)[0]))
        grows = router.backoff_multiplier > 1  # then a long wait has come to the longest
        self._backoff_ns = (router.max_backoff if grows else router.initial_backoff) * NS
        self._dispatch_ns = round(delays.dispatch * NS)
        self._poll_ns = NEVER
        # of each request, instants as the client sees them
        self.state = bytearray(n)
        self.sent_ns = array("q", [-1]) * n
        self.given_ns = array("q", [-1]) * n  # to a replica, as the server sees it
        self.first_ns = array("q", [-1]) * n  # as the server sees it
        self.done_ns = array("q", [-1]) * n
        self.replica_of = array("i", [-1]) * n
        self.last_step = array("q", [-1]) * n if self._record_chunks else None
        self.failed: dict[int, tuple[Outcome, int | None, str, int]] = {}  # with status, reason, chunks
        # of all
        self.order = n  # of events at one instant: as they were planned
        self.queue: deque[int] = deque()
        self.waiting = self.serving = 0
        self.waiting_sum = self.serving_sum = 0
        self.left = n  # requests that are not over
        self.replicas: list[Replica] = []
        self.open: list[Replica] = []  # able to take requests
        self._unexpired: deque[int] = deque()  # in the order of sending
        self._expiry_ns = NEVER
        self.on_ended: Callable[[int, int], None] | None = None  # request, the client's instant
        self.on_drained: Callable[[int, Replica], None] = _nobody
        self.on_change: Callable[[int], None] | None = None  # set while somebody sleeps on the load
        self.on_all_over: Callable[[int], None] = _nobody
        self.on_knock: Callable[[int], None] = _nobody  # a request refused while nothing is available

    # --- what others may do ------------------------------------------------------------------------

    def at(
        self, t_ns: int, action: Callable[[int, Any], None], argument: Any = None, *, last: bool = False
    ) -> None:
        """Plans an event; with `last`, after the others of its instant."""
        self.order += 1
        heappush(self._heap, (t_ns, self.order + LAST * last, action, argument))

    def release(self) -> None:
        """The run is over: lets go of all who listen, so that nothing holds on to it in a circle."""
        del self._stepped
        self.on_drained = self.on_all_over = self.on_knock = _nobody
        self.on_ended = self.on_change = None
        self._heap.clear()

    def add_replica(self) -> Replica:
        history = History() if self._record_chunks else None
        engine = Engine(self._model, self._asked.prompt, self._asked.output, self.first_ns, history)
        replica = Replica(len(self.replicas), engine, history)
        self.replicas.append(replica)
        return replica

    def open_replica(self, t_ns: int, replica: Replica) -> None:
        """It can take requests from now on, and takes those that wait."""
        self.open.append(replica)
        if self.waiting:
            self._dispatch(t_ns)

    def close_replica(self, t_ns: int, replica: Replica) -> None:
        """It takes no more; `on_drained` is told once it has none, now or later."""
        if replica in self.open:
            self.open.remove(replica)
        if not replica.ongoing:
            self.on_drained(t_ns, replica)

    def kill_replica(self, t_ns: int, replica: Replica) -> None:
        """Ends what it still serves."""
        reason = "the replica was stopped before the answer ended (deployment.drain)"
        for i in [i for i, r in enumerate(self.replica_of) if r == replica.number]:
            if self.state[i] == SERVED or self.state[i] == CUT:
                begun = self._stream and self.first_ns[i] >= 0 and self.first_ns[i] <= t_ns
                kind = Outcome.STREAM_CUT if begun else Outcome.HTTP_ERROR
                self._give_up(i, t_ns, t_ns + self.network_ns, kind, 200 if begun else 500, reason)

    def give_up_unsent(self, t_ns: int) -> None:
        """The load has ended: what was not sent will not be."""
        unsent = self.sent_ns.count(-1)
        self.left -= unsent
        if unsent and not self.left:
            self.at(t_ns, self._tell_all_over)

    # --- a request's way ---------------------------------------------------------------------------

    def arrive(self, t_ns: int, i: int, sent_ns: int) -> None:
        """A request comes in, sent by the client at `sent_ns`."""
        self.sent_ns[i] = sent_ns
        if self.on_change is not None:
            self.on_change(t_ns)
        open_ = self.open
        if not self.waiting and open_:
            replica = open_[0]
            if len(open_) > 1:
                if len(open_) == 2:
                    other = open_[1]
                else:
                    replica, other = self._random.sample(open_, 2)
                if other.ongoing < replica.ongoing or (
                    other.ongoing == replica.ongoing and self._random.random() < 0.5
                ):
                    replica = other
            if replica.ongoing < self._slots:
                self._unexpired.append(i)
                if self._expiry_ns == NEVER:
                    self._expires(sent_ns)
                self._give(t_ns, i, replica)
                return
        gateway = self._gateway
        if not open_ and gateway.refuse_when == "unavailable":
            self.on_knock(t_ns)
            self._refuse(t_ns, i, gateway.refuse_latency, "no replica is available")
            return
        if gateway.queue_limit is not None and self.waiting >= gateway.queue_limit:
            self._refuse(t_ns, i, gateway.refuse_latency, f"{self.waiting} requests wait already")
        elif self.waiting >= self._max_queued:
            self._refuse(t_ns, i, 0.0, f"the router's queue is full ({self.waiting} requests)")
        else:
            self.state[i] = WAITING
            self._unexpired.append(i)
            if self._expiry_ns == NEVER:
                self._expires(sent_ns)
            self.queue.append(i)
            self.waiting += 1
            self.waiting_sum -= t_ns
            if len(open_) > 2 and self._poll_ns == NEVER:
                self._poll_later(t_ns)  # two full ones were drawn; others may have room

    def _give(self, t_ns: int, i: int, replica: Replica) -> None:
        self.state[i] = SERVED
        self.given_ns[i] = t_ns
        self.replica_of[i] = replica.number
        replica.ongoing += 1
        self.serving += 1
        self.serving_sum -= t_ns
        if self._fate is not None and self._fate[i] and self._meets_fate(t_ns, i, replica):
            return
        engine = replica.engine
        engine.submit(i, t_ns)
        if engine.due_ns < replica.scheduled_ns:
            replica.scheduled_ns = engine.due_ns
            self.order += 1
            heappush(self._heap, (engine.due_ns, self.order, self._stepped, replica))

    def _step(self, t_ns: int, replica: Replica) -> None:
        """The engine's next event, unless it was moved since this was planned."""
        if replica.scheduled_ns != t_ns:
            return
        engine = replica.engine
        if engine.due_ns > t_ns:  # moved to later: only now is it planned again
            replica.scheduled_ns = due_ns = engine.due_ns
            if due_ns != NEVER:
                self.order += 1
                heappush(self._heap, (due_ns, self.order, self._stepped, replica))
            return
        last_step = self.last_step
        ended = engine.boundary()
        replica.scheduled_ns = due_ns = engine.due_ns
        if due_ns != NEVER:
            self.order += 1
            heappush(self._heap, (due_ns, self.order, self._stepped, replica))
        if not ended:
            return
        done_ns, fate = t_ns + self.network_ns, self._fate
        for i in ended:
            if last_step is not None:
                last_step[i] = engine.step
            if fate is not None and fate[i]:
                self._broken(t_ns, i)
            else:
                self._over(i, done_ns)
        self._freed(t_ns, replica, len(ended))

    def _over(self, i: int, done_ns: int) -> None:
        """The client has its answer, or knows that there will be none."""
        if self.state[i] == CUT:
            self.state[i] = OVER
            return
        self.state[i] = OVER
        self.done_ns[i] = done_ns
        self.left -= 1
        if self.on_ended is not None:
            self.at(done_ns, self._tell_ended, i)
        if not self.left:
            self.at(done_ns, self._tell_all_over)

    def _tell_ended(self, t_ns: int, i: int) -> None:
        assert self.on_ended is not None
        self.on_ended(i, t_ns)

    def _tell_all_over(self, t_ns: int, _: None) -> None:
        self.on_all_over(t_ns)

    def _freed(self, t_ns: int, replica: Replica, slots: int) -> None:
        if self.on_change is not None:
            self.on_change(t_ns)
        replica.ongoing -= slots
        self.serving -= slots
        self.serving_sum += slots * t_ns
        if self.waiting and self._poll_ns == NEVER and self.open:
            self._poll_later(t_ns)
        if not replica.ongoing and replica.state is ReplicaState.STOPPING:
            self.on_drained(t_ns, replica)

    # --- the queue ---------------------------------------------------------------------------------

    def _poll_later(self, t_ns: int) -> None:
        pollers = min(self.waiting, 2 * len(self.open))
        # The least of m uniform draws from (0, 1) is 1 - U^(1/m).
        gap = 1.0 - self._random.random() ** (1.0 / pollers)
        self._poll_ns = t_ns + self._dispatch_ns + int(self._backoff_ns * gap)
        self.at(self._poll_ns, self._poll)

    def _poll(self, t_ns: int, _: None) -> None:
        if self._poll_ns == t_ns:
            self._poll_ns = NEVER
            if self.waiting and self.open:
                self._dispatch(t_ns)

    def _dispatch(self, t_ns: int) -> None:
        """Gives slots to those who wait, in their order, as long as there are any."""
        state, queue, slots = self.state, self.queue, self._slots
        while self.waiting:
            while state[queue[0]] != WAITING:
                queue.popleft()
            replica = min(self.open, key=_ongoing)
            if replica.ongoing >= slots:
                return
            self.waiting -= 1
            self.waiting_sum += t_ns
            self._give(t_ns, queue.popleft(), replica)
        queue.clear()

    # --- what does not go well ---------------------------------------------------------------------

    def _refuse(self, t_ns: int, i: int, latency_s: float, reason: str) -> None:
        self.failed[i] = (Outcome.HTTP_ERROR, 503, reason, 0)
        self._over(i, t_ns + round(latency_s * NS) + self.network_ns)

    def _meets_fate(self, t_ns: int, i: int, replica: Replica) -> bool:
        """A failure on demand; False where the engine has work with it all the same."""
        fate = Fate((self._fate or b"")[i])
        if fate in (Fate.CUT_STREAM, Fate.ERROR_EVENT):
            return False
        if fate is Fate.NEVER_ANSWER:
            return True
        status, reason = AT_ONCE[fate]
        self.failed[i] = (Outcome.HTTP_ERROR, status, reason, 0)
        self._over(i, t_ns + self.network_ns)
        self._freed(t_ns, replica, 1)
        return True

    def _broken(self, t_ns: int, i: int) -> None:
        """The engine came to where the answer breaks off on demand."""
        event = (self._fate or b"")[i] == Fate.ERROR_EVENT
        name = "error_event" if event else "cut_stream"
        reason = f"failed on demand (emulated.faults.{name})"
        if self.state[i] != CUT:
            if self._stream:
                chunks = self._asked.output[i] - 1  # the last token was never sent
                self.failed[i] = (Outcome.STREAM_CUT, 200, reason, chunks)
            else:
                self.failed[i] = (Outcome.HTTP_ERROR, 500, reason, 0)
        self._over(i, t_ns + self.network_ns)

    def _expires(self, sent_ns: int) -> None:
        """Timeout and cut-off are the same for all, so whoever was sent first is due first."""
        self._expiry_ns = sent_ns + self._patience_ns
        self.at(self._expiry_ns, self._expire)

    def _expire(self, t_ns: int, _: None) -> None:
        unexpired, state, sent_ns, patience_ns = self._unexpired, self.state, self.sent_ns, self._patience_ns
        while unexpired and (state[unexpired[0]] >= CUT or sent_ns[unexpired[0]] + patience_ns <= t_ns):
            i = unexpired.popleft()
            if state[i] < CUT:
                self._cut(i, t_ns)
        self._expiry_ns = NEVER
        if unexpired:
            self._expiry_ns = sent_ns[unexpired[0]] + patience_ns
            self.at(self._expiry_ns, self._expire)

    def _cut(self, i: int, t_ns: int) -> None:
        """By the client's timeout, or before that by the gateway."""
        done_ns = self.sent_ns[i] + min(self._timeout_ns, self._limit_ns)
        if self._timeout_ns <= self._limit_ns:
            head = self.state[i] == SERVED and self._stream
            reason = f"no complete answer within {self._timeout_ns / NS:g} s"
            self._give_up(i, t_ns, done_ns, Outcome.TIMEOUT, 200 if head else None, reason)
            return
        reason = f"the gateway gave up after {self._limit_ns / NS:g} s (simulation.gateway.cut_off)"
        begun = self._stream and 0 <= self.first_ns[i] <= t_ns
        kind, status = (Outcome.STREAM_CUT, 200) if begun else (Outcome.HTTP_ERROR, 504)
        self._give_up(i, t_ns, done_ns, kind, status, reason, keep=self._gateway.cut_keeps_slot)

    def _give_up(
        self,
        i: int,
        t_ns: int,
        done_ns: int,
        kind: Outcome,
        status: int | None,
        reason: str,
        *,
        keep: bool = False,
    ) -> None:
        """Ends a request before its answer, waiting or being served; with `keep` the engine goes on."""
        chunks, goes_on = 0, False
        if self.on_change is not None:
            self.on_change(t_ns)
        if self.state[i] == WAITING:
            self.waiting -= 1
            self.waiting_sum += t_ns
        else:
            replica = self.replicas[self.replica_of[i]]
            if self._fate is None or self._fate[i] != Fate.NEVER_ANSWER:  # else no engine knows it
                engine = replica.engine
                goes_on = keep
                chunks = engine.tokens(i, t_ns)
                if self.last_step is not None:
                    self.last_step[i] = engine.last_step(i)
                if not goes_on:
                    engine.abort(i, t_ns)
                    if engine.due_ns < replica.scheduled_ns:
                        replica.scheduled_ns = engine.due_ns
                        self.at(engine.due_ns, self._step, replica)
            if not goes_on:
                self._freed(t_ns, replica, 1)
        if self.state[i] != CUT:
            self.failed[i] = (kind, status, reason, chunks if self._stream else 0)
        self._over(i, done_ns)
        if goes_on:
            self.state[i] = CUT


def _nobody(*_: object) -> None:
    """Nobody listens."""

"""The client's side: when the next request goes, as `generator.dispatch` has it for a live run.

Rows are numbers of the plan. A later turn of a conversation goes its think time after the answer before it,
however that ended. A sender's rows with instants of their own are in `due`; whatever goes later is planned as
an event when its time is known.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import Any

import numpy as np
import pyarrow as pa

from raybench.schema import Schedule
from raybench.simulator.engine import NEVER
from raybench.simulator.server import Server


class Plan:
    """What a sender needs of the schedule."""

    def __init__(self, schedule: pa.Table, end_ns: int) -> None:
        """`end_ns`: when a load that has places ends; who has none by then is not sent."""
        instants = schedule[Schedule.scheduled_ns].fill_null(NEVER).to_numpy()
        turns = schedule[Schedule.turn].fill_null(0).to_numpy()
        self.end_ns = end_ns
        self.has_turns = bool((turns > 0).any())
        self.later = np.append(turns > 0, False).astype(np.int8).tobytes()  # one more: the last has a next
        self.think_ns = _array(schedule[Schedule.think_ns].fill_null(0).to_numpy())
        firsts = np.flatnonzero(turns <= 0)
        self.firsts = _array(firsts)
        self.due_ns = _array(instants[firsts])


class OpenSender:
    """Each row at its instant, whatever the server does."""

    def __init__(self, server: Server, plan: Plan) -> None:
        self._server, self._plan = server, plan
        self._network_ns = server.network_ns
        self.rows, self.due_ns = plan.firsts, plan.due_ns
        self.anchor_ns: dict[int, int] = {}  # of later turns
        self.stopped = False
        if plan.has_turns:
            server.on_ended = self.ended

    def start(self) -> None:
        """Nothing to plan: the loop goes through `due_ns`."""

    def due(self, t_ns: int, row: int) -> None:
        """The row's time has come."""
        self._send(t_ns, row)

    def ended(self, row: int, t_ns: int) -> None:
        self._next_turn(row, t_ns)

    def _next_turn(self, row: int, t_ns: int) -> None:
        if self._plan.later[row + 1]:
            due_ns = t_ns + self._plan.think_ns[row + 1]
            self.anchor_ns[row + 1] = due_ns
            self._server.at(due_ns, self.due, row + 1)

    def _send(self, t_ns: int, row: int) -> None:
        self._server.sent_ns[row] = t_ns
        if self._network_ns:
            self._server.at(t_ns + self._network_ns, self._arrive, row)
        else:
            self._server.arrive(t_ns, row, t_ns)

    def _arrive(self, t_ns: int, row: int) -> None:
        self._server.arrive(t_ns, row, t_ns - self._network_ns)


class CappedSender(OpenSender):
    """Rows keep their instants but wait, in order, for one of `cap` places: their lateness grows."""

    def __init__(self, server: Server, plan: Plan, cap: int) -> None:
        super().__init__(server, plan)
        self._free = cap
        self._waiting: deque[int] = deque()
        server.on_ended = self.ended

    def start(self) -> None:
        self._server.at(self._plan.end_ns, self._load_ended)

    def due(self, t_ns: int, row: int) -> None:
        if not self.stopped:
            self._waiting.append(row)
            self._admit(t_ns)

    def ended(self, row: int, t_ns: int) -> None:
        self._next_turn(row, t_ns)
        self._free += 1
        self._admit(t_ns)

    def _admit(self, t_ns: int) -> None:
        while self._waiting and self._free and not self.stopped and t_ns < self._plan.end_ns:
            self._free -= 1
            self._send(t_ns, self._waiting.popleft())

    def _load_ended(self, t_ns: int, _: Any) -> None:
        self.stopped = True
        self._server.give_up_unsent(t_ns)


class ClosedSender(OpenSender):
    """`callers` requests at once. Each caller goes on, after the think time, with the next turn of its
    conversation, or with the next row that nobody has taken.
    """

    def __init__(self, server: Server, plan: Plan, callers: int) -> None:
        super().__init__(server, plan)
        self.due_ns = array("q")  # no row has an instant
        self._callers = callers
        self._next = 0
        server.on_ended = self.ended

    def start(self) -> None:
        for _ in range(self._callers):
            row = self._take()
            if row is not None:
                self._server.at(0, self.due, row)
        self._server.at(self._plan.end_ns, self._load_ended)

    def due(self, t_ns: int, row: int) -> None:
        if not self.stopped and t_ns < self._plan.end_ns:
            self._send(t_ns, row)

    def ended(self, row: int, t_ns: int) -> None:
        following = row + 1 if self._plan.later[row + 1] else self._take()
        if following is not None:
            self._server.at(t_ns + self._plan.think_ns[following], self.due, following)

    def _take(self) -> int | None:
        if self._next == len(self.rows):
            return None
        self._next += 1
        return self.rows[self._next - 1]

    def _load_ended(self, t_ns: int, _: Any) -> None:
        self.stopped = True
        self._server.give_up_unsent(t_ns)


def _array(values: np.ndarray) -> array[int]:
    return array("q", np.ascontiguousarray(values, np.int64).tobytes())

"""When the next request goes: one sender for each kind of load.

Rows are positions in the slice. A sender calls `launch(row, anchor_ns)` when a row's time has come and
is told of every request that ended through `ended`. Turns of a conversation are neighbouring rows; a
later turn has no instant of its own but goes `think_ns` after the answer before it, however that ended.

How an instant is kept (`OpenSender`). The alarm is set `lead` before it; the kernel brings the thread
back some 10 to 100 µs after the alarm. The request is made ready, down to the connection, what is left is
spun away on the clock, and at the instant there is only the write. A busy loop comes by anyway: after each
read the client looks whether a row is due (`Client.due_ns`).

| step | costs | keeps |
|---|---|---|
| timerfd, set once per row | 1 µs of CPU, a wake-up | late by the kernel's own 10–100 µs |
| the request made ready | 10 to 60 µs, the colder the caches | nothing of it is left for the instant |
| spin for what is left of the lead | `LEAD_MAX_NS` or an eighth of the gap at most | to 1 µs |
| a look at the clock after each read | 50 ns | late by one read at most while the loop is busy |

The lead follows what was seen: up quickly when a request was not ready in time, down slowly otherwise, so
that fifty in fifty-one are and the spin is no longer than they need. The eighth keeps a high rate from
spending the loop on spinning: streams are read in between, whatever the rate.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from time import monotonic_ns
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from raybench.client import Client, Prepared
from raybench.generator.alarm import alarm
from raybench.generator.slice import values_of
from raybench.schema import Schedule

NEVER = 2**63 - 1
LEAD_MAX_NS = 300_000
LEAD_MIN_NS = 5_000
_LEAD_START_NS = LEAD_MAX_NS  # the first requests run through cold code
_LEAD_UP_NS, _LEAD_DOWN_NS = 50_000, 1_000
BURST = 32
"""Overdue rows sent before the loop may read again. Sending takes some 20 µs a row."""


class Launch(NamedTuple):
    """How a row is sent: made ready, which fails with None and needs no more, and written."""

    prepare: Callable[[int, int | None], Prepared | None]
    write: Callable[[int, Prepared], None]

    def now(self, row: int, anchor_ns: int | None) -> None:
        prepared = self.prepare(row, anchor_ns)
        if prepared is not None:
            self.write(row, prepared)


class Rows:
    """What a sender needs of the schedule. Memoryviews give Python ints in 40 ns, without a copy: a plan
    that is mapped from a file stays there, unless it holds conversations."""

    def __init__(self, schedule: pa.Table, t0_ns: int, load_end_ns: int | None) -> None:
        instants = values_of(schedule, Schedule.scheduled_ns, NEVER)
        turns = values_of(schedule, Schedule.turn, 0)
        self.t0_ns = t0_ns
        self.end_ns = NEVER if load_end_ns is None else t0_ns + load_end_ns
        self.think_ns = values_of(schedule, Schedule.think_ns, 0).data
        self.firsts: Sequence[int] | memoryview  # rows that wait for no other
        self.later: memoryview  # 1 for a row that waits for the one before it
        if schedule.column(Schedule.turn).null_count == schedule.num_rows:
            self.firsts, self.due_ns = range(schedule.num_rows), instants.data
            self.later = np.broadcast_to(np.False_, schedule.num_rows + 1).data
            self.has_turns, self.orphans = False, np.zeros(0, np.int64)
            return
        talks = schedule.column(Schedule.conversation).fill_null(-1).to_numpy()
        follows = (turns > 0) & (talks == np.roll(talks, 1))
        follows[:1] = False
        begins = np.flatnonzero(~follows)  # where each run of turns begins
        cut = np.repeat(turns[begins] > 0, np.diff(begins, append=len(turns)))
        follows &= ~cut
        self.later = np.append(follows, False).data  # one more, so that the last row has a next one
        self.has_turns = bool(follows.any())
        self.orphans = np.flatnonzero(cut)  # of a conversation whose first turn is not in this slice
        firsts = np.flatnonzero(turns <= 0)
        self.firsts, self.due_ns = firsts.data, instants[firsts].data


class OpenSender:
    """Each row at its instant, whatever the server does. Overdue rows go at once, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: Client, launch: Launch, rows: Rows) -> None:
        self._client = client
        self._launch = launch
        self._rows = rows
        self._firsts = rows.firsts
        self._due_ns = rows.due_ns
        self._end = len(rows.due_ns)
        self._next = 0  # of the rows that have instants
        self._turns: list[tuple[int, int]] = []  # heap of later turns: instant, row
        self._lead_ns = _LEAD_START_NS
        self._spin_ns = 0
        self._woken = False  # by the alarm, and no row was sent since
        self._stopped = False
        self._alarm = alarm(loop, self._ring)

    def start(self) -> None:
        self._client.on_due = self._dispatch
        self._arm()

    def ended(self, row: int, done_ns: int) -> None:
        """An open loop does not care, but for the turn that waits for this answer."""
        if self._rows.later[row + 1]:
            heappush(self._turns, (done_ns + self._rows.think_ns[row + 1], row + 1))
            if self._client.due_ns > self._turns[0][0]:
                self._arm()

    def stop(self) -> None:
        self._stopped = True
        self._client.due_ns = NEVER
        self._alarm.close()

    @property
    def passed(self) -> int:
        """No row before this one is still to be sent, but for later turns."""
        return self._firsts[self._next - 1] if self._next else 0

    @property
    def idle_ns(self) -> int:
        """How long until the next row is due."""
        return self._client.due_ns - monotonic_ns()

    def _ring(self) -> None:
        self._woken = True
        self._dispatch()

    def _dispatch(self) -> None:
        now_ns = monotonic_ns()
        for _ in range(BURST):
            due_ns = self._soonest_ns()
            if due_ns - now_ns > self._spin_ns:
                break
            if self._turns and self._turns[0][0] == due_ns:
                row = heappop(self._turns)[1]
            else:
                self._next += 1
                row = self._firsts[self._next - 1]
            self._go(row, due_ns)
            now_ns = monotonic_ns()
        self._woken = False
        self._arm()

    def _go(self, row: int, due_ns: int) -> None:
        """Makes the row ready, waits for its instant if that is still to come, and writes."""
        prepared = self._launch.prepare(row, due_ns)
        self._wait(due_ns)
        if prepared is not None:
            self._launch.write(row, prepared)

    def _wait(self, due_ns: int) -> None:
        """Spins until the instant; judges the lead by the first row after a wake-up."""
        if self._woken:
            self._woken = False
            if monotonic_ns() > due_ns:
                self._lead_ns = min(self._lead_ns + _LEAD_UP_NS, LEAD_MAX_NS)
            else:
                self._lead_ns = max(self._lead_ns - _LEAD_DOWN_NS, LEAD_MIN_NS)
        while monotonic_ns() < due_ns:
            pass

    def _soonest_ns(self) -> int:
        due_ns = self._rows.t0_ns + self._due_ns[self._next] if self._next < self._end else NEVER
        return min(due_ns, self._turns[0][0]) if self._turns else due_ns

    def _arm(self) -> None:
        if self._stopped:
            return
        due_ns = self._soonest_ns()
        if due_ns == NEVER:
            self._client.due_ns = NEVER
            return
        # The gap before this row is what a spin may take an eighth of.
        gap_ns = due_ns - self._client.due_ns if self._client.due_ns != NEVER else LEAD_MAX_NS << 3
        if gap_ns > 0:
            self._spin_ns = min(self._lead_ns, gap_ns >> 3)
        self._client.due_ns = due_ns
        self._alarm.set(due_ns - self._spin_ns)


class CappedSender(OpenSender):
    """Rows keep their instants but wait, in order, for one of `cap` places: their lateness grows."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, client: Client, launch: Launch, rows: Rows, cap: int
    ) -> None:
        super().__init__(loop, client, launch, rows)
        self._cap = cap
        self._waiting: deque[tuple[int, int]] = deque()  # row, instant

    def stop(self) -> None:
        super().stop()
        self._cap = 0

    def ended(self, row: int, done_ns: int) -> None:
        super().ended(row, done_ns)
        self._admit()

    def _go(self, row: int, due_ns: int) -> None:
        self._wait(due_ns)
        self._waiting.append((row, due_ns))
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._client.in_flight < self._cap:
            if monotonic_ns() >= self._rows.end_ns:
                return
            self._launch.now(*self._waiting.popleft())


class ClosedSender:
    """`callers` requests at once. Each caller goes on, after the think time, with the next turn of its
    conversation, or with the next row that nobody has taken.

    Think time is kept by the loop's own timers, late by up to a millisecond.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, client: Client, launch: Launch, rows: Rows, callers: int
    ) -> None:
        self._loop = loop
        self._launch = launch
        self._rows = rows
        self._firsts = rows.firsts
        self._callers = callers
        self._next = 0
        self._thinking: dict[int, Any] = {}  # row -> timer
        self._stopped = False
        self._alarm = alarm(loop, self._begin)

    def start(self) -> None:
        self._alarm.set(self._rows.t0_ns)

    def ended(self, row: int, done_ns: int) -> None:
        """One caller has its answer."""
        following = row + 1 if self._rows.later[row + 1] else self._take()
        if following is None:
            return
        think_ns = self._rows.think_ns[following]
        if think_ns > 0 and not self._stopped:
            self._thinking[following] = self._loop.call_later(think_ns / 1e9, self._thought, following)
        else:
            self._send(following)

    def stop(self) -> None:
        self._stopped = True
        for timer in self._thinking.values():
            timer.cancel()
        self._alarm.close()

    @property
    def passed(self) -> int:
        """No row before this one is still to be sent, but for later turns."""
        return self._firsts[self._next - 1] if self._next else 0

    @property
    def idle_ns(self) -> int:
        """A closed loop has no instants to miss."""
        return NEVER

    def _begin(self) -> None:
        for _ in range(self._callers):
            row = self._take()
            if row is not None:
                self._send(row)

    def _take(self) -> int | None:
        if self._next == len(self._firsts):
            return None
        self._next += 1
        return self._firsts[self._next - 1]

    def _thought(self, row: int) -> None:
        del self._thinking[row]
        self._send(row)

    def _send(self, row: int) -> None:
        if not self._stopped and monotonic_ns() < self._rows.end_ns:
            self._launch.now(row, None)

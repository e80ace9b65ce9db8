"""When the next request goes: one sender for each kind of load.

Rows are positions in the slice. A sender calls `launch(row, anchor_ns)` when a row's time has come,
is told of every finished request through `freed`, and names what it never sent through `unsent`.

How an instant is kept (`OpenSender`). The alarm is set `lead` before it; the kernel brings the thread
back some 10 to 100 µs after the alarm, and what is left is spun away on the clock. A busy loop comes
by anyway: after each read the client looks whether a row is due (`Client.due_ns`).

| step | costs | keeps |
|---|---|---|
| timerfd, set once per row | 1 µs of CPU, a wake-up | late by the kernel's own 10–100 µs |
| spin for what is left of the lead | `LEAD_MAX_NS` or an eighth of the gap at most | to 1 µs |
| a look at the clock after each read | 50 ns | late by one read at most while the loop is busy |

The lead follows the wake-ups seen: up quickly when one took longer, down slowly otherwise, so that
nine in ten are in time and the spin is no longer than they need. The eighth keeps a high rate from
spending the loop on spinning: streams are read in between, whatever the rate.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

import numpy as np

from raybench.client import Client
from raybench.generator.alarm import alarm

NEVER = 2**63 - 1
LEAD_MAX_NS = 300_000
LEAD_MIN_NS = 5_000
_LEAD_START_NS = 100_000
_LEAD_STEP_NS = 2_000
BURST = 32
"""Overdue rows sent before the loop may read again. Sending takes some 20 µs a row."""

Launch = Callable[[int, int | None], None]


class OpenSender:
    """Each row at its instant, whatever the server does. Overdue rows go at once, in order."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: Client,
        launch: Launch,
        scheduled_ns: np.ndarray,
        t0_ns: int,
    ) -> None:
        self._client = client
        self._launch = launch
        self._rows = len(scheduled_ns)
        # A memoryview gives Python ints in 40 ns, without a copy of the column.
        self._due_ns = np.ascontiguousarray(scheduled_ns, np.int64).data
        self._t0_ns = t0_ns
        self._next = 0
        self._lead_ns = _LEAD_START_NS
        self._alarm = alarm(loop, self._ring)
        self._armed_ns = 0

    def start(self) -> None:
        self._client.on_due = self._dispatch
        self._arm()

    def freed(self) -> None:
        """An open loop does not care."""

    def stop(self) -> None:
        self._client.due_ns = NEVER
        self._alarm.close()

    def unsent(self) -> np.ndarray:
        return np.arange(self._next, self._rows)

    @property
    def idle_ns(self) -> int:
        """How long until the next row is due."""
        return self._client.due_ns - monotonic_ns()

    def _ring(self) -> None:
        if monotonic_ns() - self._armed_ns > self._lead_ns:
            self._lead_ns = min(self._lead_ns + 9 * _LEAD_STEP_NS, LEAD_MAX_NS)
        else:
            self._lead_ns = max(self._lead_ns - _LEAD_STEP_NS, LEAD_MIN_NS)
        self._dispatch()

    def _dispatch(self) -> None:
        row = self._next
        end = min(self._rows, row + BURST)
        now_ns = monotonic_ns()
        while row < end:
            due_ns = self._t0_ns + self._due_ns[row]
            if due_ns > now_ns:
                if due_ns - now_ns > self._spin_ns:
                    break
                while (now_ns := monotonic_ns()) < due_ns:
                    pass
            self._next = row = row + 1
            self._go(row - 1, due_ns)
            now_ns = monotonic_ns()
        self._arm()

    def _go(self, row: int, due_ns: int) -> None:
        self._launch(row, due_ns)

    def _arm(self) -> None:
        row = self._next
        if row == self._rows:
            self._client.due_ns = NEVER
            return
        due_ns = self._due_ns[row]
        gap_ns = due_ns - self._due_ns[row - 1] if row else LEAD_MAX_NS << 3
        self._spin_ns = min(self._lead_ns, gap_ns >> 3)
        self._client.due_ns = due_ns = due_ns + self._t0_ns
        self._armed_ns = due_ns - self._spin_ns
        self._alarm.set(self._armed_ns)


class CappedSender(OpenSender):
    """Rows keep their instants but wait, in order, for one of `cap` places: their lateness grows."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: Client,
        launch: Launch,
        scheduled_ns: np.ndarray,
        t0_ns: int,
        cap: int,
        load_end_ns: int | None,
    ) -> None:
        super().__init__(loop, client, launch, scheduled_ns, t0_ns)
        self._cap = cap
        self._waiting: deque[tuple[int, int]] = deque()  # row, instant
        self._end_ns = NEVER if load_end_ns is None else t0_ns + load_end_ns

    def stop(self) -> None:
        super().stop()
        self._cap = 0

    def freed(self) -> None:
        while self._waiting and self._client.in_flight < self._cap:
            if monotonic_ns() >= self._end_ns:
                return
            self._launch(*self._waiting.popleft())

    def unsent(self) -> np.ndarray:
        return np.concatenate([np.array([row for row, _ in self._waiting], np.int64), super().unsent()])

    def _go(self, row: int, due_ns: int) -> None:
        self._waiting.append((row, due_ns))
        self.freed()


class ClosedSender:
    """`callers` requests at once, each followed by the next row after that row's think time.

    Think time is kept by the loop's own timers, late by up to a millisecond.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: Client,
        launch: Launch,
        think_ns: np.ndarray,
        t0_ns: int,
        callers: int,
        load_end_ns: int | None,
    ) -> None:
        self._loop = loop
        self._launch = launch
        self._rows = len(think_ns)
        self._think_ns = np.ascontiguousarray(think_ns, np.int64).data
        self._callers = callers
        self._t0_ns = t0_ns
        self._end_ns = NEVER if load_end_ns is None else t0_ns + load_end_ns
        self._next = 0
        self._thinking: dict[int, Any] = {}  # row -> timer
        self._stopped = False
        self._alarm = alarm(loop, self._begin)

    def start(self) -> None:
        self._alarm.set(self._t0_ns)

    def freed(self) -> None:
        """One caller is free: it takes the next row."""
        row = self._next
        if self._stopped or row == self._rows or monotonic_ns() >= self._end_ns:
            return
        self._next += 1
        think_ns = self._think_ns[row] if row >= self._callers else 0
        if think_ns > 0:
            self._thinking[row] = self._loop.call_later(think_ns / 1e9, self._thought, row)
        else:
            self._launch(row, None)

    def stop(self) -> None:
        self._stopped = True
        for timer in self._thinking.values():
            timer.cancel()
        self._alarm.close()

    def unsent(self) -> np.ndarray:
        return np.concatenate([np.array(list(self._thinking), np.int64), np.arange(self._next, self._rows)])

    @property
    def idle_ns(self) -> int:
        """A closed loop has no instants to miss."""
        return NEVER

    def _begin(self) -> None:
        for _ in range(self._callers):
            self.freed()

    def _thought(self, row: int) -> None:
        del self._thinking[row]
        if monotonic_ns() >= self._end_ns:
            self._thinking[row] = _NoTimer
            return
        self._launch(row, None)


class _NoTimer:
    """Stands for the timer of a caller who was still thinking when the load ended."""

    @staticmethod
    def cancel() -> None:
        """Nothing to cancel."""

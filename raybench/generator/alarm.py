"""Waking an event loop at an instant, to the microseconds the kernel can do.

uvloop's own timers tick in milliseconds. A timerfd takes nanoseconds and wakes the loop's poll like a
socket does; what then remains is the time the kernel takes to bring the thread back, some 10 to 100 µs.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_ABSTIME = 1


class _Spec(ctypes.Structure):
    """struct itimerspec: the interval (0: once), then the instant."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("s", ctypes.c_long),
        ("ns", ctypes.c_long),
    )


class TimerAlarm:
    """Calls `ring` on the loop at, or just after, the instant set last. Linux only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime: Any = libc.timerfd_settime
        self._settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = _Spec()
        self._at = ctypes.addressof(self._spec)
        self._loop = loop
        self._ring = ring
        loop.add_reader(self._fd, self._woken)

    def set(self, at_ns: int) -> None:
        """Moves the alarm to `at_ns` on the monotonic clock; an instant gone by rings at once. 1 µs."""
        self._spec.s, self._spec.ns = divmod(max(at_ns, 1), 1_000_000_000)
        self._settime(self._fd, _ABSTIME, self._at, None)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _woken(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set anew since it went off
            return
        self._ring()


class LoopAlarm:
    """The same on the loop's own timers, where there is no timerfd: late by up to a millisecond."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Loops tell time by the monotonic clock; floats of seconds hold microseconds for centuries.
        self._timer = self._loop.call_at(at_ns / 1e9, self._ring)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def alarm(loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> TimerAlarm | LoopAlarm:
    """The best alarm that this system has."""
    if sys.platform == "linux":
        return TimerAlarm(loop, ring)
    return LoopAlarm(loop, ring)

"""One clock for a run: every instant is nanoseconds on the coordinator's monotonic clock.

Processes that share the coordinator's boot share its CLOCK_MONOTONIC, so their offset is 0 by
construction. Any other host's is estimated from round trips: the remote reading is taken to fall in the
middle of the shortest one, so the estimate is off by half that round trip at most (Cristian, 1989).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import raybench
from raybench.schema import ClockSample

ROUNDS = 15


@dataclass(frozen=True)
class Identity:
    """The process behind a handle: enough to tell whether its clock and its code are ours."""

    hostname: str
    boot_id: str
    pid: int
    node: str | None
    version: str  # of raybench, as that process imports it
    writer: str = ""  # the name under which it writes tables, no other process's


def boot_id() -> str:
    """Identifies one boot of one kernel: equal ids, one monotonic clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: only this very host can be compared, by its name
        return f"{socket.gethostname()}"


def identity(node: str | None = None, writer: str = "") -> Identity:
    return Identity(socket.gethostname(), boot_id(), os.getpid(), node, raybench.__version__, writer)


def measure(
    remote_clock_ns: Callable[[], int],
    *,
    t0_ns: int,
    rounds: int = ROUNDS,
    clock_ns: Callable[[], int] = time.monotonic_ns,
) -> ClockSample:
    """Offset of a remote monotonic clock against ours: remote − ours, with half the best round trip.

    `remote_clock_ns` asks the other process for its clock and returns it; `t0_ns` is our clock at t0,
    so that the sample's own instant is on the run's axis.
    """
    best: tuple[int, int, int] | None = None  # round trip, offset, middle
    for _ in range(rounds):
        before = clock_ns()
        remote = remote_clock_ns()
        after = clock_ns()
        middle = before + (after - before) // 2
        if best is None or after - before < best[0]:
            best = (after - before, remote - middle, middle)
    assert best is not None
    round_trip, offset, middle = best
    return ClockSample(t_ns=middle - t0_ns, offset_ns=offset, uncertainty_ns=-(-round_trip // 2))


def same_clock(t_ns: int = 0) -> ClockSample:
    """The sample of a process on the coordinator's own boot: exactly no offset."""
    return ClockSample(t_ns=t_ns, offset_ns=0, uncertainty_ns=0)

"""What every policy sees and says. Standard library only: Serve's controller unpickles these modules by
value in a process that may never have heard of raybench.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Observation:
    """What the host reports at a tick.

    `waiting` and `serving` are means over about a second, hence floats; the clock is the host's,
    in seconds from any origin, never running backwards. A host that skips ticks while nothing changes
    (the simulator) says with `unbroken` that its last observation held until this one: then the time in
    between is no gap.
    """

    now_s: float
    waiting: float
    serving: float
    available: int
    starting: int
    target: int
    busy_replicas: int | None = None  # replicas with at least one request, where the host knows
    unbroken: bool = False

    @property
    def queue_depth(self) -> float | None:
        """(waiting + serving) / available; None when no replica is available."""
        return (self.waiting + self.serving) / self.available if self.available else None


@dataclass(frozen=True)
class Decision:
    """How many replicas there should be, and why. `reason` is empty while nothing changes.

    `window_s`: the time behind a change, through which something held or over which it was a mean; None
    where there is none.
    """

    target: int
    reason: str = ""
    window_s: float | None = None


class Policy(Protocol):
    """A policy is one object per deployment. It keeps its own timers and survives any gap between calls."""

    name: str

    def decide(self, seen: Observation) -> Decision:
        """The target from now on. Called at every tick of the host (about 10 times a second in Serve)."""
        ...

    def next_decision_s(self, seen: Observation) -> float:
        """The earliest time on the observation's clock at which the answer could differ from holding,
        if what is seen stays as it is; `inf` if never. The simulator skips ticks before it.
        """
        ...

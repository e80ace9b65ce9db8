"""What the laboratory's policies share: means over time, a beat, and knowing when to forget.

Standard library only (see `base`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import floor

from raybench.policies.base import Decision, Observation
from raybench.policies.queue_depth import GAP_S, SLACK_S


class Mean:
    """The mean over the last `window_s` seconds of a figure that holds from one look to the next.

        mean = integral of the figure over the window / the part of the window that was seen

    Until a whole window has been seen, the mean is over what there is. A window of 0 s is the last figure.
    Rounded to a millionth, so that the last bit of a sum does not become a replica.
    """

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._steps: deque[tuple[float, float]] = deque()  # (from when, figure), each until the next
        self._area = 0.0  # figure x seconds from the first step to the last
        self._now_s = 0.0

    def clear(self) -> None:
        self._steps.clear()
        self._area = 0.0

    def add(self, figure: float, now_s: float) -> None:
        """The last figure held until `now_s`; from there on it is this one."""
        self._now_s = now_s
        if not self._steps:
            self._steps.append((now_s, figure))
        elif figure != self._steps[-1][1]:
            from_s, before = self._steps[-1]
            self._area += before * (now_s - from_s)
            self._steps.append((now_s, figure))
        cut_s = now_s - self.window_s
        while len(self._steps) > 1 and self._steps[1][0] <= cut_s:
            from_s, before = self._steps.popleft()
            self._area -= before * (self._steps[0][0] - from_s)
        from_s, before = self._steps[0]
        if from_s < cut_s:
            self._steps[0] = (cut_s, before)
            self._area -= before * (cut_s - from_s) if len(self._steps) > 1 else 0.0
        if len(self._steps) == 1:
            self._area = 0.0  # whatever the sums had lost

    def value(self) -> float:
        """The mean at the last look; 0 before there was one."""
        if not self._steps:
            return 0.0
        from_s, figure = self._steps[-1]
        seen_s = self._now_s - self._steps[0][0]
        if len(self._steps) == 1 or seen_s <= 0:
            return figure  # exactly, where nothing changed
        return round((self._area + figure * (self._now_s - from_s)) / seen_s, 6)

    def extremes(self) -> tuple[float, float]:
        """(least, greatest) figure within the window; no mean leaves them while the last figure stays."""
        figures = [figure for _, figure in self._steps] or [0.0]
        return min(figures), max(figures)


class Beat:
    """Instants every `period_s` seconds from the first one on, whatever the host's ticks are."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._last_s: float | None = None

    def restart(self) -> None:
        self._last_s = None

    def next_s(self, now_s: float) -> float:
        return now_s if self._last_s is None else max(now_s, self._last_s + self.period_s)

    def due(self, now_s: float) -> bool:
        return self._last_s is None or now_s - self._last_s >= self.period_s - SLACK_S

    def strike(self, now_s: float) -> None:
        """The present beat is done; a late one does not move those to come."""
        if self._last_s is None:
            self._last_s = now_s
        else:
            self._last_s += floor((now_s - self._last_s + SLACK_S) / self.period_s) * self.period_s


@dataclass
class Memory:
    """What a policy saw and asked for last, and so whether anything happened behind its back."""

    seen_s: float | None = None
    target: int | None = None

    def gap(self, seen: Observation) -> bool:
        """A silence before this sample may have hidden anything."""
        if self.seen_s is None:
            return True
        return seen.now_s - self.seen_s > GAP_S + SLACK_S and not seen.unbroken

    def moved(self, seen: Observation) -> bool:
        """The target is not the one that was asked for."""
        return seen.target != self.target

    def keep(self, seen: Observation, decision: Decision) -> Decision:
        self.seen_s, self.target = seen.now_s, decision.target
        return decision


@dataclass(frozen=True)
class Bounds:
    """0 <= least <= most, most >= 1; ValueError otherwise."""

    least: int
    most: int

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or self.most < 1:
            raise ValueError(
                f"min_replicas {self.least} and max_replicas {self.most}: 0 <= min <= max, max >= 1"
            )

    def hold(self, target: int) -> bool:
        return self.least <= target <= self.most

    def decision(
        self, seen: Observation, wanted: int, reason: str, window_s: float | None = None
    ) -> Decision:
        """`wanted` within the bounds, with its reason and window if that is a change."""
        target = min(max(wanted, self.least), self.most)
        if target == seen.target:
            return Decision(target)
        if target != wanted:
            below = wanted < self.least
            bound = f"min_replicas {self.least}" if below else f"max_replicas {self.most}"
            side = "below" if below else "above"
            reason = f"{reason}; {bound}" if reason else f"target {wanted} is {side} {bound}"
        return Decision(target, reason, window_s)


def positive(**values: float) -> None:
    """ValueError, naming the parameter, for one that is not above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}: {value!r}; it should be above 0")


def not_negative(**values: float) -> None:
    """ValueError, naming the parameter, for one that is below zero."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name}: {value!r}; it should be 0 or above")

"""The queue-depth policy: one replica more after a whole window of depth, one fewer after one without.

    depth = (waiting + serving) / available

    up      depth >= scale_up_queue_depth    through a whole window, below the maximum, none starting
    down    depth <= scale_down_queue_depth  through a whole window, above the minimum
    last    the same, and nothing waiting and nothing being served through that window

A window is elapsed time on the observation's clock, from the first sample on the right side of the threshold
to the present one; one sample on the other side restarts it, and so does every step.
`threshold: strict` reads `>` and `<` instead. From zero to one belongs to the host.

Standard library only (see `base`).
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from raybench.policies.base import Decision, Observation

GAP_S = 1.0
"""A silence longer than this between two samples may have hidden anything: the timers start again."""

SLACK_S = 1e-6
"""Sums of floats: a window that is over but for a microsecond is over."""


class _Since(NamedTuple):
    """Start, in seconds, of the unbroken stretch up to the present sample; None while it does not hold."""

    deep: float | None = None  # depth at or above the upper threshold
    shallow: float | None = None  # depth at or below the lower one
    idle: float | None = None  # at or below the lower one, nothing waiting and nothing being served


def _go_on(since: float | None, holds: bool, now_s: float) -> float | None:
    return (now_s if since is None else since) if holds else None


class QueueDepth:
    """Implements `base.Policy`; the parameters are those of the scenario, durations in seconds.

    Raises ValueError for thresholds or bounds that contradict each other.
    """

    name = "queue_depth"

    def __init__(
        self,
        scale_up_queue_depth: float = 5.0,
        scale_down_queue_depth: float = 1.0,
        autoscaling_window_s: float = 60.0,
        min_replicas: int = 0,
        max_replicas: int = 2,
        threshold: str = "inclusive",
        step_up_while_starting: bool = False,
    ) -> None:
        if threshold not in ("inclusive", "strict"):
            raise ValueError(f"threshold: {threshold!r}; it is `inclusive` (>=, <=) or `strict` (>, <)")
        if not 0 <= min_replicas <= max_replicas or max_replicas < 1:
            raise ValueError(
                f"min_replicas {min_replicas} and max_replicas {max_replicas}: 0 <= min <= max, max >= 1"
            )
        if not autoscaling_window_s >= 0:
            raise ValueError(f"autoscaling_window: {autoscaling_window_s} s; a window is 0 s or longer")
        both_hold = scale_down_queue_depth >= scale_up_queue_depth
        if both_hold and not (threshold == "strict" and scale_down_queue_depth == scale_up_queue_depth):
            raise ValueError(
                f"scale_down_queue_depth {scale_down_queue_depth:g} must be below "
                f"scale_up_queue_depth {scale_up_queue_depth:g}, or one depth would ask for both steps"
            )
        self.scale_up_queue_depth = scale_up_queue_depth
        self.scale_down_queue_depth = scale_down_queue_depth
        self.window_s = autoscaling_window_s
        self.min_replicas = min_replicas
        self.max_replicas = max_replicas
        self.strict = threshold == "strict"
        self.step_up_while_starting = step_up_while_starting
        self._since = _Since()
        self._seen_s: float | None = None  # time of the last sample
        self._target: int | None = None  # what the last decision asked for

    def decide(self, seen: Observation) -> Decision:
        """One step at most. See the module's own words for when."""
        since = self._updated(seen)
        decision = self._step(seen, since)
        if decision.target != seen.target:
            since = self._stretches(_Since(), seen)
        self._since, self._seen_s, self._target = since, seen.now_s, decision.target
        return decision

    def next_decision_s(self, seen: Observation) -> float:
        """The end of the window that runs out first among those that could lead to a step; inf if none."""
        if not self.min_replicas <= seen.target <= self.max_replicas:
            return seen.now_s
        since = self._updated(seen)
        start = inf
        if since.deep is not None and self._may_step_up(seen):
            start = since.deep
        down = self._down_since(seen, since)
        if down is not None and down < start and self._may_step_down(seen):
            start = down
        return max(start + self.window_s, seen.now_s)

    def _updated(self, seen: Observation) -> _Since:
        """The stretches with the present sample added, or begun by it after a gap or a foreign change."""
        gap = self._seen_s is None or (seen.now_s - self._seen_s > GAP_S + SLACK_S and not seen.unbroken)
        known = not gap and seen.target == self._target
        return self._stretches(self._since if known else _Since(), seen)

    def _stretches(self, before: _Since, seen: Observation) -> _Since:
        depth = seen.queue_depth
        if depth is None:  # with nothing available there is no depth, on neither side of anything
            return _Since()
        up, down = self.scale_up_queue_depth, self.scale_down_queue_depth
        shallow = depth < down if self.strict else depth <= down
        return _Since(
            _go_on(before.deep, depth > up if self.strict else depth >= up, seen.now_s),
            _go_on(before.shallow, shallow, seen.now_s),
            _go_on(before.idle, shallow and seen.waiting == 0 and seen.serving == 0, seen.now_s),
        )

    def _step(self, seen: Observation, since: _Since) -> Decision:
        if seen.target < self.min_replicas:
            return Decision(
                self.min_replicas, f"target {seen.target} is below min_replicas {self.min_replicas}"
            )
        if seen.target > self.max_replicas:
            return Decision(
                self.max_replicas, f"target {seen.target} is above max_replicas {self.max_replicas}"
            )
        if self._may_step_up(seen) and self._over(since.deep, seen):
            return Decision(seen.target + 1, self._reason(seen, up=True), self.window_s)
        if self._may_step_down(seen) and self._over(self._down_since(seen, since), seen):
            return Decision(seen.target - 1, self._reason(seen, up=False), self.window_s)
        return Decision(seen.target)

    def _may_step_up(self, seen: Observation) -> bool:
        # The window's clock runs on while a replica starts: only the step itself waits.
        return seen.target < self.max_replicas and (seen.starting <= 0 or self.step_up_while_starting)

    def _may_step_down(self, seen: Observation) -> bool:
        return seen.target > self.min_replicas

    def _down_since(self, seen: Observation, since: _Since) -> float | None:
        return since.idle if seen.target == 1 else since.shallow

    def _over(self, since: float | None, seen: Observation) -> bool:
        return since is not None and seen.now_s - since >= self.window_s - SLACK_S

    def _reason(self, seen: Observation, *, up: bool) -> str:
        sign = (">" if up else "<") + ("" if self.strict else "=")
        limit = self.scale_up_queue_depth if up else self.scale_down_queue_depth
        text = f"queue depth {seen.queue_depth:.3g} {sign} {limit:g} through {self.window_s:g} s"
        if up:
            return text
        if seen.target == 1:
            return f"{text}, nothing waiting, nothing being served"
        if seen.busy_replicas:
            return f"{text}; {seen.busy_replicas} of {seen.available} replicas busy"
        return f"{text}; replicas busy with {seen.serving:.3g} requests" if seen.serving > 0 else text

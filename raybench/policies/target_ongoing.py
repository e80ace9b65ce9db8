"""Ray Serve's own policy: a target of ongoing requests for each replica.

    wanted  = ongoing / target_ongoing_requests                   ongoing = waiting + serving, a mean
    scaled  = ceil(available + factor x (wanted - available))     factor: upscaling or downscaling
    target  = scaled, once it has been on the same side of the target for that side's whole delay

Source: Ray 2.60, `ray/serve/autoscaling_policy.py` and `AutoscalingConfig` (names and defaults are theirs).
`available` are the running replicas: those starting do not count, so a start longer than the upscale delay
can be asked for again. Where fewer are wanted and a small factor rounds back up to all of them, one goes.
Going down stops at 1, and from there to 0 has its own delay. With none available, the target is held.

The mean over `look_back_period_s` is here, since a host reports only about its last second. On top of that
second, the mean is that of Ray's `aggregation_function: mean`; its `min` and `max` are not offered.

Unlike Ray's, this policy forgets its timers after a gap and after a change of target it did not make, and
leaves the first replica to the host: Ray would start ceil(upscaling_factor) of them.

Standard library only (see `base`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

from raybench.policies.base import Decision, Observation
from raybench.policies.queue_depth import SLACK_S
from raybench.policies.windows import Bounds, Mean, Memory, not_negative, positive


@dataclass(frozen=True)
class _Timer:
    """How long the wanted number has been above (side 1) or below (side -1) the target."""

    side: int = 0
    since_s: float = 0.0

    def at(self, side: int, now_s: float) -> _Timer:
        if side == 0:
            return _Timer()
        return self if side == self.side else _Timer(side, now_s)


class TargetOngoing:
    """Implements `base.Policy`; parameters as in Ray's `AutoscalingConfig`, durations in seconds.

    `downscale_to_zero_delay_s` is `downscale_delay_s` unless given. Raises ValueError for what cannot be.
    """

    name = "target_ongoing"

    def __init__(
        self,
        target_ongoing_requests: float = 2.0,
        upscaling_factor: float = 1.0,
        downscaling_factor: float = 1.0,
        upscale_delay_s: float = 30.0,
        downscale_delay_s: float = 600.0,
        downscale_to_zero_delay_s: float | None = None,
        look_back_period_s: float = 30.0,
        min_replicas: int = 0,
        max_replicas: int = 2,
    ) -> None:
        to_zero_s = downscale_delay_s if downscale_to_zero_delay_s is None else downscale_to_zero_delay_s
        positive(
            target_ongoing_requests=target_ongoing_requests,
            upscaling_factor=upscaling_factor,
            downscaling_factor=downscaling_factor,
        )
        not_negative(
            upscale_delay_s=upscale_delay_s,
            downscale_delay_s=downscale_delay_s,
            downscale_to_zero_delay_s=to_zero_s,
            look_back_period_s=look_back_period_s,
        )
        self.target_ongoing_requests = target_ongoing_requests
        self.upscaling_factor = upscaling_factor
        self.downscaling_factor = downscaling_factor
        self.upscale_delay_s = upscale_delay_s
        self.downscale_delay_s = downscale_delay_s
        self.downscale_to_zero_delay_s = to_zero_s
        self._bounds = Bounds(min_replicas, max_replicas)
        self._mean = Mean(look_back_period_s)
        self._memory = Memory()
        self._timer = _Timer()

    def decide(self, seen: Observation) -> Decision:
        """The wanted number, once it has been wanted for long enough. See the module's own words."""
        if self._memory.gap(seen):
            self._mean.clear()
        self._mean.add(seen.waiting + seen.serving, seen.now_s)
        timer = self._known_timer(seen)
        wanted, reason, window_s = seen.target, "", None
        if seen.available or not seen.target:  # else all replicas are gone: held, and the clock runs on
            ongoing = self._mean.value()
            scaled = self._scaled(ongoing, seen)
            timer = timer.at(_side(scaled, seen), seen.now_s)
            delay_s = self._delay_s(timer.side, seen)
            if timer.side and seen.now_s - timer.since_s + SLACK_S >= delay_s:
                # Several replicas never become none in one step.
                wanted = max(1, scaled) if timer.side < 0 and seen.target > 1 else scaled
                reason = (
                    f"{ongoing:.3g} ongoing requests over {seen.available} available, "
                    f"{self.target_ongoing_requests:g} a replica: {wanted} wanted, not {seen.target}, "
                    f"for {delay_s:g} s"
                )
                window_s = delay_s
                timer = _Timer()
        self._timer = timer
        return self._memory.keep(seen, self._bounds.decision(seen, wanted, reason, window_s))

    def next_decision_s(self, seen: Observation) -> float:
        """The end of the running delay. While the mean can still cross over, every look counts: a delay
        begins at the look that finds it so. (While what is seen stays, the mean stays between the least and
        the greatest figure of its window.)
        """
        if not self._bounds.hold(seen.target):
            return seen.now_s
        if not seen.available:
            return inf
        figure = seen.waiting + seen.serving
        least, greatest = (figure, figure) if self._memory.gap(seen) else self._mean.extremes()
        side = _side(self._scaled(min(least, figure), seen), seen)
        if side != _side(self._scaled(max(greatest, figure), seen), seen):
            return seen.now_s
        if not side or not self._bounds.hold(seen.target + side):
            return inf
        timer = self._known_timer(seen).at(side, seen.now_s)
        return max(seen.now_s, timer.since_s + self._delay_s(side, seen))

    def _known_timer(self, seen: Observation) -> _Timer:
        return _Timer() if self._memory.gap(seen) or self._memory.moved(seen) else self._timer

    def _scaled(self, ongoing: float, seen: Observation) -> int:
        if not seen.available:
            return seen.target
        # In Ray's order of operations: rounding up makes a replica of the last bit.
        available = seen.available
        wanted = available * (ongoing / (self.target_ongoing_requests * available))
        factor = self.upscaling_factor if wanted > available else self.downscaling_factor
        scaled = ceil(available + factor * (wanted - available))
        if scaled == available and ceil(wanted) < available:
            scaled -= 1  # a small factor would otherwise never let the last ones go
        return max(0, scaled)

    def _delay_s(self, side: int, seen: Observation) -> float:
        if side > 0:
            return self.upscale_delay_s
        return self.downscale_to_zero_delay_s if seen.target == 1 else self.downscale_delay_s


def _side(scaled: int, seen: Observation) -> int:
    return (scaled > seen.target) - (scaled < seen.target)

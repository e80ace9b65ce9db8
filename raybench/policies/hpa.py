"""Kubernetes' horizontal pod autoscaler on an average value; KEDA's way to zero where `min_replicas` is 0.

At every sync, by default each 15 s, on one sample:

    proposal    = ceil(requests / target_average_value), or the replicas there are while
                  requests / (target_average_value x replicas) is within 1 +- tolerance
    stabilised  = the target, raised to the least proposal of the scale-up window (0 s)
                  and then lowered to the greatest proposal of the scale-down window (300 s)
    up to       = replicas at the period's start + pods, or x (1 + percent / 100), rounded up
    down to     = replicas at the period's start - pods, or x (1 - percent / 100), rounded down

Of several limits `select` takes the one that allows the greatest change (`max`), the least (`min`), or none
(`disabled`). Replicas are those available and starting. KEDA, when `min_replicas` is 0: at every poll, each
30 s, requests above `activation_threshold` make it active; inactive for `cooldown_period_s`, all replicas go.
Until then the autoscaler's own minimum is 1.

Sources: "Horizontal Pod Autoscaling" in Kubernetes' documentation (algorithm, configurable scaling behavior)
and `pkg/controller/podautoscaler`; "Scaling Deployments" and the ScaledObject specification in KEDA's. Names
and defaults are theirs, except that there is no default target in either. Requests count in thousandths, as
Kubernetes' quantities do. There is no metrics pipeline here: a sync sees the present second, a real one what
was scraped some seconds ago.

Serve takes the last replica only by itself, so the way to zero passes through one replica for one tick.
A gap, or a change of target that was not asked for, starts the windows again and counts as being active.

Standard library only (see `base`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf
from typing import Any

from raybench.policies.base import Decision, Observation
from raybench.policies.queue_depth import SLACK_S
from raybench.policies.windows import Beat, Bounds, Memory, not_negative, positive

METRICS = ("ongoing", "waiting")
SELECT = ("max", "min", "disabled")


@dataclass(frozen=True)
class Limit:
    """One scaling policy: at most `value` replicas, or percent of them, within any `period_s` seconds."""

    type: str
    value: int
    period_s: float

    def __post_init__(self) -> None:
        if self.type not in ("pods", "percent"):
            raise ValueError(f"type: {self.type!r}; a scaling policy is of type `pods` or `percent`")
        if self.value != int(self.value):
            raise ValueError(f"value: {self.value!r}; it should be a whole number")
        positive(value=self.value, period_s=self.period_s)

    def up_to(self, start: int) -> int:
        return start + self.value if self.type == "pods" else ceil(start * (100 + self.value) / 100)

    def down_to(self, start: int) -> int:
        return start - self.value if self.type == "pods" else floor(start * (100 - self.value) / 100)

    def __str__(self) -> str:
        return f"{self.value:g}{' replicas' if self.type == 'pods' else '%'} in {self.period_s:g} s"


UP = ({"type": "pods", "value": 4, "period_s": 15.0}, {"type": "percent", "value": 100, "period_s": 15.0})
DOWN = ({"type": "percent", "value": 100, "period_s": 15.0},)


class Hpa:
    """Implements `base.Policy`; durations in seconds, limits as mappings with type, value and period_s.

    `metric`: `ongoing` counts requests waiting and being served, `waiting` only the former, as a query for
    an engine's waiting requests would. Raises ValueError for what cannot be.
    """

    name = "hpa"

    def __init__(
        self,
        target_average_value: float = 5.0,
        metric: str = "ongoing",
        tolerance: float = 0.1,
        sync_period_s: float = 15.0,
        scale_up_stabilization_s: float = 0.0,
        scale_down_stabilization_s: float = 300.0,
        scale_up_policies: Sequence[Mapping[str, Any]] = UP,
        scale_down_policies: Sequence[Mapping[str, Any]] = DOWN,
        scale_up_select: str = "max",
        scale_down_select: str = "max",
        activation_threshold: float = 0.0,
        polling_interval_s: float = 30.0,
        cooldown_period_s: float = 300.0,
        min_replicas: int = 0,
        max_replicas: int = 2,
    ) -> None:
        positive(
            target_average_value=target_average_value,
            sync_period_s=sync_period_s,
            polling_interval_s=polling_interval_s,
        )
        not_negative(
            tolerance=tolerance,
            scale_up_stabilization_s=scale_up_stabilization_s,
            scale_down_stabilization_s=scale_down_stabilization_s,
            activation_threshold=activation_threshold,
            cooldown_period_s=cooldown_period_s,
        )
        if metric not in METRICS:
            raise ValueError(f"metric: {metric!r}; it is one of {', '.join(METRICS)}")
        self.target_average_value = target_average_value
        self.metric = metric
        self.tolerance = tolerance
        self.scale_up_stabilization_s = scale_up_stabilization_s
        self.scale_down_stabilization_s = scale_down_stabilization_s
        self.up = _limits("scale_up", scale_up_policies, scale_up_select)
        self.down = _limits("scale_down", scale_down_policies, scale_down_select)
        self.scale_up_select = scale_up_select
        self.scale_down_select = scale_down_select
        self.activation_threshold = activation_threshold
        self.cooldown_period_s = cooldown_period_s
        self._bounds = Bounds(min_replicas, max_replicas)
        self._to_zero = min_replicas == 0
        self._sync, self._poll = Beat(sync_period_s), Beat(polling_interval_s)
        self._memory = Memory()
        self._proposals: deque[tuple[float, int]] = deque()  # (when, how many), oldest first
        self._steps: deque[tuple[float, int]] = deque()  # (when, by how many), oldest first
        self._active_s = 0.0

    def decide(self, seen: Observation) -> Decision:
        """KEDA's poll, then the autoscaler's sync, each when its beat is due."""
        if self._memory.gap(seen):
            self._sync.restart()
            self._poll.restart()
        if self._memory.gap(seen) or self._memory.moved(seen):
            self._proposals = deque([(seen.now_s, seen.target)])
            self._steps.clear()
            self._active_s = seen.now_s
        wanted, reason, window_s = seen.target, "", None
        if seen.target > 0 and self._bounds.hold(seen.target):
            if self._to_zero and self._poll.due(seen.now_s):
                wanted, reason = self._polled(seen)
                window_s = self.cooldown_period_s
            if wanted == seen.target and self._sync.due(seen.now_s):
                wanted, reason = self._synced(seen)
                up = wanted > seen.target
                window_s = self.scale_up_stabilization_s if up else self.scale_down_stabilization_s
        decision = self._bounds.decision(seen, wanted, reason, window_s)
        if decision.target != seen.target:
            self._steps.append((seen.now_s, decision.target - seen.target))
        return self._memory.keep(seen, decision)

    def next_decision_s(self, seen: Observation) -> float:
        """The next sync or poll: each looks, so none may be skipped. Without replicas only the host acts."""
        if not self._bounds.hold(seen.target) or (seen.target and self._memory.gap(seen)):
            return seen.now_s
        if seen.target == 0:
            return inf
        polled_s = self._poll.next_s(seen.now_s) if self._to_zero else inf
        return min(self._sync.next_s(seen.now_s), polled_s)

    def _requests(self, seen: Observation) -> float:
        return round(seen.waiting + (seen.serving if self.metric == "ongoing" else 0.0), 3)

    def _polled(self, seen: Observation) -> tuple[int, str]:
        requests = self._requests(seen)
        if requests > self.activation_threshold:
            self._active_s = seen.now_s
        idle = seen.now_s - self._active_s >= self.cooldown_period_s - SLACK_S
        if not idle or seen.target == 1:
            self._poll.strike(seen.now_s)
        if not idle:
            return seen.target, ""
        # From several replicas to one, and at the next tick, still polling, to none.
        return min(seen.target - 1, 1), (
            f"{requests:g} requests {self._what}, not above {self.activation_threshold:g} "
            f"for {self.cooldown_period_s:g} s"
        )

    def _synced(self, seen: Observation) -> tuple[int, str]:
        self._sync.strike(seen.now_s)
        requests, replicas = self._requests(seen), seen.available + seen.starting
        proposal = ceil(requests / self.target_average_value)
        ratio = requests / (self.target_average_value * replicas) if replicas else inf
        if 1 - self.tolerance <= ratio <= 1 + self.tolerance:
            proposal = replicas
        wanted = self._stabilised(proposal, seen)
        per_replica = f"{self.target_average_value:g} a replica"
        reason = f"{requests:g} requests {self._what}, {per_replica}: {proposal} proposed"
        if wanted != proposal:
            side = "up" if wanted < proposal else "down"
            reason += f", {wanted} with the scale-{side} window"
        limited, limits = self._limited(wanted, seen)
        if limited != wanted:
            reason += f", {limited} within {limits}"
        # Below 1 is KEDA's to go.
        return max(1, limited), reason

    @property
    def _what(self) -> str:
        return "ongoing" if self.metric == "ongoing" else "waiting"

    def _stabilised(self, proposal: int, seen: Observation) -> int:
        up_s, down_s = self.scale_up_stabilization_s, self.scale_down_stabilization_s
        while self._proposals and not self._within(self._proposals[0][0], max(up_s, down_s), seen):
            self._proposals.popleft()
        before = list(self._proposals)
        self._proposals.append((seen.now_s, proposal))
        least = min([proposal, *(n for when_s, n in before if self._within(when_s, up_s, seen))])
        greatest = max([proposal, *(n for when_s, n in before if self._within(when_s, down_s, seen))])
        return min(max(seen.target, least), greatest)

    def _limited(self, wanted: int, seen: Observation) -> tuple[int, str]:
        """The wanted number as far as the limits let it, and the limits in words."""
        target = seen.target
        if wanted == target:
            return wanted, ""
        up = wanted > target
        limits, select = (self.up, self.scale_up_select) if up else (self.down, self.scale_down_select)
        if select == "disabled":
            return target, "scaling disabled"
        longest_s = max(limit.period_s for limit in self.up + self.down)
        while self._steps and not self._within(self._steps[0][0], longest_s, seen):
            self._steps.popleft()
        starts = [target - sum(self._changes(limit.period_s, seen)) for limit in limits]
        words = f" {'or' if select == 'max' else 'and'} ".join(map(str, limits))
        pick: Callable[[list[int]], int]
        if up:
            pick = max if select == "max" else min
            reach = pick([limit.up_to(start) for limit, start in zip(limits, starts, strict=True)])
            return min(wanted, max(reach, target)), words
        pick = min if select == "max" else max
        reach = pick([limit.down_to(start) for limit, start in zip(limits, starts, strict=True)])
        return max(wanted, min(reach, target)), words

    def _changes(self, period_s: float, seen: Observation) -> list[int]:
        return [by for when_s, by in self._steps if self._within(when_s, period_s, seen)]

    def _within(self, when_s: float, window_s: float, seen: Observation) -> bool:
        return seen.now_s - when_s < window_s - SLACK_S


def _limits(side: str, given: Sequence[Mapping[str, Any]], select: str) -> tuple[Limit, ...]:
    if select not in SELECT:
        raise ValueError(f"{side}_select: {select!r}; it is one of {', '.join(SELECT)}")
    try:
        limits = tuple(Limit(**limit) for limit in given)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{side}_policies: {error}; each is like {{type: percent, value: 100, period_s: 15}}"
        ) from error
    if not limits:
        raise ValueError(f"{side}_policies: none; {side}_select: disabled says that nothing may change")
    return limits

"""Knative's pod autoscaler on concurrency, with its stable and its panic window.

At every tick of its own, by default each 2 s, with a = available replicas, at least 1:

    per replica = target_concurrency x target_utilization_percentage / 100
    stable      = ceil(mean requests over stable_window_s / per replica)
    panic       = ceil(mean requests over the panic window / per replica)
    both within   floor(a / max_scale_down_rate) .. ceil(a x max_scale_up_rate)

Requests are those waiting and being served. Panic begins when panic / a, before the rates, reaches
panic_threshold_percentage / 100, and ends when it has stayed below for a stable window. In panic the target
is the greatest number that either window asked for since, so it never goes down. `scale_down_delay_s` holds
the greatest number of that time. When even the stable window saw nothing, the last replica stays for
`scale_to_zero_grace_period_s` more.

Source: knative/serving, `pkg/autoscaler/scaling/autoscaler.go` (the numbers),
`pkg/reconciler/autoscaling/kpa/scaler.go` (the way to zero) and `config/core/configmaps/autoscaler.yaml`
(names and defaults; the panic window is rounded to whole seconds). Neither the activator's burst capacity
nor a scale at activation is here.

Knative panics at its own start when there is more than one replica, so as to lose none before it knows the
load. A gap, or a change of target that was not asked for, is such a start. Knative counts only ready replicas
as the scale to keep in panic; here it is the target, so that none that is starting is lost either.

Standard library only (see `base`).
"""

from __future__ import annotations

from collections import deque
from math import ceil, floor, inf

from raybench.policies.base import Decision, Observation
from raybench.policies.queue_depth import SLACK_S
from raybench.policies.windows import Beat, Bounds, Mean, Memory, not_negative, positive


class Knative:
    """Implements `base.Policy`; durations in seconds. Raises ValueError for what cannot be."""

    name = "knative"

    def __init__(
        self,
        target_concurrency: float = 100.0,
        target_utilization_percentage: float = 70.0,
        stable_window_s: float = 60.0,
        panic_window_percentage: float = 10.0,
        panic_threshold_percentage: float = 200.0,
        max_scale_up_rate: float = 1000.0,
        max_scale_down_rate: float = 2.0,
        scale_down_delay_s: float = 0.0,
        scale_to_zero_grace_period_s: float = 30.0,
        tick_interval_s: float = 2.0,
        min_replicas: int = 0,
        max_replicas: int = 2,
    ) -> None:
        positive(
            target_concurrency=target_concurrency,
            target_utilization_percentage=target_utilization_percentage,
            stable_window_s=stable_window_s,
            panic_window_percentage=panic_window_percentage,
            tick_interval_s=tick_interval_s,
        )
        not_negative(
            scale_down_delay_s=scale_down_delay_s, scale_to_zero_grace_period_s=scale_to_zero_grace_period_s
        )
        for name, percentage in (
            ("target_utilization_percentage", target_utilization_percentage),
            ("panic_window_percentage", panic_window_percentage),
        ):
            if percentage > 100:
                raise ValueError(f"{name}: {percentage:g}; it should be at most 100")
        if panic_threshold_percentage <= 100:
            raise ValueError(
                f"panic_threshold_percentage: {panic_threshold_percentage:g}; it should be above 100"
            )
        for name, rate in (
            ("max_scale_up_rate", max_scale_up_rate),
            ("max_scale_down_rate", max_scale_down_rate),
        ):
            if not rate > 1:
                raise ValueError(f"{name}: {rate:g}; it should be above 1")
        self.per_replica = target_concurrency * target_utilization_percentage / 100
        self.stable_window_s = stable_window_s
        self.panic_window_s = max(1.0, float(round(stable_window_s * panic_window_percentage / 100)))
        self.panic_threshold = panic_threshold_percentage / 100
        self.max_scale_up_rate = max_scale_up_rate
        self.max_scale_down_rate = max_scale_down_rate
        self.scale_down_delay_s = scale_down_delay_s
        self.scale_to_zero_grace_period_s = scale_to_zero_grace_period_s
        self._bounds = Bounds(min_replicas, max_replicas)
        self._stable, self._panic = Mean(stable_window_s), Mean(self.panic_window_s)
        self._beat = Beat(tick_interval_s)
        self._memory = Memory()
        self._panic_s: float | None = None  # last time that panic was called for; None in stable mode
        self._panic_target = 0
        self._delayed: deque[tuple[float, int]] = deque()  # (when, how many) of the scale-down delay
        self._active_s = 0.0  # since when there has been something to do, or a start
        self._idle_s: float | None = None  # since when nothing is to be done; None while there is

    def decide(self, seen: Observation) -> Decision:
        """One step of Knative's own loop whenever its beat is due; nothing in between."""
        if self._memory.gap(seen):
            self._stable.clear()
            self._panic.clear()
            self._beat.restart()
        if self._memory.gap(seen) or self._memory.moved(seen):
            self._start(seen)
        requests = seen.waiting + seen.serving
        self._stable.add(requests, seen.now_s)
        self._panic.add(requests, seen.now_s)
        wanted, reason, window_s = seen.target, "", None
        if seen.target > 0 and self._bounds.hold(seen.target) and self._beat.due(seen.now_s):
            self._beat.strike(seen.now_s)
            wanted, reason = self._step(seen)
            window_s = self.stable_window_s if self._panic_s is None else self.panic_window_s
        return self._memory.keep(seen, self._bounds.decision(seen, wanted, reason, window_s))

    def next_decision_s(self, seen: Observation) -> float:
        """The next beat: panic may begin or end at each. Without replicas only the host acts."""
        if not self._bounds.hold(seen.target) or (seen.target and self._memory.gap(seen)):
            return seen.now_s
        return self._beat.next_s(seen.now_s) if seen.target else inf

    def _start(self, seen: Observation) -> None:
        self._panic_s, self._panic_target = (seen.now_s, seen.target) if seen.target > 1 else (None, 0)
        self._delayed.clear()
        self._active_s, self._idle_s = seen.now_s, None

    def _step(self, seen: Observation) -> tuple[int, str]:
        ready = max(1, seen.available)
        stable = ceil(self._stable.value() / self.per_replica)
        panic = ceil(self._panic.value() / self.per_replica)
        most, least = ceil(self.max_scale_up_rate * ready), floor(ready / self.max_scale_down_rate)
        wanted = min(max(stable, least), most)
        reason = f"{self._stable.value():.3g} requests over {self.stable_window_s:g} s"

        if panic / ready >= self.panic_threshold:
            if self._panic_s is None:
                self._panic_target = seen.target
            self._panic_s = seen.now_s
        elif self._panic_s is not None and seen.now_s - self._panic_s > self.stable_window_s + SLACK_S:
            self._panic_s = None
        if self._panic_s is not None:
            wanted = max(wanted, min(max(panic, least), most))
            self._panic_target = wanted = max(wanted, self._panic_target)
            reason = f"panic: {self._panic.value():.3g} requests over {self.panic_window_s:g} s"
        wanted = self._not_yet_down(wanted, seen)
        reason += f", {self.per_replica:g} a replica: {wanted} wanted"
        return self._towards_zero(wanted, reason, seen)

    def _not_yet_down(self, wanted: int, seen: Observation) -> int:
        """The greatest number wanted within the scale-down delay."""
        if not self.scale_down_delay_s:
            return wanted
        while self._delayed and seen.now_s - self._delayed[0][0] >= self.scale_down_delay_s - SLACK_S:
            self._delayed.popleft()
        self._delayed.append((seen.now_s, wanted))
        return max(number for _, number in self._delayed)

    def _towards_zero(self, wanted: int, reason: str, seen: Observation) -> tuple[int, str]:
        """The last replica goes after an active stable window, an idle one, and the grace period."""
        if wanted > 0:
            if self._idle_s is not None:
                self._active_s, self._idle_s = seen.now_s, None
            return wanted, reason
        if self._idle_s is None and seen.now_s - self._active_s >= self.stable_window_s - SLACK_S:
            self._idle_s = seen.now_s
        grace_s = self.scale_to_zero_grace_period_s
        if seen.target == 1 and self._idle_s is not None and seen.now_s - self._idle_s >= grace_s - SLACK_S:
            return 0, f"{reason} for {grace_s:g} s"
        return 1, reason

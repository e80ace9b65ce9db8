"""Each decision says the window behind it: the policy's own, by the side it steps to."""

from __future__ import annotations

from typing import Any

import pytest

from raybench.policies import (
    POLICIES,
    Decision,
    Fixed,
    Hpa,
    Knative,
    Observation,
    Policy,
    QueueDepth,
    TargetOngoing,
    make,
)
from raybench.scenario.models import Autoscaling


def changes(
    policy: Policy, load: list[tuple[float, float]], target: int = 1
) -> list[tuple[int, float | None]]:
    """(target, window) of every change while `load`, (until, requests being served), goes by in ticks."""
    found, now_s = [], 0.0
    for until, serving in load:
        while now_s < until:
            decision = policy.decide(Observation(now_s, 0.0, serving, target, 0, target))
            if decision.target != target:
                found.append((decision.target, decision.window_s))
            else:
                assert decision == Decision(target), "nothing changes: neither reason nor window"
            target = decision.target
            now_s += 0.125
    return found


SIDES: list[tuple[Policy, list[tuple[int, float | None]]]] = [
    (QueueDepth(autoscaling_window_s=5.0), [(2, 5.0), (1, 5.0), (0, 5.0)]),
    (
        TargetOngoing(4.0, upscale_delay_s=2.0, downscale_delay_s=6.0, downscale_to_zero_delay_s=8.0,
                      look_back_period_s=0.0),
        [(2, 2.0), (1, 6.0), (0, 8.0)],
    ),
    (
        Hpa(4.0, sync_period_s=1.0, scale_up_stabilization_s=3.0, scale_down_stabilization_s=9.0,
            polling_interval_s=1.0, cooldown_period_s=20.0),
        [(2, 3.0), (1, 9.0), (0, 20.0)],
    ),
    (
        Knative(5.0, stable_window_s=10.0, panic_window_percentage=20.0, tick_interval_s=1.0,
                scale_to_zero_grace_period_s=1.0),
        [(2, 2.0), (1, 10.0), (0, 10.0)],
    ),
    (Fixed(2), [(2, None)]),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "expected"), SIDES, ids=[p.name for p, _ in SIDES])
def test_every_change_names_its_own_window(policy: Policy, expected: list[tuple[int, float | None]]) -> None:
    assert changes(policy, [(20.0, 7.0), (80.0, 0.0)]) == expected


@pytest.mark.parametrize("name", POLICIES)
def test_a_target_that_is_brought_into_the_bounds_has_no_window(name: str) -> None:
    given: dict[str, Any] = {"min_replicas": 1, "max_replicas": 2}
    decision = make(name, Autoscaling(**given)).decide(Observation(0.0, 0.0, 0.0, 5, 0, 5))
    assert (decision.target, decision.window_s) == (2, None)

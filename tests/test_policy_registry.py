"""Policies by name, and policies of somebody else's by import path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raybench.policies import POLICIES, Decision, Observation, QueueDepth, make
from raybench.scenario.models import Autoscaling


class Stubborn:
    """A policy of somebody else's."""

    name = "stubborn"

    def __init__(self, max_replicas: int) -> None:
        self.max_replicas = max_replicas

    def decide(self, seen: Observation) -> Decision:
        return Decision(self.max_replicas, "because")

    def next_decision_s(self, seen: Observation) -> float:
        return seen.now_s


class Greedy(Stubborn):
    def __init__(self, appetite: int) -> None:
        super().__init__(appetite)


def test_a_policy_is_made_from_the_scenario() -> None:
    autoscaling = Autoscaling(
        scale_up_queue_depth=7,
        scale_down_queue_depth=2,
        autoscaling_window=30.0,
        min_replicas=1,
        max_replicas=5,
    )
    policy = make("queue_depth", autoscaling)
    assert isinstance(policy, QueueDepth)
    assert (policy.scale_up_queue_depth, policy.scale_down_queue_depth) == (7, 2)
    assert (policy.window_s, policy.min_replicas, policy.max_replicas) == (30.0, 1, 5)
    assert all(policy_class.name == name for name, policy_class in POLICIES.items())


def test_a_policy_of_ones_own_gets_the_settings_it_names() -> None:
    policy = make(f"{__name__}:Stubborn", Autoscaling(max_replicas=3))
    assert policy.decide(Observation(0.0, 0.0, 0.0, 1, 0, 1)).target == 3


@pytest.mark.parametrize(
    "name, told",
    [
        ("queue_dept", "no policy 'queue_dept'"),
        ("no_such_module:X", "cannot be imported"),
        (f"{__name__}:Missing", "cannot be imported"),
        ("types:SimpleNamespace", "decide"),
        (f"{__name__}:Greedy", "asks for appetite"),
    ],
)
def test_a_policy_that_cannot_be_made_says_why(name: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make(name, Autoscaling())


def test_observation_without_replicas_has_no_depth() -> None:
    assert Observation(0.0, 3.0, 0.0, 0, 1, 1).queue_depth is None
    assert Observation(0.0, 3.0, 1.0, 2, 0, 2).queue_depth == 2.0


def test_the_policy_in_the_documentation_works() -> None:
    page = (Path(__file__).parents[1] / "docs" / "policies.md").read_text()
    example = page.split("```python\n")[1].split("```")[0]
    defined: dict[str, Any] = {}
    exec(example, defined)
    policy = defined["Cautious"](min_replicas=1, max_replicas=4)
    seen = Observation(0.0, 20.0, 5.0, 2, 0, 2)
    assert policy.decide(seen) == Decision(3, "25 requests")
    assert policy.decide(replace(seen, starting=1)) == Decision(2)
    assert policy.decide(replace(seen, waiting=500.0)).target == 4

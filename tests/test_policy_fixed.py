"""A fixed number of replicas."""

from __future__ import annotations

from math import inf

import pytest
from policy_stories import Story

from raybench.policies import Observation
from raybench.policies.fixed import Fixed


def test_whatever_the_load_the_number_stays() -> None:
    story = Story(Fixed(replicas=3, max_replicas=4), target=3)
    assert story.until(10, waiting=1000) == []
    assert story.until(700) == []


def test_another_target_is_put_right_at_once_and_said() -> None:
    for start in (0, 1, 4):
        story = Story(Fixed(replicas=3, max_replicas=4), target=start)
        assert story.until(1) == [(0, 3)]
        assert "fixed" in story.reason


def test_without_a_number_it_is_the_maximum() -> None:
    assert Fixed(min_replicas=1, max_replicas=5).replicas == 5


def test_nothing_is_due_unless_the_target_differs() -> None:
    fixed = Fixed(replicas=2)
    assert fixed.next_decision_s(Observation(7.0, 0, 0, 2, 0, 2)) == inf
    assert fixed.next_decision_s(Observation(7.0, 0, 0, 1, 0, 1)) == 7.0


@pytest.mark.parametrize("replicas, least, most", [(0, 0, 2), (3, 0, 2), (1, 2, 3)])
def test_a_number_outside_the_bounds_is_refused(replicas: int, least: int, most: int) -> None:
    with pytest.raises(ValueError, match=rf"replicas: {replicas}; .* between {max(1, least)} and {most}"):
        Fixed(replicas=replicas, min_replicas=least, max_replicas=most)


def test_bounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="min_replicas 3 and max_replicas 2"):
        Fixed(min_replicas=3, max_replicas=2)

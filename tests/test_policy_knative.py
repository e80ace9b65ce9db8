"""Knative's pod autoscaler: its own kind of stories, on a load instead of given means.

Throughout 10 concurrent requests a replica at 70%: 7 each.
"""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_stories import Story, play

from raybench.policies import Observation
from raybench.policies.knative import Knative


def knative(**given: Any) -> Knative:
    return Knative(**{"target_concurrency": 10, "max_replicas": 100, **given})


def test_stable_mode_follows_the_mean_of_a_minute() -> None:
    story = Story(knative(), target=2)
    assert story.until(100, serving=14) == []
    # 3 replicas' worth is no panic for 2. The mean passes 14 at the first beat after the change, and 21
    # a minute later; then 22 passes it.
    assert story.until(200, serving=21) == [(102, 3)]
    assert "14.2 requests over 60 s, 7 a replica: 3 wanted" in story.reason
    assert story.until(300, serving=22) == [(202, 4)]


def test_only_at_its_own_beat() -> None:
    story = Story(knative(tick_interval_s=10), target=2)
    story.until(65, serving=14)
    assert story.until(90, serving=21) == [(70, 3)]


def test_panic_follows_the_mean_of_six_seconds() -> None:
    story = Story(knative())
    story.until(60, serving=7)
    # At 62 s: (4 s x 7 + 2 s x 70) / 6 s = 28; then 49 and 70.
    assert story.until(70, waiting=30, serving=40) == [(62, 4), (64, 7), (66, 10)]
    assert story.reason == "panic: 70 requests over 6 s, 7 a replica: 10 wanted"


def test_below_twice_the_replicas_there_is_no_panic() -> None:
    """28 and so 4 wanted, of 3: the minute's mean decides."""
    story = Story(knative(), target=3)
    story.until(70, serving=21)
    assert story.until(132, serving=28) == [(72, 4)]
    assert story.reason.startswith("21.2 requests over 60 s")


def test_panic_never_goes_down_and_ends_a_stable_window_after_the_last_cause() -> None:
    story = Story(knative())
    story.until(60, serving=7)
    story.until(70, serving=70)  # 10 replicas; the last time at twice the replicas was 62 s
    # Panic ends at 124 s, the first beat more than 60 s later. Then half at most at each beat, 5 and 2, then
    # what the last seconds of load within the minute ask for, then nothing: one replica for 30 s of grace.
    assert story.until(200) == [(124, 5), (126, 2), (128, 1), (160, 0)]


def test_a_new_surge_extends_the_panic() -> None:
    story = Story(knative())
    story.until(60, serving=7)
    story.until(66, serving=70)
    story.until(100, serving=7)
    # 34 replicas for 10 at 102 s: the panic that would have ended at 124 s ends a minute after that.
    assert story.until(106.125, serving=700) == [(102, 34), (104, 67), (106, 100)]
    assert story.until(164, serving=7) == []
    assert story.until(166, serving=7) == [(164, 50)]


def test_replicas_that_are_starting_are_kept_in_panic() -> None:
    """One is ready of three, and the load falls to two replicas' worth: twice what is ready is panic."""
    story = Story(knative(), target=1)
    story.until(60, serving=7)
    story.target = 3
    assert story.until(100, serving=14, available=1, starting=2) == []


def test_replicas_that_die_in_panic_do_not_lower_the_target() -> None:
    """One of ten is left, and from one the rate allows two."""
    story = Story(knative(max_scale_up_rate=1.5), target=10)
    story.until(70, serving=70)
    assert story.until(80, serving=70, available=1) == []


def test_growth_is_limited_by_the_rate_and_never_stuck() -> None:
    story = Story(knative(max_scale_up_rate=2.0))
    assert story.until(13, serving=700) == [(0, 2), (2, 4), (4, 8), (6, 16), (8, 32), (10, 64), (12, 100)]
    story = Story(knative(max_scale_up_rate=2.0))
    assert story.until(13, serving=700, available=1, starting=1) == [(0, 2)]  # of those available
    story = Story(knative(max_scale_up_rate=1.1))
    assert story.until(5, serving=700) == [(0, 2), (2, 3), (4, 4)]


def test_decline_is_limited_by_the_rate() -> None:
    story = Story(knative(max_scale_down_rate=10.0), target=20)
    # Starting with 20 replicas is panic, for want of any knowledge.
    assert story.until(65) == [(62, 2), (64, 1)]


def test_it_starts_in_panic_with_more_than_one_replica() -> None:
    story = Story(knative(), target=3)
    assert story.until(61) == []
    assert story.until(100) == [(62, 1), (94, 0)]


def test_the_scale_down_delay_holds_the_greatest_of_its_time() -> None:
    """As in Knative's own test: 4, then 3 a minute later, then none; each lasts 5 minutes."""
    story = Story(
        knative(stable_window_s=6, scale_down_delay_s=300, max_scale_down_rate=10, min_replicas=1), target=1
    )
    story.until(10, serving=28)
    assert story.target == 4
    story.until(70, serving=28)
    story.until(130, serving=21)
    changes = story.until(600)
    # The last beats that wanted 4 and 3 are 74 s and 130 s, with a window of 6 s.
    assert changes[0] == (374, 3)
    assert changes[1] == (430, 2)
    assert changes[-1][1] == 1


def test_a_foreign_change_forgets_the_scale_down_delay() -> None:
    story = Story(knative(stable_window_s=6, scale_down_delay_s=300, min_replicas=1))
    story.until(30, serving=28)
    story.until(60)
    assert story.target == 4
    story.target = 1
    assert story.until(400) == []


def test_the_grace_period_is_broken_by_a_request() -> None:
    story = Story(knative())
    story.until(10, serving=1)
    # The minute's mean is zero at 70 s, and the grace would end at 100 s.
    assert story.until(90) == []
    assert story.until(92, waiting=1) == []
    # Nothing in a minute at 152 s, and 30 s more.
    assert story.until(300) == [(182, 0)]
    assert "0 requests over 60 s, 7 a replica: 0 wanted for 30 s" in story.reason


def test_a_start_is_active_for_a_stable_window_even_without_requests() -> None:
    assert Story(knative()).until(200) == [(90, 0)]


def test_with_a_minimum_the_last_stay() -> None:
    assert Story(knative(min_replicas=1)).until(300) == []
    assert Story(knative(min_replicas=2), target=4).until(300) == [(62, 2)]


def test_the_first_replica_is_the_hosts() -> None:
    story = Story(knative(), target=0)
    assert story.until(20, waiting=50, available=0) == []
    story.target = 1
    assert story.tick(waiting=50, available=1) == 8  # what waited is known


def test_a_gap_is_a_new_start() -> None:
    story = Story(knative(), target=3)
    story.until(61)
    story.now_s += 1.5
    begin_s = story.now_s
    assert story.until(begin_s + 63) == [(begin_s + 62, 1)]


def test_a_target_outside_the_bounds_is_brought_in_at_once() -> None:
    story = Story(knative(max_replicas=3), target=5)
    assert story.until(0.125, serving=20) == [(0, 3)]
    assert Story(knative(min_replicas=1), target=0).until(0.125, available=0) == [(0, 1)]


def test_the_panic_window_is_whole_seconds() -> None:
    windows = [knative(stable_window_s=s, panic_window_percentage=p).panic_window_s for s, p in PANIC]
    assert windows == [6, 3, 1, 12]


PANIC = [(60, 10), (34, 10), (6, 10), (60, 20)]


def test_what_is_due_next() -> None:
    policy = knative()
    seen = Observation(100.0, 0, 5, 1, 0, 1)
    policy.decide(seen)
    assert policy.next_decision_s(seen) == 102.0
    assert policy.next_decision_s(Observation(100.5, 0, 0, 0, 0, 0)) == inf
    assert policy.next_decision_s(Observation(200.0, 0, 0, 1, 0, 1)) == 200.0


loads = st.lists(
    st.tuples(st.sampled_from([0.25, 2.0, 7.5, 30.0, 100.0]), st.integers(0, 90)), min_size=1, max_size=8
)


@settings(max_examples=30, deadline=None)
@given(load=loads, start_s=st.sampled_from([0.0, 5.0]), delay_s=st.sampled_from([0.0, 20.0]))
def test_a_host_that_skips_or_ticks_differently_sees_the_same(
    load: list[tuple[float, int]], start_s: float, delay_s: float
) -> None:
    def policy() -> Knative:
        return knative(max_replicas=9, scale_down_delay_s=delay_s)

    every = play(policy(), load, start_after_s=start_s, tick_s=0.25)
    assert play(policy(), load, start_after_s=start_s, tick_s=0.25, skip=True) == every
    assert play(policy(), load, start_after_s=start_s, tick_s=0.125) == every
    assert all(0 <= target <= 9 and at_s % 2 == 0 for at_s, target in every)


@settings(max_examples=30, deadline=None)
@given(load=loads)
def test_every_decision_down_is_made_in_stable_mode(load: list[tuple[float, int]]) -> None:
    story, end_s = Story(knative(max_replicas=9), tick_s=0.25), 0.0
    for seconds, requests in load:
        end_s += seconds
        while story.now_s < end_s:
            before = story.target
            story.tick(serving=requests)
            story.now_s += story.tick_s
            assert story.target >= before or not story.reason.startswith("panic")


@pytest.mark.parametrize(
    "wrong",
    [
        {"target_concurrency": 0},
        {"target_utilization_percentage": 110},
        {"panic_window_percentage": 101},
        {"panic_threshold_percentage": 100},
        {"max_scale_up_rate": 1},
        {"max_scale_down_rate": 0.5},
        {"scale_down_delay_s": -1},
        {"tick_interval_s": 0},
    ],
)
def test_parameters_that_cannot_be_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Knative(**wrong)  # type: ignore[arg-type]

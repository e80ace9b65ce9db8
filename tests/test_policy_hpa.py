"""Kubernetes' autoscaler on an average value, and KEDA's way to zero: by their published rules."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_stories import Story, play

from raybench.policies import Observation
from raybench.policies.hpa import Hpa


def hpa(**given: Any) -> Hpa:
    """Plain HPA, at least 1 replica, of at most 100, without the scale-down window unless given."""
    return Hpa(**{"min_replicas": 1, "max_replicas": 100, "scale_down_stabilization_s": 0.0, **given})


@pytest.mark.parametrize("requests, wanted", [(11, 3), (10, 2), (10.1, 3), (25, 5), (5.6, 2)])
def test_wanted_is_the_total_over_the_target_rounded_up(requests: float, wanted: int) -> None:
    story = Story(hpa())
    assert story.until(0.125, waiting=requests / 2, serving=requests / 2) == [(0, wanted)]
    assert f"requests ongoing, 5 a replica: {wanted} proposed" in story.reason


@pytest.mark.parametrize(
    "requests, wanted", [(55, 10), (55.01, 12), (45, 10), (44.99, 9), (50, 10), (41, 9), (40, 8)]
)
def test_within_a_tenth_of_the_target_nothing_changes(requests: float, wanted: int) -> None:
    """Ten replicas at 5 each; at 55.01 the ratio is out of bounds, and then the tolerance is not given."""
    story = Story(hpa(), target=10)
    story.until(0.125, serving=requests)
    assert story.target == wanted


def test_replicas_that_are_starting_count_for_the_tolerance() -> None:
    assert Story(hpa(), target=4).until(0.125, serving=21, available=1, starting=3) == []


def test_requests_are_counted_in_thousandths() -> None:
    assert Story(hpa(tolerance=0), target=2).until(0.125, serving=10.0004) == []
    assert Story(hpa(tolerance=0), target=2).until(0.125, serving=10.001) == [(0, 3)]


def test_it_looks_every_fifteen_seconds_and_not_in_between() -> None:
    story = Story(hpa(), target=2)
    story.until(0.125, serving=10)
    assert story.until(15, serving=50) == []
    assert story.until(30, serving=10) == []
    assert story.until(31, serving=20) == [(30, 4)]


def test_only_waiting_requests_when_that_is_the_metric() -> None:
    assert Story(hpa(metric="waiting")).until(0.125, waiting=11, serving=500) == [(0, 3)]


def test_down_only_when_five_minutes_of_proposals_agree() -> None:
    story = Story(hpa(scale_down_stabilization_s=300), target=4)
    story.until(61, serving=20)
    # The last proposal of 4 was made at 60 s.
    assert story.until(400, serving=5) == [(360, 1)]


def test_a_peak_within_the_window_is_the_least_that_it_goes_down_to() -> None:
    story = Story(hpa(scale_down_stabilization_s=300), target=4)
    story.until(61, serving=20)
    story.until(200, serving=5)
    story.until(211, serving=13)  # seen at 210: 3
    assert story.until(600, serving=5) == [(360, 3), (510, 1)]
    story = Story(hpa(scale_down_stabilization_s=300), target=4)
    story.until(61, serving=20)
    story.until(200, serving=5)
    story.until(210, serving=13)  # over before anybody looked
    assert story.until(600, serving=5) == [(360, 1)]


def test_up_only_to_the_least_proposal_of_the_scale_up_window() -> None:
    story = Story(hpa(scale_up_stabilization_s=60))
    assert story.until(60, serving=20) == []
    assert story.until(61, serving=20) == [(60, 4)]
    story.until(70, serving=20)
    story.until(80, serving=30)  # seen at 75: 6
    assert story.until(151, serving=40) == [(120, 6), (135, 8)]
    assert "6 with the scale-up window" not in story.reason


def test_by_default_up_by_four_or_twice_in_fifteen_seconds() -> None:
    story = Story(hpa())
    assert story.until(61, serving=500) == [(0, 5), (15, 10), (30, 20), (45, 40), (60, 80)]
    assert "80 within 4 replicas in 15 s or 100% in 15 s" in story.reason


def test_percentages_are_rounded_up_on_the_way_up() -> None:
    half = [{"type": "percent", "value": 50, "period_s": 60}]
    story = Story(hpa(scale_up_policies=half), target=3)
    assert story.until(121, serving=500) == [(0, 5), (60, 8), (120, 12)]


def test_a_limit_that_is_overdrawn_stops_the_way_up_and_takes_nothing_back() -> None:
    """A step down counts against the steps up of its period, until it is older than they are."""
    one = [{"type": "pods", "value": 1, "period_s": 60}]
    story = Story(hpa(scale_up_policies=one), target=10)
    assert story.until(15, serving=10) == [(0, 2)]
    # 10 at the period's start, so 11; at 60 s that was 2, nine fewer; from 75 s on it is 11.
    assert story.until(76, serving=100) == [(15, 11), (75, 12)]


def test_the_documentations_example_of_two_limits_down() -> None:
    """From 80 with at most 4 pods or 10% a minute: tenths, rounded up, until 4 are more than a tenth."""
    limits = (
        {"type": "pods", "value": 4, "period_s": 60},
        {"type": "percent", "value": 10, "period_s": 60},
    )
    story = Story(hpa(scale_down_policies=limits), target=80)
    targets = [target for _, target in story.until(661)]
    assert targets == [72, 64, 57, 51, 45, 40, 36, 32, 28, 24, 20, 16]
    assert [at_s for at_s, _ in story.changes] == [60 * minute for minute in range(12)]
    story = Story(hpa(scale_down_policies=limits, scale_down_select="min"), target=80)
    assert [target for _, target in story.until(130)] == [76, 72, 68]
    assert "and" in story.reason
    story = Story(hpa(scale_down_policies=limits, scale_down_select="disabled"), target=80)
    assert story.until(700) == []


def test_keda_takes_the_last_replica_after_the_cooldown() -> None:
    story = Story(hpa(min_replicas=0))
    assert story.until(300) == []
    assert story.until(301) == [(300, 0)]
    assert "0 requests ongoing, not above 0 for 300 s" in story.reason


def test_activity_at_a_poll_starts_the_cooldown_again_and_between_polls_does_not() -> None:
    story = Story(hpa(min_replicas=0))
    story.until(270)
    story.until(270.125, serving=1)
    assert story.until(600) == [(570, 0)]
    story = Story(hpa(min_replicas=0))
    story.until(271)
    story.until(299, serving=1)
    assert story.until(600) == [(300, 0)]


def test_keda_goes_from_several_to_none_through_one() -> None:
    story = Story(hpa(min_replicas=0, scale_down_stabilization_s=900), target=3)
    assert story.until(310) == [(300, 1), (300.125, 0)]


def test_below_the_activation_threshold_requests_do_not_keep_it() -> None:
    story = Story(hpa(min_replicas=0, activation_threshold=2))
    assert story.until(310, serving=2) == [(300, 0)]
    story = Story(hpa(min_replicas=0, activation_threshold=2))
    assert story.until(900, serving=2.5) == []


def test_with_a_minimum_of_one_there_is_no_keda() -> None:
    assert Story(hpa()).until(900) == []


def test_the_autoscaler_alone_never_goes_below_one() -> None:
    story = Story(hpa(min_replicas=0), target=4)
    assert story.until(100) == [(0, 1)]


def test_the_first_replica_is_the_hosts_and_counts_as_activity() -> None:
    story = Story(hpa(min_replicas=0), target=0)
    assert story.until(1000, waiting=50, available=0) == []
    story.target = 1
    begin_s = story.now_s
    changes = story.until(begin_s + 310)
    assert [target for _, target in changes] == [0]
    assert begin_s + 300 <= changes[0][0] <= begin_s + 330  # at the poll after it


def test_a_gap_starts_the_windows_again() -> None:
    story = Story(hpa(scale_down_stabilization_s=300), target=4)
    story.until(299, serving=5)
    story.now_s += 1.5
    begin_s = story.now_s
    assert story.until(begin_s + 310, serving=5) == [(begin_s + 300, 1)]


def test_a_target_outside_the_bounds_is_brought_in_at_once() -> None:
    assert Story(hpa(max_replicas=3), target=5).until(1, serving=15) == [(0, 3)]
    assert Story(hpa(min_replicas=2), target=0).until(1, serving=15) == [(0, 2), (0.125, 3)]


def test_what_is_due_next() -> None:
    policy = hpa(min_replicas=0)
    seen = Observation(100.0, 0, 5, 1, 0, 1)
    policy.decide(seen)
    assert policy.next_decision_s(seen) == 115.0
    assert policy.next_decision_s(Observation(100.5, 3, 0, 0, 0, 0)) == inf


loads = st.lists(
    st.tuples(st.sampled_from([0.5, 5.0, 15.0, 47.5, 200.0]), st.integers(0, 60)), min_size=1, max_size=8
)


def lively(**given: Any) -> Hpa:
    up = [{"type": "pods", "value": 2, "period_s": 30}, {"type": "percent", "value": 50, "period_s": 45}]
    down = [{"type": "pods", "value": 1, "period_s": 20}]
    return Hpa(
        scale_up_policies=up,
        scale_down_policies=down,
        scale_down_stabilization_s=40,
        cooldown_period_s=60,
        max_replicas=9,
        **given,
    )


@settings(max_examples=30, deadline=None)
@given(load=loads, start_s=st.sampled_from([0.0, 10.0]))
def test_a_host_that_skips_or_ticks_differently_sees_the_same(
    load: list[tuple[float, int]], start_s: float
) -> None:
    every = play(lively(), load, start_after_s=start_s, tick_s=0.5)
    assert play(lively(), load, start_after_s=start_s, tick_s=0.5, skip=True) == every
    assert all(0 <= target <= 9 for _, target in every)
    slower = [(at_s, to) for at_s, to in play(lively(), load, start_after_s=start_s, tick_s=0.25) if to]
    assert slower == [(at_s, to) for at_s, to in every if to]  # the last step of two is one tick later


@settings(max_examples=30, deadline=None)
@given(load=loads)
def test_no_window_and_no_limit_is_ever_broken(load: list[tuple[float, int]]) -> None:
    """Recomputed from the load and the changes alone."""
    changes = play(lively(min_replicas=1, tolerance=0), load, tick_s=0.5)

    def requests_at(at_s: float) -> int:
        end_s = 0.0
        for seconds, requests in load:
            end_s += seconds
            if at_s < end_s:
                return requests
        raise AssertionError(at_s)

    def target_before(at_s: float) -> int:
        return next((to for when_s, to in reversed(changes) if when_s < at_s), 1)

    for at_s, to in changes:
        assert at_s % 15 == 0
        before = target_before(at_s)
        recent = [s * 15.0 for s in range(int(at_s // 15) + 1) if at_s - s * 15.0 < 40]
        proposals = [-(-requests_at(sync_s) // 5) for sync_s in recent]
        if to < before:
            assert to >= min(9, max(proposals))
            assert to >= target_before(at_s - 20 + 0.001) - 1
        else:
            assert to <= proposals[-1]
            twos = target_before(at_s - 30 + 0.001) + 2
            halves = -(-target_before(at_s - 45 + 0.001) * 3 // 2)
            assert to <= max(twos, halves)


@pytest.mark.parametrize(
    "wrong",
    [
        {"target_average_value": 0},
        {"metric": "cpu"},
        {"tolerance": -0.1},
        {"sync_period_s": 0},
        {"scale_up_select": "all"},
        {"scale_down_policies": []},
        {"scale_up_policies": [{"type": "nodes", "value": 1, "period_s": 15}]},
        {"scale_up_policies": [{"type": "pods", "value": 1.5, "period_s": 15}]},
        {"scale_up_policies": [{"type": "pods", "value": 1}]},
        {"cooldown_period_s": -1},
    ],
)
def test_parameters_that_cannot_be_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Hpa(**wrong)

"""The queue-depth policy, told as stories in time with a clock of our own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.policies import Decision, Observation, QueueDepth


@dataclass
class Host:
    """Plays Serve: carries the target out at once, and counts replicas as available unless told otherwise."""

    policy: Any
    target: int = 1
    available: int | None = None
    tick_s: float = 0.1
    now_s: float = 1000.0
    decisions: list[tuple[float, Decision]] = field(default_factory=list)

    def see(self, waiting: float, serving: float = 0.0, **more: Any) -> Decision:
        available = self.target if self.available is None else self.available
        starting = max(0, self.target - available)
        seen = Observation(self.now_s, waiting, serving, available, starting, self.target, **more)
        decision: Decision = self.policy.decide(seen)
        if decision.target != self.target:
            self.decisions.append((self.now_s, decision))
            self.target = decision.target
        return decision

    def keep(self, seconds: float, depth: float, serving: float = 0.0) -> list[int]:
        """The same load for so long, in samples a tick apart: the first now, the last at the end."""
        for _ in range(round(seconds / self.tick_s)):
            self.see(depth * (self.available or self.target) - serving, serving)
            self.now_s += self.tick_s
        self.see(depth * (self.available or self.target) - serving, serving)
        return [decision.target for _, decision in self.decisions]


def host(target: int = 1, **given: Any) -> Host:
    return Host(QueueDepth(**({"autoscaling_window_s": 60.0, "max_replicas": 4} | given)), target)


def test_depth_5_through_a_whole_window_is_one_replica_more() -> None:
    h = host()
    assert h.keep(59.9, 5.0) == []
    h.now_s += 0.1
    decision = h.see(5.0)
    assert decision.target == 2
    assert decision.reason == "queue depth 5 >= 5 through 60 s"


def test_depth_5_for_59_9_s_and_4_for_an_instant_is_nothing() -> None:
    h = host()
    h.keep(59.9, 5.0)
    h.now_s += 0.05
    h.see(4.0)
    h.now_s += 0.05
    assert h.keep(59.9, 5.0) == []
    h.now_s += 0.1
    assert h.see(5.0).target == 2


def test_the_window_starts_again_after_a_step() -> None:
    h = host()
    h.keep(60.0, 9.0)
    assert h.target == 2
    assert h.keep(59.9, 9.0) == [2]
    h.now_s += 0.1
    assert h.see(18.0).target == 3


def test_never_above_the_maximum() -> None:
    h = host(max_replicas=2)
    assert h.keep(400.0, 50.0) == [2]


def test_the_windows_clock_runs_while_a_replica_starts_but_the_step_waits() -> None:
    h = host()
    h.keep(60.0, 9.0)
    h.available = 1
    assert h.keep(100.0, 9.0) == [2]
    h.available = 2
    h.now_s += 0.1
    assert h.see(18.0).target == 3


def test_step_up_while_starting_does_not_wait() -> None:
    h = host(step_up_while_starting=True)
    h.available = 1
    h.keep(60.0, 9.0)
    assert h.keep(60.0, 9.0) == [2, 3]


def test_depth_1_through_a_whole_window_is_one_replica_fewer() -> None:
    h = host(3)
    assert h.keep(59.9, 1.0, serving=3.0) == []
    h.now_s += 0.1
    decision = h.see(0.0, 3.0, busy_replicas=3)
    assert decision.target == 2
    assert decision.reason == "queue depth 1 <= 1 through 60 s; 3 of 3 replicas busy"


def test_a_step_down_on_busy_replicas_says_so_even_without_their_number() -> None:
    h = host(2)
    h.keep(59.9, 1.0, serving=2.0)
    h.now_s += 0.1
    assert h.see(0.0, 2.0).reason == "queue depth 1 <= 1 through 60 s; replicas busy with 2 requests"
    h = host(2)
    h.keep(59.9, 0.0)
    h.now_s += 0.1
    assert h.see(0.0, 0.0).reason == "queue depth 0 <= 1 through 60 s"


def test_one_sample_above_restarts_the_way_down() -> None:
    h = host(2)
    h.keep(59.9, 0.5, serving=1.0)
    h.now_s += 0.05
    h.see(0.0, 2.1)
    h.now_s += 0.05
    assert h.keep(59.9, 0.5, serving=1.0) == []


def test_the_last_replica_stays_while_it_serves_and_goes_after_an_idle_window() -> None:
    h = host(1)
    assert h.keep(300.0, 0.02, serving=0.02) == []
    h.now_s += 0.1
    assert h.keep(59.9, 0.0) == []
    h.now_s += 0.1
    decision = h.see(0.0)
    assert decision.target == 0
    assert decision.reason.endswith("nothing waiting, nothing being served")


def test_one_request_in_an_idle_window_restarts_it() -> None:
    h = host(1)
    h.keep(59.9, 0.0)
    h.now_s += 0.05
    h.see(0.0, 0.05)
    h.now_s += 0.05
    assert h.keep(59.9, 0.0) == []


def test_two_idle_replicas_take_two_windows_to_go() -> None:
    h = host(2)
    h.keep(120.2, 0.0)
    assert [(round(t - 1000.0), d.target) for t, d in h.decisions] == [(60, 1), (120, 0)]


def test_never_below_the_minimum() -> None:
    h = host(2, min_replicas=1)
    assert h.keep(500.0, 0.0) == [1]


def test_zero_is_held_and_belongs_to_the_host() -> None:
    h = host(0)
    h.available = 0
    for _ in range(1000):
        assert h.see(100.0) == Decision(0)
        h.now_s += 0.1


def test_with_nothing_available_there_is_no_depth_and_no_step() -> None:
    h = host(2)
    h.available = 0
    for _ in range(1000):
        assert h.see(0.0) == Decision(2)
        h.now_s += 0.1


def test_a_gap_of_more_than_a_second_forgets_the_timers() -> None:
    h = host()
    h.keep(59.5, 9.0)
    h.now_s += 1.01  # Serve does not ask while the first replica starts
    assert h.see(9.0).target == 1
    assert h.keep(59.9, 9.0) == []
    h.now_s += 0.1
    assert h.see(9.0).target == 2


def test_a_gap_of_a_second_does_not() -> None:
    h = host()
    h.keep(59.0, 9.0)
    h.now_s += 1.0
    assert h.see(9.0).target == 2


def test_a_change_of_target_by_somebody_else_forgets_the_timers() -> None:
    h = host(2)
    h.keep(59.0, 9.0)
    h.target = 3
    assert h.keep(59.9, 9.0) == []
    h.now_s += 0.1
    assert h.see(27.0).target == 4


def test_a_silence_that_the_host_vouches_for_is_no_gap() -> None:
    h = host()
    h.see(9.0)
    h.now_s += 59.0
    assert h.see(9.0, unbroken=True).target == 1
    h.now_s += 1.0
    assert h.see(9.0).target == 2


def test_strict_thresholds_do_not_move_at_the_threshold() -> None:
    assert host(threshold="strict").keep(200.0, 5.0) == []
    assert host(threshold="strict").keep(61.0, 5.01) == [2]
    assert host(2, threshold="strict").keep(200.0, 1.0, serving=2.0) == []
    h = host(2, threshold="strict")
    h.keep(60.0, 0.99, serving=1.98)
    assert h.decisions[0][1].reason.startswith("queue depth 0.99 < 1 through 60 s")


def test_one_slot_and_a_busy_pair_has_depth_1_and_is_scaled_down() -> None:
    assert host(2, max_replicas=2).keep(60.0, 1.0, serving=2.0) == [1]


def test_a_target_outside_the_bounds_is_put_right_at_once() -> None:
    assert host(9, max_replicas=2).see(0.0).target == 2
    assert host(0, min_replicas=1).see(0.0) == Decision(1, "target 0 is below min_replicas 1")


@pytest.mark.parametrize(
    "given_, told",
    [
        ({"threshold": "soft"}, "inclusive"),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas 3"),
        ({"max_replicas": 0}, "max_replicas 0"),
        ({"autoscaling_window_s": -1.0}, "window"),
        ({"scale_up_queue_depth": 1.0, "scale_down_queue_depth": 1.0}, "below"),
    ],
)
def test_contradictions_are_refused(given_: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        QueueDepth(**given_)


# --- when next ----------------------------------------------------------------------------------------


def test_the_next_decision_is_the_end_of_the_window() -> None:
    h = host()
    h.keep(10.0, 9.0)
    seen = Observation(h.now_s, 9.0, 0.0, 1, 0, 1)
    assert h.policy.next_decision_s(seen) == pytest.approx(1060.0)
    quiet = Observation(h.now_s, 2.0, 0.0, 1, 0, 1)
    assert h.policy.next_decision_s(quiet) == math.inf
    idle = Observation(h.now_s, 0.0, 0.0, 1, 0, 1)
    assert h.policy.next_decision_s(idle) == pytest.approx(h.now_s + 60.0)
    starting = Observation(h.now_s, 9.0, 0.0, 1, 1, 2)
    assert h.policy.next_decision_s(starting) == math.inf


# --- what always holds --------------------------------------------------------------------------------

EIGHTH = 0.125  # ticks and changes on binary fractions, so that sums of floats are exact

stretches = st.lists(
    st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.5, 1.0, 3.0, 5.0, 7.0, 30.0])),
    min_size=1,
    max_size=30,
)
policies = st.fixed_dictionaries(
    {
        "autoscaling_window_s": st.sampled_from([1.0, 2.5, 5.0]),
        "min_replicas": st.integers(0, 2),
        "max_replicas": st.integers(2, 4),
        "threshold": st.sampled_from(["inclusive", "strict"]),
        "step_up_while_starting": st.booleans(),
    }
)


def play(
    load: list[tuple[int, float]], given_: dict[str, Any], tick_s: float, skip: bool = False
) -> list[tuple[float, int]]:
    """(time, target) of each decision, under requests that change every so many half seconds.

    What the policy asks for is there at once, and seen at once. `skip` passes over the ticks before
    `next_decision_s`.
    """
    policy, target, now, found = QueueDepth(**given_), given_["min_replicas"] or 1, 0.0, []
    for halves, requests in load:
        end = now + halves * 0.5
        while now < end and target:
            seen = Observation(now, requests, 0.0, target, 0, target, unbroken=skip)
            decision = policy.decide(seen)
            assert bool(decision.reason) == (decision.target != target)
            if decision.target != target:
                found.append((now, target := decision.target))
                continue
            now += tick_s
            if skip:
                following = policy.next_decision_s(seen)
                assert following >= now - 1e-9
                now = min(max(now, following), end)
    return found


@given(stretches, policies)
def test_the_target_stays_within_bounds_and_moves_by_one(load: Any, given_: dict[str, Any]) -> None:
    before = given_["min_replicas"] or 1
    for _, target in play(load, given_, EIGHTH):
        assert given_["min_replicas"] <= target <= given_["max_replicas"]
        assert abs(target - before) == 1
        before = target


@given(stretches, policies)
def test_never_two_steps_within_one_window(load: Any, given_: dict[str, Any]) -> None:
    times = [0.0, *(t for t, _ in play(load, given_, EIGHTH))]
    window = given_["autoscaling_window_s"]
    assert all(later - earlier >= window - 1e-6 for earlier, later in pairwise(times))


@given(stretches, policies)
def test_every_step_has_a_whole_window_behind_it(load: Any, given_: dict[str, Any]) -> None:
    """Checked against the load itself, sample by sample, by other means than the policy's timers."""
    window, strict = given_["autoscaling_window_s"], given_["threshold"] == "strict"
    history: list[tuple[float, float]] = []
    now = 0.0
    for halves, requests in load:
        for _ in range(halves * 4):
            history.append((now, requests))
            now += EIGHTH
    before = given_["min_replicas"] or 1
    for t, target in play(load, given_, EIGHTH):
        depths = [requests / before for at, requests in history if t - window <= at <= t]
        if target > before:
            assert all(depth > 5 if strict else depth >= 5 for depth in depths)
        elif target == 0:
            assert all(depth == 0 for depth in depths)
        else:
            assert all(depth < 1 if strict else depth <= 1 for depth in depths)
        before = target


@given(stretches, policies, st.sampled_from([EIGHTH / 2, EIGHTH / 8, 0.25, 0.5]))
@settings(max_examples=60)
def test_the_rate_of_ticks_does_not_matter(load: Any, given_: dict[str, Any], tick_s: float) -> None:
    assert play(load, given_, EIGHTH) == play(load, given_, tick_s)


@given(stretches, policies)
def test_skipping_to_the_next_decision_changes_nothing(load: Any, given_: dict[str, Any]) -> None:
    assert play(load, given_, EIGHTH, skip=True) == play(load, given_, EIGHTH)

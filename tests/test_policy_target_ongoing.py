"""Ray Serve's own policy: decision by decision against Ray's function, and its stories."""

from __future__ import annotations

import random
from math import inf
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_stories import Story, play

from raybench.policies import Observation
from raybench.policies.target_ongoing import TargetOngoing
from raybench.policies.windows import Mean


class Rays:
    """Ray's default policy with everything that Serve's controller puts around it, on a clock of ours."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **config: Any) -> None:
        from ray.serve import autoscaling_policy
        from ray.serve.config import AutoscalingConfig

        self.now_s = 0.0
        monkeypatch.setattr(autoscaling_policy, "time", SimpleNamespace(time=lambda: self.now_s))
        self.config = AutoscalingConfig(**config)
        self._policy = autoscaling_policy._apply_autoscaling_config(
            autoscaling_policy.default_autoscaling_policy
        )
        self._state: dict[str, Any] = {}

    def decide(self, seen: Observation) -> int:
        from ray.serve._private.common import DeploymentID
        from ray.serve.config import AutoscalingContext

        self.now_s = seen.now_s
        deployment = DeploymentID(name="d", app_name="a")
        context = AutoscalingContext(
            deployment_id=deployment,
            deployment_name=deployment.name,
            app_name=deployment.app_name,
            current_num_replicas=seen.available,
            target_num_replicas=seen.target,
            running_replicas=[],
            total_num_requests=seen.waiting + seen.serving,
            total_queued_requests=seen.waiting,
            aggregated_metrics=None,
            raw_metrics=None,
            capacity_adjusted_min_replicas=self.config.min_replicas,
            capacity_adjusted_max_replicas=self.config.max_replicas,
            policy_state=dict(self._state),
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=seen.now_s,
            config=self.config,
        )
        number, self._state = self._policy(context)
        assert isinstance(number, int)
        return max(self.config.min_replicas, min(self.config.max_replicas, number))


@pytest.mark.parametrize("seed", range(40))
def test_on_random_traces_every_decision_is_rays(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 ticks a seed, with replicas that start late, die and come back, and a clock of any origin."""
    dice = random.Random(seed)
    least = dice.choice([0, 0, 1, 2])
    config: dict[str, Any] = {
        "target_ongoing_requests": dice.choice([0.7, 1, 2, 3, 5.5]),
        "upscaling_factor": dice.choice([0.3, 0.5, 1, 1, 2.5]),
        "downscaling_factor": dice.choice([0.1, 0.5, 1, 1, 1.7]),
        "upscale_delay_s": dice.choice([0, 0.1, 1, 3]),
        "downscale_delay_s": dice.choice([0, 0.5, 4]),
        "downscale_to_zero_delay_s": dice.choice([None, 0, 2, 6]),
        "min_replicas": least,
        "max_replicas": least + dice.choice([1, 3, 20]),
    }
    rays = Rays(monkeypatch, **config)
    ours = TargetOngoing(look_back_period_s=0, **config)
    target = available = least
    now_s = dice.choice([0.0, 1e4, 1.7e9])
    level, changes = 0.0, 0
    for _ in range(1000):
        now_s += dice.choice([0.1, 0.1, 0.1, 0.105, 0.7])
        if dice.random() < 0.03:
            level = dice.choice([0, 0, 1, 2, 6, 11, 40]) * dice.choice([1, 1, 1, 0.97])
        if dice.random() < 0.1:
            available = max(0, min(target, available + dice.choice([-2, -1, 1, 2])))
        elif dice.random() < 0.5:
            available = target
        waiting = level * dice.random() if dice.random() < 0.5 else 0.0
        seen = Observation(now_s, waiting, level - waiting, available, target - available, target)
        theirs, decision = rays.decide(seen), ours.decide(seen)
        if available == 0 and level > 0:
            # The way up from nothing is the host's; Ray, asked, starts one times its factor.
            assert theirs == min(
                config["max_replicas"], max(target, int(np.ceil(config["upscaling_factor"])))
            )
            assert decision.target == target
            target = max(1, target)
            continue
        assert decision.target == theirs, (seen, decision, config)
        assert bool(decision.reason) == (theirs != target)
        changes += theirs != target
        target = theirs
    assert changes >= 3  # the trace asked for something


def test_whole_multiples_of_the_target_round_as_rays_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding up makes a replica of the last bit, so that the order of operations matters."""
    config: dict[str, Any] = {"target_ongoing_requests": 0.7, "max_replicas": 60}
    config.update(upscale_delay_s=0, downscale_delay_s=0, min_replicas=0)
    rays, delicate = Rays(monkeypatch, **config), 0
    for available in range(1, 30):
        for wanted in range(1, 50):
            total = wanted * 0.7
            seen = Observation(0.0, 0, total, available, 0, available)
            theirs = rays.decide(seen)
            assert TargetOngoing(look_back_period_s=0, **config).decide(seen).target == theirs
            delicate += theirs != np.ceil(total / 0.7)
    assert delicate > 0


def test_the_mean_is_rays_over_its_look_back_period() -> None:
    """Against Ray's own time-weighted mean of the same steps, at every tick."""
    from ray.serve._private.autoscaling_metrics_merge import time_weighted_average_arrays

    dice = np.random.default_rng(5)
    ticks_s = np.cumsum(dice.uniform(0.05, 0.2, 800))
    figures = np.repeat(dice.integers(0, 9, 80), 10) * dice.choice([1, 1, 1, 0.5], 800)
    mean = Mean(30.0)
    for i in range(800):
        mean.add(figures[i], ticks_s[i])
        if i == 0:
            continue
        begin_s, past = max(ticks_s[0], ticks_s[i] - 30.0), slice(0, i)
        expected = time_weighted_average_arrays(
            ticks_s[past], figures[past], begin_s, ticks_s[i] - ticks_s[i - 1]
        )
        assert mean.value() == pytest.approx(expected, abs=2e-6)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.01, 5), st.integers(0, 50)),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([0.5, 6.0, 30.0]),
)
def test_the_mean_is_the_area_over_the_window(stretches: list[tuple[float, int]], window_s: float) -> None:
    mean, now_s, steps = Mean(window_s), 0.0, []
    for seconds, figure in stretches:
        mean.add(figure, now_s)
        steps.append((now_s, now_s + seconds, figure))
        now_s += seconds
    mean.add(stretches[-1][1], now_s)
    begin_s = max(0.0, now_s - window_s)
    area = sum(figure * max(0.0, end - max(start, begin_s)) for start, end, figure in steps)
    assert mean.value() == pytest.approx(area / (now_s - begin_s), abs=1e-5)
    least, greatest = mean.extremes()
    assert least - 1e-6 <= mean.value() <= greatest + 1e-6


def test_a_constant_load_at_the_target_never_becomes_a_replica_by_rounding() -> None:
    policy = TargetOngoing(target_ongoing_requests=2, upscale_delay_s=0, max_replicas=9)
    story = Story(policy, target=3, tick_s=0.1)
    assert story.until(120, serving=6) == []


def test_up_after_the_whole_delay_and_not_before() -> None:
    policy = TargetOngoing(2, upscale_delay_s=30, look_back_period_s=0, max_replicas=9)
    story = Story(policy)
    assert story.until(30, serving=9) == []
    assert story.until(40, serving=9) == [(30, 5)]
    assert "9 ongoing requests over 1 available, 2 a replica: 5 wanted, not 1, for 30 s" in story.reason


def test_one_look_without_need_starts_the_delay_again() -> None:
    story = Story(TargetOngoing(2, upscale_delay_s=30, look_back_period_s=0, max_replicas=9))
    story.until(29.5, serving=9)
    story.until(29.625, serving=2)
    assert story.until(60, serving=9) == [(59.625, 5)]


def test_the_look_back_smooths_a_short_peak_away() -> None:
    """9 for 3 s of 30 s is a mean below 2; without the look-back it is five replicas."""
    for look_back_s, changes in ((30, []), (0, [(30, 5), (33, 1)])):
        policy = TargetOngoing(
            2, upscale_delay_s=0, downscale_delay_s=0, look_back_period_s=look_back_s, max_replicas=9
        )
        story = Story(policy)
        story.until(30, serving=1)
        assert story.until(33, serving=9) + story.until(60, serving=1) == changes


def test_down_stops_at_one_and_the_last_has_its_own_delay() -> None:
    policy = TargetOngoing(
        2, downscale_delay_s=10, downscale_to_zero_delay_s=20, look_back_period_s=0, max_replicas=9
    )
    story = Story(policy, target=4)
    # The step is at 10 s; the next look, an eighth later, starts the next delay, as in Ray.
    assert story.until(60) == [(10, 1), (30.125, 0)]


def test_replicas_that_start_are_not_counted_so_the_same_need_asks_again() -> None:
    policy = TargetOngoing(2, upscaling_factor=2, upscale_delay_s=5, look_back_period_s=0, max_replicas=20)
    story = Story(policy, target=2)
    story.until(5.125, serving=8, available=2)
    assert story.target == 6  # 2 + 2 x (4 - 2)
    assert story.until(30, serving=8, available=2, starting=4) == []  # 6 again: the same answer
    assert story.until(40, serving=14, available=2, starting=4)[0][1] == 12  # 2 + 2 x (7 - 2)


def test_a_small_factor_still_lets_the_last_ones_go() -> None:
    policy = TargetOngoing(
        2, downscaling_factor=0.1, downscale_delay_s=1, look_back_period_s=0, max_replicas=9
    )
    story = Story(policy, target=4)
    assert [target for _, target in story.until(20)] == [3, 2, 1, 0]


def test_a_gap_and_a_foreign_change_start_the_delay_again() -> None:
    policy = TargetOngoing(2, upscale_delay_s=30, look_back_period_s=0, max_replicas=9)
    story = Story(policy)
    story.until(29, serving=20)
    story.now_s += 2.0
    begin_s = story.now_s
    assert story.until(begin_s + 29, serving=20) == []
    story.target = 2  # not by the policy
    begin_s = story.now_s
    assert story.until(begin_s + 31, serving=20) == [(begin_s + 30, 9)]


def test_with_nothing_available_the_target_is_held() -> None:
    policy = TargetOngoing(2, upscale_delay_s=0, downscale_delay_s=0, look_back_period_s=0)
    assert Story(policy, target=0).until(5, waiting=10) == []
    assert Story(policy, target=1, now_s=9.0).until(15, waiting=0, available=0, starting=1) == []


def test_a_target_outside_the_bounds_is_brought_in_at_once() -> None:
    story = Story(TargetOngoing(2, min_replicas=1, max_replicas=3), target=5)
    assert story.until(1, serving=6) == [(0, 3)]
    assert story.reason == "target 5 is above max_replicas 3"


loads = st.lists(st.tuples(st.sampled_from([0.125, 1.0, 3.0, 12.5]), st.integers(0, 12)), max_size=20)


@settings(max_examples=30, deadline=None)
@given(load=loads, start_s=st.sampled_from([0.0, 2.0]), look_back_s=st.sampled_from([0.0, 8.0]))
def test_a_host_that_skips_to_the_next_decision_misses_none(
    load: list[tuple[float, int]], start_s: float, look_back_s: float
) -> None:
    def policy() -> TargetOngoing:
        return TargetOngoing(
            2, upscale_delay_s=3, downscale_delay_s=7, look_back_period_s=look_back_s, max_replicas=4
        )

    every = play(policy(), load, start_after_s=start_s)
    assert play(policy(), load, start_after_s=start_s, skip=True) == every
    assert all(0 <= target <= 4 for _, target in every)


def test_twice_the_ticks_are_the_same_decisions() -> None:
    load = [(10.0, 1), (40.0, 9), (25.0, 3), (300.0, 0)]
    played = [
        play(TargetOngoing(2, upscale_delay_s=5, downscale_delay_s=20, max_replicas=9), load, tick_s=tick_s)
        for tick_s in (0.125, 0.0625)
    ]
    # A mean crosses a whole number of replicas between two ticks, and each delay begins at a tick.
    assert [target for _, target in played[0]] == [target for _, target in played[1]]
    assert len(played[0]) >= 4
    for (one_s, _), (two_s, _) in zip(*played, strict=True):
        assert abs(one_s - two_s) <= 0.125 * len(played[0])


def test_at_rest_nothing_is_due() -> None:
    policy = TargetOngoing(2, look_back_period_s=0)
    seen = Observation(1.0, 0, 2, 1, 0, 1)
    policy.decide(seen)
    assert policy.next_decision_s(seen) == inf
    busy = Observation(1.125, 0, 3, 1, 0, 1)
    policy.decide(busy)
    assert policy.next_decision_s(busy) == 31.125


@pytest.mark.parametrize(
    "wrong", [{"target_ongoing_requests": 0}, {"upscaling_factor": -1}, {"upscale_delay_s": -1}]
)
def test_parameters_that_cannot_be_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TargetOngoing(**wrong)  # type: ignore[arg-type]

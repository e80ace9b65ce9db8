"""The monitor's beats: due on their grid, and never a moment in which nothing is left to wait for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raybench.fleet.monitor import Beat


@given(
    period_s=st.floats(0.01, 100),
    start_s=st.floats(0, 1e6),
    steps_s=st.lists(st.floats(0, 1000), min_size=1, max_size=50),
)
def test_after_it_was_asked_a_beat_always_lies_ahead(
    period_s: float, start_s: float, steps_s: list[float]
) -> None:
    """Else the loop that waits for it would spin."""
    beat, now_s = Beat(period_s, start_s), start_s
    for step_s in steps_s:
        beat.due(now_s)
        assert now_s < beat.next_s <= now_s + period_s * (1 + 1e-9) + 1e-9
        now_s += step_s


def test_beats_stay_on_their_grid_and_missed_ones_are_left_out() -> None:
    beat = Beat(0.25, 10.0)
    told = [t for t in (10.0, 10.1, 10.25, 10.3, 11.1, 11.2, 11.25) if beat.due(t)]
    assert told == [10.0, 10.25, 11.1, 11.25]

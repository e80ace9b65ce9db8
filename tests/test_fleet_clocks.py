"""Clock offsets: the estimate is never further off than it says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raybench.fleet import clocks

delays_ns = st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(0, 5_000_000)), min_size=1, max_size=20)


@given(offset_ns=st.integers(-(10**15), 10**15), delays=delays_ns)
def test_the_true_offset_lies_within_the_stated_uncertainty(
    offset_ns: int, delays: list[tuple[int, int]]
) -> None:
    """Any delays there and back, any offset: |estimate − truth| ≤ uncertainty."""
    now_ns = [10**12]
    turn = iter(delays)

    def remote_clock_ns() -> int:
        there, back = next(turn)
        now_ns[0] += there
        reading = now_ns[0] + offset_ns
        now_ns[0] += back
        return reading

    sample = clocks.measure(remote_clock_ns, t0_ns=10**12, rounds=len(delays), clock_ns=lambda: now_ns[0])
    assert abs(sample.offset_ns - offset_ns) <= sample.uncertainty_ns
    assert sample.uncertainty_ns <= min((a + b + 1) // 2 for a, b in delays)
    assert sample.t_ns >= 0


def test_a_process_on_the_same_boot_has_no_offset_at_all() -> None:
    sample = clocks.same_clock()
    assert (sample.offset_ns, sample.uncertainty_ns) == (0, 0)
    assert clocks.boot_id() == clocks.boot_id() != ""

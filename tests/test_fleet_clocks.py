"""Clock offsets: the estimate is never further off than it says."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raybench.fleet import clocks
from raybench.rundir.clocks import Correction, correction_for
from raybench.schema import ClockSample, Host, LoadKind, Manifest

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


def test_each_process_is_corrected_by_its_own_hosts_clock_though_pids_and_numbers_agree() -> None:
    """Generator 3 on two hosts in turn, in containers where it was process 17 both times."""

    def host(writer: str, offset_ns: int) -> Host:
        return Host("generator", 3, "h", "b", 17, None, [ClockSample(0, offset_ns, 10)], writer)

    hosts = [host("g003.aa", 1000), host("g003.bb", 5000), Host("monitor", 0, "h", "c", 17)]
    manifest = Manifest("n", LoadKind.OPEN, {}, "", 1, hosts=hosts)
    # Whoever wrote the file (a generator's own process, or the monitor for it), the writer's name counts.
    for pid in (17, 99):
        for writer, offset_ns in (("g003.aa", 1000), ("g003.bb", 5000)):
            correct = correction_for(manifest, writer, pid)
            assert correct is not None
            assert correct(np.array([7000])).tolist() == [7000 - offset_ns]
    assert correction_for(manifest, "monitor", 17) is None
    # A run from before writers had names of their own: by number and pid, else the later one.
    for one, pid in zip(hosts[:2], (17, 18), strict=True):
        one.writer, one.pid = "", pid
    found = [correction_for(manifest, "g003", pid) for pid in (17, 18, 99)]
    assert [int(c(np.array([0]))[0]) for c in found if c] == [-1000, -5000, -5000]


@given(
    offset_ns=st.integers(-(10**15), 10**15),
    drift_ppm=st.floats(-200, 200),
    told_ns=st.integers(-(10**15), 10**15),
    at_ns=st.integers(0, 3600 * 10**9),
)
def test_correction_undoes_offset_and_drift_between_its_samples(
    offset_ns: int, drift_ppm: float, told_ns: int, at_ns: int
) -> None:
    def offset_at(t_ns: int) -> int:
        return offset_ns + round(t_ns * drift_ppm / 1e6)

    every_ns = 60 * 10**9
    samples = [ClockSample(t, offset_at(t), 0) for t in range(0, 3600 * 10**9 + 1, every_ns)]
    written = at_ns + offset_at(at_ns) - told_ns  # counts from the t0 that it was told
    assert abs(int(Correction(samples, told_ns)(np.array([written]))[0]) - at_ns) <= 2

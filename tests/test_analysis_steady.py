"""The suggested steady state: the formula by brute force, and series whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import runs
from hypothesis import given
from hypothesis import strategies as st

from raybench.analysis import summarise
from raybench.analysis.figures import Steady
from raybench.analysis.steady import mser
from raybench.report import render
from raybench.rundir import open_run
from raybench.schema import Outcome


@given(st.lists(st.floats(0, 100), min_size=3, max_size=40))
def test_mser_is_the_smallest_standard_error(y: list[float]) -> None:
    def statistic(d: int) -> float:
        rest = y[d:]
        mean = sum(rest) / len(rest)
        return sum((v - mean) ** 2 for v in rest) / len(rest) ** 2

    found, every = mser(np.array(y)), [statistic(d) for d in range(len(y) // 2 + 1)]
    assert every[found] == pytest.approx(min(every), abs=1e-6)


def steady(path: Path, ttft_s: np.ndarray[tuple[int], np.dtype[np.float64]], **more: object) -> Steady | None:
    rows = [runs.ok(i, anchor_s=float(i), first_s=i + t, done_s=i + t + 1) for i, t in enumerate(ttft_s)]
    return summarise(open_run(runs.write(path, rows, **more))).steady  # type: ignore[arg-type]


def test_a_cold_start_is_found(tmp_path: Path) -> None:
    """The first 40 of 400 requests queue behind a replica that starts; the rest are alike."""
    rng = np.random.default_rng(2)
    ttft = rng.gamma(20, 0.01, 400) + np.maximum(0.0, 20 - 0.5 * np.arange(400))
    found = steady(tmp_path / "r", ttft)
    assert found is not None
    assert found.reached and found.metric == "ttft"
    assert 30 <= found.from_s <= 50


def test_nothing_is_left_out_of_what_is_steady(tmp_path: Path) -> None:
    found = steady(tmp_path / "r", np.full(200, 0.5))
    assert found == Steady("ttft", 0.0, True)


def test_a_queue_that_only_grows_is_no_steady_state(tmp_path: Path) -> None:
    found = steady(tmp_path / "r", np.linspace(0.1, 60.0, 300))
    assert found is not None
    assert not found.reached


def test_too_little_or_a_load_that_changes_gets_no_suggestion(tmp_path: Path) -> None:
    assert steady(tmp_path / "few", np.full(49, 0.5)) is None
    ramp = {"load": {"stages": [{"duration": 60.0, "arrival": {"process": "ramp"}}]}}
    assert steady(tmp_path / "ramp", np.full(200, 0.5), scenario=ramp) is None
    two = {"load": {"stages": [{"duration": 60.0}, {"duration": 60.0}]}}
    assert steady(tmp_path / "two", np.full(200, 0.5), scenario=two) is None


def test_timeouts_are_part_of_the_transient(tmp_path: Path) -> None:
    rows = [
        runs.failed(i, Outcome.TIMEOUT, anchor_s=i, done_s=i + 30.0) if i < 50
        else runs.ok(i, anchor_s=i, first_s=i + 0.2 + i % 3 / 100, done_s=i + 1)
        for i in range(500)
    ]  # fmt: skip
    summary = summarise(open_run(runs.write(tmp_path / "r", rows)))
    assert summary.steady == Steady("ttft", 50.0, True)
    assert "leaving out the first 50s as warm-up (MSER-5 of TTFT): --window 50s: does." in render(summary)

"""Bands over repeats: against NumPy's own percentiles, and the same however the work is shared."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from math import inf
from typing import Any

import numpy as np
import pytest
import simulations

from raybench.analysis import Question, summarise
from raybench.report import bands as shown
from raybench.report.text import document
from raybench.simulator import bands, simulate

SCENARIO = simulations.scenario(
    arrival={"process": "poisson", "rate": 2.0},
    duration=20.0,
    emulated={"output_tokens": {"distribution": "exponential", "mean": 60}},
    autoscaling={"min_replicas": 0, "max_replicas": 2, "autoscaling_window": 4.0},
    objectives={"e2e_p95": 5.0},
)
FIRST = bands.headline(summarise(simulate(SCENARIO), Question()))


def banded(repeats: int, executor: Executor) -> bands.Bands:
    return bands.bands(SCENARIO, Question(), FIRST, repeats, executor, lambda done: None)


def test_a_band_is_made_of_nearest_ranks_over_all_repeats() -> None:
    with ThreadPoolExecutor(1) as one:
        found = banded(12, one)
    runs = [bands.figures_of(SCENARIO, Question(), repeat) for repeat in range(12)]
    assert found.repeats == found.wanted == 12
    assert {band.name for band in found.figures} >= {
        "ttft_p99_s",
        "e2e_mean_s",
        "success_share",
        "replica_seconds_s",
    }
    for band in found.figures:
        values = [run[band.name] for run in runs]
        expected = np.percentile(values, [5, 50, 95], method="inverted_cdf")
        assert [band.p5, band.p50, band.p95] == pytest.approx(expected.tolist())
        assert band.first == runs[0][band.name]


def test_how_the_work_is_shared_makes_no_difference() -> None:
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(5) as five:
        assert banded(8, one) == banded(8, five)


def test_an_interrupt_keeps_what_is_done() -> None:
    class Interrupted(Executor):
        """Answers three, and then somebody presses Ctrl-C."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if args[2] == 4:
                raise KeyboardInterrupt
            future: Future[Any] = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    found = banded(10, Interrupted())
    assert found.wanted == 10 and found.repeats == 4
    assert "4 of 10 repeats" in document([shown.section(found)])


def test_timeouts_lie_beyond_every_latency_and_unknown_figures_are_counted() -> None:
    runs = [{"a_s": 1.0}, {"a_s": inf, "b": 3.0}, {"a_s": 2.0}]
    a, b = bands.of(runs[0], runs)
    assert (a.p5, a.p50, a.p95) == (1.0, 2.0, inf)
    assert (b.first, b.p50, b.repeats) == (None, 3.0, 1)
    whole = bands.Bands(3, 3, (a, b))
    text = document([shown.section(whole)])
    assert "> timeout" in text and "b: 2 repeats cannot say it" in text
    assert shown.to_object(whole)["figures"]["a_s"]["p95"] is None

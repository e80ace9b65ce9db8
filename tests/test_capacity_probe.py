"""Judging one probe from its tables: objectives, failures, growth, and when there is no hope left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs

from raybench.analysis import summarise
from raybench.analysis.probe import Judged, Judgement, growth, hopeless, judge
from raybench.analysis.question import Objective
from raybench.rundir import open_run
from raybench.schema import Outcome, Phase, Requests, RunStatus

WARMUP_S, END_S = 10.0, 50.0
RATE = 5.0


def probe(
    path: Path,
    e2e_s: Any,
    objectives: dict[str, float] | None = None,
    failed: int = 0,
    until_s: float = END_S,
    outcome: Outcome = Outcome.HTTP_ERROR,
    **manifest: Any,
) -> Any:
    """A run at 5/s whose answers take `e2e_s(scheduled)`, the first token at a tenth of that; every
    `failed`-th request of the steady part fails. Rows up to `until_s` are there.
    """
    rows = []
    instants = np.arange(0.0, END_S, 1 / RATE)
    for i, at in enumerate(instants):
        took = e2e_s(at)
        phase = {Requests.phase: Phase.WARMUP if at < WARMUP_S else Phase.STEADY}
        bad = failed and at >= WARMUP_S and i % failed == 0
        row = runs.ok(i, anchor_s=at, first_s=at + took / 10, done_s=at + took, tokens=5, **phase)
        if bad:
            row = runs.failed(i, outcome, "no", anchor_s=at, done_s=at + took, **phase)
        rows.append(row)
    load = {
        "stages": [{"duration": END_S, "arrival": {"process": "constant", "rate": RATE}}],
        "warmup": WARMUP_S,
        "request": {"timeout": 300.0},
    }
    scenario = {"load": load, "objectives": objectives or {"ttft_p95": 0.5}}
    there = [r for r in rows if r[Requests.anchor_ns] < until_s * 1e9]
    values = {"scenario": scenario, "load_total_s": END_S + 1, "planned": len(rows)} | manifest
    return open_run(runs.write(path, there, schedule=runs.schedule_of(rows), **values))


def judged(source: Any, precision: float = 0.1) -> Judged:
    return judge(source, summarise(source), precision)


def test_steady_and_within_its_objectives_is_sustained(tmp_path: Path) -> None:
    found = judged(probe(tmp_path / "run", lambda at: 1.0))
    assert (found.word, found.reasons) == (Judgement.SUSTAINED, ())
    assert found.growth is not None and found.growth.per_s == pytest.approx(0.0)


def test_an_objective_that_is_missed_says_by_how_much(tmp_path: Path) -> None:
    found = judged(probe(tmp_path / "run", lambda at: 6.0))
    assert found.word is Judgement.MISSED and found.reasons == ("ttft_p95 0.6 s, not 0.5 s",)


def test_the_warm_up_is_not_judged(tmp_path: Path) -> None:
    found = judged(probe(tmp_path / "run", lambda at: 100.0 if at < WARMUP_S else 1.0))
    assert found.word is Judgement.SUSTAINED


def test_latency_that_grows_is_an_overload_whatever_the_objectives_allow(tmp_path: Path) -> None:
    """10% too fast: each second of load adds 0.1 s of waiting."""
    found = judged(probe(tmp_path / "run", lambda at: 1.0 + 0.1 * at, {"e2e_p95": 300.0}))
    assert found.word is Judgement.MISSED
    assert found.growth is not None and found.growth.per_s == pytest.approx(0.1)
    assert found.reasons == ("E2E grew by 0.1 s in each second",)
    slow = probe(tmp_path / "slow", lambda at: 1.0 + 0.02 * at, {"e2e_p95": 300.0})
    assert judged(slow).word is Judgement.SUSTAINED, "within what is searched for"
    assert judged(slow, precision=0.05).word is Judgement.MISSED


def test_growth_is_the_difference_of_the_halves_with_its_standard_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(4)
    values: dict[float, float] = {}

    def took(at: float) -> float:
        return values.setdefault(at, float(noise.exponential(5.0)))

    found = growth(probe(tmp_path / "run", took))
    middle = (WARMUP_S + END_S) / 2
    first = [round(v * 1e9) / 1e9 for at, v in values.items() if WARMUP_S <= at < middle]
    second = [round(v * 1e9) / 1e9 for at, v in values.items() if at >= middle]
    half_s = (END_S - WARMUP_S) / 2
    assert found is not None
    assert found.per_s == pytest.approx((np.mean(second) - np.mean(first)) / half_s, rel=1e-6)
    error = np.sqrt(np.var(first, ddof=1) / len(first) + np.var(second, ddof=1) / len(second))
    assert found.error == pytest.approx(error / half_s, rel=1e-6)
    assert not found.counts(0.1), "noise of five seconds is no growth"


def test_failures_count_where_no_success_rate_is_stated(tmp_path: Path) -> None:
    """Refusals leave the others fast; a rate at which a fifth fails is not sustained."""
    found = judged(probe(tmp_path / "run", lambda at: 1.0, failed=5))
    assert found.word is Judgement.MISSED
    assert found.reasons == ("success rate 80.00%, not 99% (no other is stated)",)
    stated = probe(tmp_path / "stated", lambda at: 1.0, {"ttft_p95": 0.5, "success_rate": 0.75}, failed=5)
    assert judged(stated).word is Judgement.SUSTAINED


def test_an_invalid_run_says_nothing_of_the_server(tmp_path: Path) -> None:
    source = probe(tmp_path / "run", lambda at: 9.0, until_s=40.0)  # rows are lost
    found = judged(source)
    assert found.word is Judgement.INVALID and any("lost" in r for r in found.reasons)


# --- hopeless -------------------------------------------------------------------------------------------


def going(path: Path, e2e_s: Any, until_s: float, **given: Any) -> Any:
    return probe(path, e2e_s, until_s=until_s, status=RunStatus.RUNNING, **given)


def test_beyond_what_the_percentile_allows_there_is_no_hope(tmp_path: Path) -> None:
    """200 steady requests: ten may lie beyond p95, an eleventh may not."""
    limit = [Objective("ttft", 0.5, 95)]
    for late, hope in ((10, True), (11, False)):
        source = going(
            tmp_path / str(late), lambda at, n=late: 6.0 if at < WARMUP_S + n / RATE - 1e-6 else 1.0, 30.0
        )
        told = hopeless(source, limit)
        assert (told is None) == hope
    assert told == "ttft_p95: 11 of 200 requests took longer than 0.5 s already, at most 10 may"


def test_what_is_hopeless_while_it_goes_is_missed_at_its_end(tmp_path: Path) -> None:
    for slow in range(8, 14):

        def took(at: float, n: int = slow) -> float:
            return 6.0 if at < WARMUP_S + n / RATE - 1e-6 else 1.0

        path = tmp_path / str(slow)
        told = hopeless(going(path / "going", took, 30.0), [Objective("ttft", 0.5, 95)])
        end = judged(probe(path / "end", took), precision=1.0)
        assert (told is not None) == (end.word is Judgement.MISSED), slow


def test_failures_against_the_success_rate(tmp_path: Path) -> None:
    rate = [Objective("success_rate", 0.99)]
    assert hopeless(going(tmp_path / "a", lambda at: 1.0, 12.0, failed=9), rate) is None  # one of 200
    told = hopeless(going(tmp_path / "b", lambda at: 1.0, 13.0, failed=5), rate)
    assert told == "success_rate: 3 of 200 requests failed already, at most 2 may"


def test_a_timeout_is_beyond_every_limit_below_it(tmp_path: Path) -> None:
    source = going(tmp_path / "a", lambda at: 3.0, 40.0, failed=2, outcome=Outcome.TIMEOUT)
    assert "e2e_p95" in (hopeless(source, [Objective("e2e", 2.9, 95)]) or "")
    assert hopeless(source, [Objective("e2e", 3.1, 95)]) is None


def test_nothing_written_yet_is_no_reason_to_give_up(tmp_path: Path) -> None:
    assert hopeless(going(tmp_path / "a", lambda at: 9.0, 0.0), [Objective("ttft", 0.5, 95)]) is None

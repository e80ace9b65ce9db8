"""Comparing runs: figures, pairing, censoring, repeats, thresholds, and what may not be compared."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import runs
from comparisons import SCENARIO, Memory, Row, answers, queue, source, timed_out
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from raybench.analysis import Question, summarise
from raybench.analysis.aligned import align
from raybench.analysis.comparable import NotComparable
from raybench.analysis.compare import Comparison, Figure, Finding, Settings, compare, compare_runs, holm
from raybench.analysis.compared import Run
from raybench.schema import Exit, LoadKind, Outcome, Requests, RunStatus, Schedule

FAST = Settings(resamples=200)


def figure(found: Comparison, name: str) -> Figure:
    return next(f for f in found.figures if f.name == name)


def busy(seed: int, n: int = 1500, load: float = 0.6, slower: float = 1.0, noise: float = 0.0) -> list[Row]:
    rng = np.random.default_rng(seed)
    gaps, service = rng.exponential(1, n), rng.exponential(load, n)
    if noise:
        service = service * np.random.default_rng([seed, round(noise * 1e6)]).lognormal(0, noise, n)
    return queue(gaps, service * slower)


# --- what comes out ---------------------------------------------------------------------------------


def test_the_same_run_twice_is_no_difference_and_exit_0() -> None:
    one = source(busy(1))
    found = compare([one], [one], settings=FAST)
    assert found.paired and found.verdict is Finding.NO_DIFFERENCE and found.exit_code is Exit.GOOD
    assert all(f.difference == 0 for f in found.figures)
    assert all(f.finding in (Finding.NO_DIFFERENCE, Finding.NOT_TESTED) for f in found.figures)


def test_a_slower_server_is_a_regression_and_exit_6() -> None:
    found = compare([source(busy(1))], [source(busy(1, slower=1.2, noise=0.05))], settings=FAST)
    assert found.paired and found.verdict is Finding.REGRESSION and found.exit_code is Exit.REGRESSION
    assert figure(found, "e2e_p50").finding is Finding.REGRESSION
    back = compare([source(busy(1, slower=1.2, noise=0.05))], [source(busy(1))], settings=FAST)
    assert back.verdict is Finding.IMPROVEMENT and back.exit_code is Exit.GOOD


def test_noise_is_no_regression() -> None:
    found = compare([source(busy(1, noise=0.051))], [source(busy(1, noise=0.052))], settings=FAST)
    assert found.paired and not found.of(Finding.REGRESSION) and found.exit_code is Exit.GOOD


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.booleans())
def test_exchanging_base_and_new_flips_every_sign(seed: int, paired: bool) -> None:
    rng = np.random.default_rng(seed)
    sides = [
        source(answers(rng.exponential(1, 60).tolist()), schedule=("a" if paired else k) * 64) for k in "ab"
    ]
    fast = Settings(resamples=100)
    one, other = (
        compare([sides[0]], [sides[1]], settings=fast),
        compare([sides[1]], [sides[0]], settings=fast),
    )
    opposite = {Finding.REGRESSION: Finding.IMPROVEMENT, Finding.IMPROVEMENT: Finding.REGRESSION}
    assert one.paired is paired
    for f, g in zip(one.figures, other.figures, strict=True):
        assert (f.base, f.new) == (g.new, g.base)
        assert f.difference is not None and g.difference == pytest.approx(-f.difference, rel=1e-9, abs=1e-12)
        assert f.interval is not None and g.interval is not None
        assert g.interval == pytest.approx((-f.interval[1], -f.interval[0]), rel=1e-6, abs=1e-12)  # type: ignore[operator]
        if f.ratio is not None and g.ratio is not None:
            assert (1 + f.ratio) * (1 + g.ratio) == pytest.approx(1)
        assert g.finding is opposite.get(f.finding, f.finding)


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_every_figure_is_the_reports_own(data: st.DataObject) -> None:
    """Against `summarise`, and rates against plain arithmetic, on runs with every kind of outcome."""
    n = data.draw(st.integers(3, 40))
    rng = np.random.default_rng(n)
    rows = answers(rng.exponential(1, n).tolist(), every_s=0.5)
    plan = runs.schedule_of(rows)
    for i in range(n):
        what = data.draw(st.sampled_from(["ok", "ok", "timeout", "http", "missing", "late"]))
        if what == "timeout":
            rows[i] = timed_out(rows[i], 9.0 + i)
        elif what == "http":
            rows[i] = runs.failed(i, Outcome.HTTP_ERROR, "500", anchor_s=i * 0.5, done_s=i * 0.5 + 0.1)
        elif what == "late":
            rows[i] = rows[i] | {Requests.sent_ns: rows[i][Requests.anchor_ns] + 10**8}
        elif what == "missing":
            rows[i] = {}
    run = source([r for r in rows if r], plan=plan)
    found, summary = compare([run], [run], settings=Settings(resamples=100)), summarise(run)
    for metric, of in (
        ("ttft", summary.latencies.ttft_scheduled),
        ("e2e", summary.latencies.e2e_scheduled),
        ("tpot", summary.latencies.tpot),
    ):
        assert of is not None
        for p in (50, 90, 99):
            shown = next((f.base for f in found.figures if f.name == f"{metric}_p{p}"), None)
            expected = of.at(p)
            assert (shown is None) == (expected is None)
            if shown is not None and expected is not None:
                assert shown.censored == expected.censored
                assert shown.value == pytest.approx(expected.value, rel=1e-9)
        mean = next((f.base for f in found.figures if f.name == f"{metric}_mean"), None)
        assert (mean is None) == (of.mean is None)
        if mean is not None:
            assert mean.value == pytest.approx(of.mean, rel=1e-6)
    success = figure(found, "success_rate").base
    assert success is not None and success.value == pytest.approx(summary.success_rate)
    per_s = 1 / 0.5  # planned twice a second
    goodput = figure(found, "goodput").base
    assert goodput is not None and goodput.value == pytest.approx((summary.goodput.share or 0) * per_s)
    completed = figure(found, "completed").base
    assert completed is not None and completed.value == pytest.approx((summary.success_rate or 0) * per_s)
    tokens = next((f.base for f in found.figures if f.name == "output_tokens"), None)
    assert (tokens.value if tokens else 0) == pytest.approx(summary.throughput.output_tokens / (n * 0.5))


def test_warm_up_is_left_out_as_in_the_report() -> None:
    scenario = copy.deepcopy(SCENARIO)
    scenario["load"] |= {"warmup": 100.0, "stages": [{"duration": 1000.0}]}
    rows = busy(2, n=900)
    for row in rows:
        row[Requests.phase] = "warmup" if row[Requests.anchor_ns] < 100e9 else "steady"
    run = source(rows, scenario=scenario)
    shown = figure(compare([run], [run], settings=FAST), "e2e_p50").base
    of = summarise(run).latencies.e2e_scheduled
    assert of is not None and shown == of.at(50)
    steady = sorted(
        r[Requests.done_ns] - r[Requests.anchor_ns] for r in rows if r[Requests.phase] == "steady"
    )
    assert shown is not None and shown.value == steady[math.ceil(len(steady) / 2) - 1] / 1e9


# --- honesty ----------------------------------------------------------------------------------------


def test_a_percentile_among_timeouts_is_a_bound_and_its_interval_open() -> None:
    rng = np.random.default_rng(1)
    base = answers(rng.uniform(0.5, 1.5, 1200).tolist())
    new = [timed_out(r) if i % 20 == 7 else r for i, r in enumerate(base)]
    found = compare([source(base)], [source(new)], settings=FAST)
    p99 = figure(found, "e2e_p99")
    assert p99.new is not None and p99.new.censored and p99.new.value == 300
    assert p99.interval is not None and p99.interval[1] is None and (p99.interval[0] or 0) > 200
    assert p99.finding is Finding.REGRESSION
    back = figure(compare([source(new)], [source(base)], settings=FAST), "e2e_p99")
    assert back.interval is not None and back.interval[0] is None
    assert back.finding is Finding.IMPROVEMENT
    assert not any(f.name == "e2e_mean" and f.new is not None for f in found.figures)
    assert figure(found, "e2e_mean").note == "new: a mean is unknown with 60 timeouts"
    both = figure(compare([source(new)], [source(new)], settings=FAST), "e2e_p99")
    assert both.finding is Finding.UNDECIDED and "timeouts" in both.note


def test_too_few_rows_for_a_percentile_is_said() -> None:
    rng = np.random.default_rng(1)
    one, two = (source(answers(rng.exponential(s, 500).tolist())) for s in (1, 3))
    found = compare([one], [two], settings=FAST)
    p99 = figure(found, "e2e_p99")
    assert p99.finding is Finding.UNDECIDED and p99.note == "needs 1,000 answers in each run"
    assert figure(found, "e2e_p50").finding is Finding.REGRESSION


def test_one_slow_spell_is_not_taken_for_a_slower_server() -> None:
    """Half of the run slow, once: as one event it may be anything, and the comparison says that."""
    rng = np.random.default_rng(1)
    base = rng.uniform(0.9, 1.1, 1500)
    new = base.copy()
    new[750:] *= 1.5
    found = compare([source(answers(base.tolist()))], [source(answers(new.tolist()))], settings=FAST)
    p50 = figure(found, "e2e_p50")
    assert p50.finding is Finding.UNDECIDED and "longer run or repeats" in p50.note


def test_one_failure_more_in_a_thousand_is_no_regression_and_fifty_are() -> None:
    base = answers([1.0] * 1500)

    def failing(which: range | list[int]) -> Memory:
        return source(
            [
                runs.failed(i, Outcome.HTTP_ERROR, "500", anchor_s=float(i), done_s=i + 0.1)
                if i in which
                else r
                for i, r in enumerate(base)
            ]
        )

    few = compare([source(base)], [failing([700])], settings=FAST)
    assert figure(few, "success_rate").finding is not Finding.REGRESSION
    spread = np.random.default_rng(1).choice(1500, 50, replace=False).tolist()
    many = compare([source(base)], [failing(spread)], settings=Settings(resamples=200, threshold=0.2))
    assert figure(many, "success_rate").finding is Finding.REGRESSION  # the threshold is not for it
    assert figure(many, "goodput").finding is Finding.WITHIN_THRESHOLD


def test_a_difference_below_the_clocks_uncertainty_is_none() -> None:
    from raybench.schema import ClockSample, Host

    clock = [ClockSample(t_ns=0, offset_ns=5, uncertainty_ns=20_000_000)]
    hosts = [Host("generator", 0, "far", "boot", 1, clock=clock)]
    base = np.random.default_rng(1).uniform(0.9, 1.1, 1500)
    one, two = (source(answers(v.tolist()), hosts=hosts) for v in (base, base + 0.03))
    p50 = figure(compare([one], [two], settings=FAST), "e2e_p50")
    assert p50.finding is Finding.NO_DIFFERENCE and "clocks" in p50.note


def test_a_threshold_swallows_what_is_smaller() -> None:
    def verdict(threshold: float) -> Finding:
        pair = [source(busy(3, noise=n, slower=s)) for n, s in ((0.0, 1.0), (0.01, 1.03))]
        chosen = Settings(resamples=200, threshold=threshold)
        return figure(compare([pair[0]], [pair[1]], settings=chosen), "tpot_p50").finding

    assert verdict(0.01) is Finding.REGRESSION
    assert verdict(0.10) is Finding.WITHIN_THRESHOLD


# --- repeats ----------------------------------------------------------------------------------------


def test_repeats_on_both_sides_are_judged_by_how_runs_differ() -> None:
    def starts(levels: list[float], first: int) -> list[Memory]:
        """Runs of their own schedules whose level differs from start to start."""
        return [
            source(
                answers(np.random.default_rng(first + i).uniform(0.9 * x, 1.1 * x, 1100).tolist()),
                schedule=f"{first + i:064x}",
            )
            for i, x in enumerate(levels)
        ]

    unclear = compare(starts([1.0, 1.3, 0.8], 0), starts([1.2, 0.9, 1.4], 10), settings=FAST)
    assert not unclear.of(Finding.REGRESSION)
    alone = compare(starts([1.0], 0), starts([1.2], 10), settings=FAST)
    assert figure(alone, "e2e_p50").finding is Finding.REGRESSION  # which says nothing of other starts
    clear = compare(starts([1.0, 1.02, 0.99], 0), starts([1.5, 1.52, 1.49], 10), settings=FAST)
    assert figure(clear, "e2e_p50").finding is Finding.REGRESSION
    base = figure(clear, "e2e_p50").base
    values = [summarise(s).latencies.e2e_scheduled.at(50) for s in starts([1.0, 1.02, 0.99], 0)]  # type: ignore[union-attr]
    assert base is not None and base.value == pytest.approx(np.mean([v.value for v in values if v]))


def with_cost(schedule: str, replica_seconds: float | None) -> Run:
    one = align(source(answers([1.0] * 20)), Question())
    return Run(schedule, one, np.arange(20), replica_seconds=replica_seconds)


def cost(base: list[Run], new: list[Run]) -> Figure | None:
    figures = compare_runs(base, new, [], Settings())
    return next((f for f in figures if f.name == "replica_seconds"), None)


def test_replica_seconds_have_an_interval_only_with_repeats() -> None:
    alone = cost([with_cost("a", 100.0)], [with_cost("a", 130.0)])
    assert alone is not None and alone.difference == 30 and alone.ratio == pytest.approx(0.3)
    assert alone.interval is None and alone.finding is Finding.NOT_TESTED and "no interval" in alone.note
    assert cost([with_cost("a", None)], [with_cost("a", 1.0)]) is None
    base, new = [100.0, 104.0, 98.0], [130.0, 128.0, 135.0]
    many = cost(
        [with_cost(f"b{i}", v) for i, v in enumerate(base)],
        [with_cost(f"n{i}", v) for i, v in enumerate(new)],
    )
    assert many is not None and many.interval is not None and many.finding is Finding.REGRESSION
    expected = stats.ttest_ind(new, base).confidence_interval(0.95)
    assert many.interval == pytest.approx((expected.low, expected.high))
    logs = stats.ttest_ind(np.log(new), np.log(base))
    assert many.ratio_interval == pytest.approx(tuple(np.expm1(logs.confidence_interval(0.95))))
    assert many.p == pytest.approx(max(logs.pvalue, stats.ttest_ind(new, base).pvalue))


# --- all figures together ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_step_by_step(p_values: list[float]) -> None:
    figures = [
        Figure(f"f{i}", "s", "low", True, None, None, 1.0, (0.5, 1.5), 0.1, (0.05, 0.2), p,
               finding=Finding.NO_DIFFERENCE)
        for i, p in enumerate(p_values)
    ]  # fmt: skip
    found = {f.name for f in holm(figures, Settings()) if f.finding is Finding.REGRESSION}
    expected = set()
    for step, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[i] > 0.05 / (len(p_values) - step) * (1 + 1e-12):
            break
        expected.add(f"f{i}")
    assert found == expected


# --- exit codes and what may be compared ------------------------------------------------------------


def test_an_invalid_run_is_exit_4_and_an_unfinished_one_5() -> None:
    good, slow = busy(1), source(busy(1, slower=1.5))
    late = [r | {Requests.sent_ns: r[Requests.anchor_ns] + 3 * 10**8} for r in busy(1, load=0.2)]
    assert compare([source(late)], [source(late)], settings=FAST).exit_code is Exit.INVALID
    cut = source(good, status=RunStatus.INTERRUPTED)
    assert compare([cut], [slow], settings=FAST).exit_code is Exit.INCOMPLETE


def changed(**where: Any) -> dict[str, Any]:
    scenario = copy.deepcopy(SCENARIO)
    for path, value in where.items():
        at = scenario
        *way, last = path.split("__")
        for key in way:
            at = at[key]
        at[last] = value
    return scenario


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"deployment__model": "other"}, "model"),
        ({"load__request__prompt": "bye"}, "load.request.prompt"),
        ({"load__request__max_tokens": 5}, "load.request.max_tokens"),
        ({"load__stages": [{"duration": 5}]}, "load.stages"),
        ({"objectives__ttft_p99": 9.0}, "objectives.ttft_p99"),
        ({"load__api": "completions"}, "load.api"),
    ],
)
def test_what_did_not_measure_the_same_is_refused_by_name(change: dict[str, Any], key: str) -> None:
    one, two = source(busy(1, n=50)), source(busy(1, n=50), scenario=changed(**change))
    with pytest.raises(NotComparable, match=key):
        compare([one], [two], settings=FAST)
    forced = compare([one], [two], settings=Settings(resamples=200, force=True))
    assert [d.key for d in forced.differences if d.matters] == [key]


def test_another_kind_of_load_is_refused() -> None:
    one, two = source(busy(1, n=50)), source(busy(1, n=50), load_kind=LoadKind.CAPPED)
    with pytest.raises(NotComparable, match="kind of load"):
        compare([one], [two], settings=FAST)


def test_what_is_being_tried_out_may_differ_and_is_listed() -> None:
    one = source(busy(1, n=50), versions={"vllm": "1"})
    two = source(busy(1, n=50), versions={"vllm": "2"}, scenario=changed(deployment__slots_per_replica=8))
    found = compare([one], [two], settings=FAST)
    assert {d.key: (d.base, d.new) for d in found.differences} == {
        "deployment.slots_per_replica": (("4",), ("8",)),
        "version of vllm": (('"1"',), ('"2"',)),
    }


def test_a_closed_loop_counts_from_sent() -> None:
    rows = [r | {Requests.anchor_ns: None} for r in busy(1, n=300)]
    plan = [{Schedule.request_id: i} for i in range(300)]
    for row in rows:
        row[Requests.sent_ns] = row[Requests.first_token_ns] - 10**7
    run = source(rows, plan=plan, load_kind=LoadKind.CLOSED)
    found = compare([run], [run], settings=FAST)
    assert found.anchor == "sent" and figure(found, "completed").headline
    assert figure(found, "ttft_p50").base == summarise(run).latencies.ttft_sent.at(50)

"""Every figure against a second computation: plain Python on small random runs, SQL on a larger one."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import runs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raybench.analysis import Anchor, Objective, PhaseFilter, Question, Summary, summarise
from raybench.analysis import rows as rows_module
from raybench.analysis.quantiles import Distribution
from raybench.analysis.rows import ahead, joined, passes
from raybench.rundir import open_run
from raybench.schema import LoadKind, Outcome, Phase, Requests, RunStatus, Schedule

R = Requests
TIMEOUT_S = 300.0
SCENARIO = {"load": {"request": {"timeout": TIMEOUT_S}}}
OBJECTIVES = (Objective("ttft", 2.0, 90.0), Objective("tpot", 0.05, 50.0), Objective("e2e", 60.0, 99.0))
FAILURES = [o for o in Outcome if o not in (Outcome.OK, Outcome.LOST)]

Row = dict[str, Any]


def quantile(values: list[float], percent: float) -> float:
    """The rule itself, on a list."""
    return sorted(values)[math.ceil(Fraction(str(percent)) * len(values) / 100) - 1]


def agrees(d: Distribution | None, values: list[float], censored: int = 0) -> None:
    """A distribution is that of these seconds, and of so many beyond them."""
    assert d is not None
    assert (d.n, d.censored) == (len(values) + censored, censored)
    everything = values + [math.inf] * censored
    for p in d.percentiles:
        want = quantile(everything, p.percent)
        assert p.value.censored == math.isinf(want)
        assert p.value.censored or p.value.value == pytest.approx(want, rel=1e-12, abs=1e-12)
        assert p.supported == (len(everything) * (100 - Fraction(str(p.percent))) / 100 >= 10)
    if values and not censored:
        assert d.mean == pytest.approx(math.fsum(values) / len(values), rel=1e-9, abs=1e-12)
        assert d.max is not None and d.max.value == pytest.approx(max(values))
        assert d.min == pytest.approx(min(values))


# --- random small runs ------------------------------------------------------------------------------

instants = st.integers(0, 400 * 10**9)


@st.composite
def a_row(draw: st.DrawFn, request_id: int, outcomes: list[Outcome]) -> Row:
    outcome = draw(st.sampled_from(outcomes))
    anchor = draw(instants)
    row = runs.ok(
        request_id,
        stage=draw(st.integers(0, 2)),
        phase=draw(st.sampled_from(list(Phase))),
        generator=draw(st.integers(0, 2)),
        replica=draw(st.sampled_from([None, "a", "b"])),
        outcome=outcome,
        bytes=draw(st.integers(0, 10**6)),
    )
    row |= {R.anchor_ns: anchor, R.http_status: None}
    if outcome is Outcome.NOT_SENT:
        return row
    sent = anchor + draw(st.integers(0, 10**9))
    first = sent + draw(st.integers(0, 100 * 10**9))
    last = first + draw(st.integers(0, 50 * 10**9))
    timed_out = outcome is Outcome.TIMEOUT
    row[R.sent_ns] = sent
    row[R.done_ns] = sent + round(TIMEOUT_S * 1e9) + draw(st.integers(0, 10**6)) if timed_out else last
    if outcome is not Outcome.OK:
        row[R.error] = draw(st.sampled_from([None, "one", "two"]))
        row[R.http_status] = draw(st.sampled_from([None, 200, 500]))
    else:
        row[R.http_status] = 200
    if draw(st.booleans()) or outcome is Outcome.OK:
        row[R.first_token_ns], row[R.last_token_ns] = first, last
        row[R.output_tokens] = draw(st.sampled_from([None, 0, 1, 2, 50]))
        row[R.chunks] = draw(st.sampled_from([0, row[R.output_tokens] or 0]))
    if outcome is Outcome.OK and draw(st.booleans()):
        offsets = sorted(draw(st.lists(st.integers(0, 10**10), max_size=5)))
        row[R.chunk_ns] = offsets
    return row


@st.composite
def a_run(draw: st.DrawFn) -> tuple[int, list[Row]]:
    """(planned, rows): some of the planned requests have no row. All-failed and all-timeout runs included."""
    planned = draw(st.integers(0, 25))
    outcomes = draw(
        st.sampled_from(
            [[Outcome.OK], [*FAILURES, Outcome.OK], FAILURES, [Outcome.TIMEOUT], [Outcome.NOT_SENT]]
        )
    )
    ids = draw(st.lists(st.integers(0, planned - 1), unique=True)) if planned else []
    return planned, [draw(a_row(i, outcomes)) for i in ids]


def written(path: Path, planned: int, rows: list[Row], **more: Any) -> Path:
    plan = [{Schedule.request_id: i, Schedule.scheduled_ns: 10**9 * i} for i in range(planned)]
    by_id = {r[R.request_id]: r for r in rows}
    for row in plan:
        if row[Schedule.request_id] in by_id:
            row[Schedule.scheduled_ns] = by_id[row[Schedule.request_id]][R.anchor_ns]
    values = {"scenario": SCENARIO, "load_total_s": 500.0, "batch_rows": 7, **more}
    return runs.write(path, rows, schedule=plan, **values)


def seconds(rows: list[Row], later: str, earlier: str) -> list[float]:
    return [(r[later] - r[earlier]) / 1e9 for r in rows if r[later] is not None and r[earlier] is not None]


@given(run=a_run(), anchor=st.sampled_from([None, Anchor.SENT, Anchor.SCHEDULED]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_figure_on_random_runs(
    tmp_path_factory: pytest.TempPathFactory, run: tuple[int, list[Row]], anchor: Anchor | None
) -> None:
    planned, rows = run
    path = written(tmp_path_factory.mktemp("run") / "r", planned, rows)
    s = summarise(open_run(path), Question(anchor=anchor, objectives=OBJECTIVES))
    check_accounting(s, planned, rows)
    check_latencies(s, rows)
    check_rates(s, planned, rows, anchor)
    check_groups(open_run(path), rows)


def check_accounting(s: Summary, planned: int, rows: list[Row]) -> None:
    want = Counter(str(r[R.outcome]) for r in rows) + Counter({"lost": planned - len(rows)})
    assert s.accounting.outcomes == {str(o): want.get(str(o), 0) for o in Outcome}
    assert sum(s.accounting.outcomes.values()) == s.accounting.planned == planned
    assert s.accounting.balances
    reasons = Counter((str(r[R.outcome]), r.get(R.error) or "") for r in rows if r[R.outcome] != Outcome.OK)
    assert {(r.outcome, r.error): r.count for r in s.reasons} == dict(reasons)
    assert s.accounting.sent == sum(r[R.sent_ns] is not None for r in rows)


def check_latencies(s: Summary, rows: list[Row]) -> None:
    ok = [r for r in rows if r[R.outcome] == Outcome.OK]
    late = [r for r in rows if r[R.outcome] == Outcome.TIMEOUT]
    begun = [r for r in late if r[R.first_token_ns] is not None]
    agrees(s.lateness, seconds(rows, R.sent_ns, R.anchor_ns))
    found = s.latencies
    agrees(found.ttft_scheduled, seconds(ok + begun, R.first_token_ns, R.anchor_ns), len(late) - len(begun))
    agrees(found.ttft_sent, seconds(ok + begun, R.first_token_ns, R.sent_ns), len(late) - len(begun))
    agrees(found.e2e_scheduled, seconds(ok, R.done_ns, R.anchor_ns), len(late))
    agrees(found.e2e_sent, seconds(ok, R.done_ns, R.sent_ns), len(late))
    if late:
        assert found.e2e_sent.censored_at == min(seconds(late, R.done_ns, R.sent_ns))
        assert found.e2e_sent.censored_at >= TIMEOUT_S
    agrees(found.tpot, [tpot(r) for r in ok if tpot(r) >= 0])
    gaps = [(b - a) / 1e9 for r in ok for c in [r.get(R.chunk_ns) or []] for a, b in itertools.pairwise(c)]
    agrees(found.inter_chunk, gaps)
    assert found.failed_left_out == len(rows) - len(ok) - len(late)
    usage = [r for r in ok if r[R.output_tokens] is not None]
    assert found.one_chunk_per_token == (
        bool(usage) and all(r[R.chunks] == r[R.output_tokens] for r in usage)
    )


def tpot(row: Row) -> float:
    """-1 where there is none."""
    tokens = row[R.output_tokens]
    return (row[R.last_token_ns] - row[R.first_token_ns]) / (tokens - 1) / 1e9 if (tokens or 0) > 1 else -1.0


def check_rates(s: Summary, planned: int, rows: list[Row], anchor: Anchor | None) -> None:
    ok = [r for r in rows if r[R.outcome] == Outcome.OK]
    tokens = sum(r[R.output_tokens] or 0 for r in rows)
    t = s.throughput
    assert (t.output_tokens, t.tokens_per_s) == (tokens, tokens / 500)
    assert (t.sent_per_s, t.ok_per_s) == (s.accounting.sent / 500, len(ok) / 500)
    agrees(t.user_tokens_per_s, [1 / tpot(r) for r in ok if tpot(r) > 0])
    assert t.without_usage == sum(r[R.output_tokens] is None for r in ok)
    start = R.sent_ns if anchor is Anchor.SENT else R.anchor_ns
    good = [
        r
        for r in ok
        if (r[R.first_token_ns] - r[start]) / 1e9 <= 2.0
        and (r[R.done_ns] - r[start]) / 1e9 <= 60.0
        and (r[R.output_tokens] == 1 or 0 <= tpot(r) <= 0.05)
    ]
    assert (s.goodput.good, s.goodput.per_s) == (len(good), len(good) / 500)
    assert s.goodput.share == (len(good) / planned if planned else None)
    assert s.success_rate == (len(ok) / planned if planned else None)
    check_objectives(s, rows, start)


def check_objectives(s: Summary, rows: list[Row], start: str) -> None:
    ok = [r for r in rows if r[R.outcome] == Outcome.OK]
    late = [r for r in rows if r[R.outcome] == Outcome.TIMEOUT]
    begun = [r for r in late if r[R.first_token_ns] is not None]
    values = {
        "ttft": seconds(ok + begun, R.first_token_ns, start) + [math.inf] * (len(late) - len(begun)),
        "e2e": seconds(ok, R.done_ns, start) + [math.inf] * len(late),
        "tpot": [tpot(r) for r in ok if tpot(r) >= 0],
    }
    for o in s.objectives:
        of = values[o.objective.metric]
        assert o.objective.percent is not None
        assert o.met == (bool(of) and quantile(of, o.objective.percent) <= o.objective.limit)


def check_groups(run: Any, rows: list[Row]) -> None:
    for by, key in [
        ("stage", lambda r: str(r[R.stage])),
        ("phase", lambda r: str(r[R.phase])),
        ("replica", lambda r: r[R.replica] or "(none)"),
        ("generator", lambda r: str(r[R.generator])),
        (30.0, lambda r: f"{30 * (r[R.anchor_ns] // (30 * 10**9))}s"),
    ]:
        grouping = summarise(run, Question(by=by)).grouping
        assert grouping is not None
        want = Counter(key(r) for r in rows)
        assert {g.name.split(" to ")[0]: g.requests for g in grouping.groups} == dict(want)
        for g in grouping.groups:
            mine = [r for r in rows if key(r) == g.name.split(" to ")[0]]
            ok = [r for r in mine if r[R.outcome] == Outcome.OK]
            assert g.ok == len(ok)
            assert g.output_tokens == sum(r[R.output_tokens] or 0 for r in mine)
            cut = sum(r[R.outcome] == Outcome.TIMEOUT for r in mine)
            agrees(g.e2e, seconds(ok, R.done_ns, R.anchor_ns), cut)
            agrees(g.tpot, [tpot(r) for r in ok if tpot(r) >= 0])
            agrees(g.lateness, seconds(mine, R.sent_ns, R.anchor_ns))


@given(
    run=a_run(),
    start=st.integers(0, 300),
    length=st.integers(1, 200),
    phase=st.sampled_from(list(PhaseFilter)),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_windows_and_phases_on_random_runs(
    tmp_path_factory: pytest.TempPathFactory,
    run: tuple[int, list[Row]],
    start: int,
    length: int,
    phase: PhaseFilter,
) -> None:
    planned, rows = run
    path = written(tmp_path_factory.mktemp("run") / "r", planned, rows)
    s = summarise(open_run(path), Question(window=(start, start + length), phase=phase))
    by_name = phase not in (PhaseFilter.AUTO, PhaseFilter.ALL)
    mine = [
        r
        for r in rows
        if start * 10**9 <= r[R.anchor_ns] < (start + length) * 10**9
        and (not by_name or r[R.phase] == phase.value)
    ]
    assert s.selected.rows == len(mine)
    check_latencies(s, mine)
    assert s.throughput.tokens_per_s == sum(r[R.output_tokens] or 0 for r in mine) / length
    check_accounting_of_all(s, planned, rows)


def check_accounting_of_all(s: Summary, planned: int, rows: list[Row]) -> None:
    """Whatever is selected, the accounting is of the whole run."""
    assert s.accounting.planned == planned
    assert sum(s.accounting.outcomes.values()) == planned
    assert s.accounting.outcomes["lost"] == planned - len(rows)


# --- one larger run, in SQL -------------------------------------------------------------------------


def test_a_larger_run_against_sql(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    rows = []
    for i in range(3000):
        sent = i * 0.01 + rng.exponential(0.001)
        first = sent + rng.lognormal(-1, 1)
        tokens = int(rng.integers(1, 200))
        rows.append(
            runs.ok(
                i,
                anchor_s=i * 0.01,
                sent_s=sent,
                first_s=first,
                done_s=first + tokens * rng.gamma(4, 0.004),
                tokens=tokens,
                generator=i % 3,
                stage=i // 1500,
            )
        )
    path = runs.write(tmp_path / "r", rows, load_total_s=60.0, batch_rows=100)
    run = open_run(path)
    requests = pa.Table.from_batches(list(run.batches(R, R.schema.names)))
    sql = duckdb.connect()
    sql.register("requests", requests)
    s = summarise(run, Question(percentiles=(50, 90, 99, 99.9)))
    for d, expression in [
        (s.lateness, "sent_ns - anchor_ns"),
        (s.latencies.ttft_scheduled, "first_token_ns - anchor_ns"),
        (s.latencies.ttft_sent, "first_token_ns - sent_ns"),
        (s.latencies.e2e_scheduled, "done_ns - anchor_ns"),
        (s.latencies.e2e_sent, "done_ns - sent_ns"),
        (s.latencies.tpot, "(last_token_ns - first_token_ns) / nullif(output_tokens - 1, 0)"),
    ]:
        assert d is not None
        for p in d.percentiles:
            (want,) = sql.execute(
                f"select quantile_disc(v, {p.percent / 100:.4g}) from (select {expression} v from requests)"
            ).fetchone() or (None,)
            assert p.value.value == pytest.approx(want / 1e9, rel=1e-12)
        n, mean, low, high = sql.execute(
            f"select count(v), avg(v), min(v), max(v) from (select {expression} v from requests)"
        ).fetchone() or (0, 0, 0, 0)
        assert (d.n, d.min) == (n, pytest.approx(low / 1e9))
        assert d.mean == pytest.approx(mean / 1e9)
        assert d.max is not None and d.max.value == pytest.approx(high / 1e9)


def test_a_run_too_large_for_one_pass_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        runs.ok(
            i,
            anchor_s=i,
            sent_s=i + i % 7 / 1e3,
            first_s=i + 0.2,
            done_s=i + i % 5,
            tokens=i % 9,
            stage=i % 2,
        )
        for i in range(1, 300)
    ]
    late = [runs.failed(0, Outcome.TIMEOUT, anchor_s=0, done_s=300.0)]
    run = open_run(runs.write(tmp_path / "r", made + late))
    question = Question(anchor=Anchor.SCHEDULED, by="generator", objectives=OBJECTIVES)
    whole = summarise(run, question)
    monkeypatch.setattr(rows_module, "BUDGET_BYTES", 1)
    assert len(passes(run.manifest.planned, parts=2)) == 6
    assert summarise(run, question) == whole


def test_small_batches_are_joined_and_nothing_is_lost() -> None:
    batches = [pa.record_batch({"x": list(range(n))}) for n in (1, 40_000, 30_000, 70_000, 2)]
    found = list(joined(iter(batches)))
    assert [b.num_rows for b in found] == [70_001, 70_000, 2]
    assert pa.Table.from_batches(found).equals(pa.Table.from_batches(batches).combine_chunks())


def test_reading_ahead_keeps_order_and_passes_failures_on() -> None:
    assert list(ahead(iter(range(100)))) == list(range(100))  # type: ignore[arg-type]

    def broken() -> Any:
        yield 1
        raise OSError("gone")

    found = ahead(broken())
    assert next(found) == 1
    with pytest.raises(OSError, match="gone"):
        next(found)
    left = ahead(itertools.count())  # type: ignore[arg-type]
    assert next(left) == 0
    left.close()  # type: ignore[attr-defined]


# --- states of a run --------------------------------------------------------------------------------


def test_an_empty_run(tmp_path: Path) -> None:
    s = summarise(open_run(runs.write(tmp_path / "r", [])))
    assert s.latencies.e2e_sent.n == 0
    assert (s.success_rate, s.goodput.share, s.throughput.tokens_per_s) == (None, None, None)
    assert not s.verdict.valid


def test_rows_that_repeat_or_were_never_planned_break_the_balance(tmp_path: Path) -> None:
    rows = [runs.ok(i, anchor_s=i, done_s=i + 1) for i in (0, 1, 1, 9)]
    plan = [{Schedule.request_id: i, Schedule.scheduled_ns: i} for i in range(3)]
    s = summarise(open_run(runs.write(tmp_path / "r", rows, schedule=plan)))
    assert (s.accounting.duplicates, s.accounting.unknown, s.accounting.balances) == (1, 1, False)
    assert any("DOES NOT BALANCE" in r for r in s.verdict.reasons)


@pytest.mark.parametrize(
    ("status", "age_s", "lost", "pending"),
    [
        (RunStatus.RUNNING, 0, 0, 2),
        (RunStatus.RUNNING, 60, 2, 0),
        (RunStatus.INTERRUPTED, 0, 2, 0),
        (RunStatus.COMPLETE, 0, 2, 0),
    ],
)
def test_requests_without_a_row_are_lost_unless_the_run_is_going(
    tmp_path: Path, status: RunStatus, age_s: int, lost: int, pending: int
) -> None:
    import time

    alive = time.time_ns() - age_s * 10**9
    plan = [{Schedule.request_id: i, Schedule.scheduled_ns: i} for i in range(3)]
    path = runs.write(tmp_path / "r", [runs.ok(1, anchor_s=0, done_s=1)], schedule=plan, status=status,
                      heartbeat_unix_ns=alive, created_unix_ns=alive)  # fmt: skip
    s = summarise(open_run(path))
    assert (s.accounting.outcomes["lost"], s.accounting.pending) == (lost, pending)
    assert s.accounting.balances
    assert (s.verdict.unfinished is None) == (status is RunStatus.COMPLETE)


def test_where_the_load_never_started_nothing_was_lost(tmp_path: Path) -> None:
    plan = [{Schedule.request_id: i, Schedule.scheduled_ns: i} for i in range(3)]
    path = runs.write(tmp_path / "r", [], schedule=plan, status=RunStatus.FAILED, t0_unix_ns=None)
    s = summarise(open_run(path))
    assert (s.accounting.outcomes["not_sent"], s.accounting.outcomes["lost"]) == (3, 0)
    assert s.accounting.balances


def test_lost_requests_belong_to_the_window_they_were_planned_in(tmp_path: Path) -> None:
    plan = [{Schedule.request_id: i, Schedule.scheduled_ns: i * 10**9} for i in range(10)]
    rows = [runs.ok(i, anchor_s=i, done_s=i + 0.5) for i in range(0, 10, 2)]
    path = runs.write(tmp_path / "r", rows, schedule=plan)
    s = summarise(open_run(path), Question(window=(2, 7)))
    assert s.success_rate == 3 / 5  # 2, 4, 6 of 2 to 6


def test_steady_rows_are_the_default_where_there_is_a_warm_up(tmp_path: Path) -> None:
    load = {"warmup": 2.0, "cooldown": 0.0, "stages": [{"duration": 10.0}]}
    plan = [{Schedule.request_id: i, Schedule.scheduled_ns: i * 10**9} for i in range(10)]
    rows = [
        runs.ok(i, anchor_s=i, done_s=i + 1, phase=Phase.WARMUP if i < 2 else Phase.STEADY) for i in (0, 2, 3)
    ]
    run = open_run(runs.write(tmp_path / "r", rows, schedule=plan, scenario={"load": load}))
    s = summarise(run)
    assert (s.selected.phase, s.selected.phase_is_default, s.selected.rows) == ("steady", True, 2)
    assert s.success_rate == 2 / 8
    assert s.accounting.planned == 10
    assert summarise(run, Question(phase=PhaseFilter.ALL)).selected.rows == 3


def test_a_closed_loop_has_no_figure_from_the_schedule(tmp_path: Path) -> None:
    rows = [runs.ok(i, sent_s=i, first_s=i + 1, done_s=i + 2) for i in range(4)]
    path = runs.write(tmp_path / "r", rows, load_kind=LoadKind.CLOSED)
    s = summarise(
        open_run(path), Question(anchor=Anchor.SCHEDULED, objectives=(Objective("ttft", 1.0, 99.0),))
    )
    assert (s.lateness, s.latencies.ttft_scheduled, s.latencies.e2e_scheduled) == (None, None, None)
    assert s.anchor is Anchor.SENT
    assert s.objectives[0].met
    assert len(s.oha) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"percentiles": (0,)},
        {"percentiles": (101,)},
        {"window": (5, 5)},
        {"by": "colour"},
        {"by": 0.0},
    ],
)
def test_questions_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"right|after"):
        Question(**wrong)


def test_objectives_have_names() -> None:
    assert Objective.of("ttft_p99", 2) == Objective("ttft", 2, 99.0)
    assert Objective.of("e2e_p99.9", 2).name == "e2e_p99.9"
    assert Objective.of("success_rate", 0.9) == Objective("success_rate", 0.9)
    for name in ("ttft", "ttft_p0", "speed_p99", "ttft_p100"):
        with pytest.raises(ValueError, match="ttft_p99 or e2e_p95"):
            Objective.of(name, 1)

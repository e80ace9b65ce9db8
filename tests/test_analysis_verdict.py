"""VALID or INVALID, each bound on both of its sides, and the exit code that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import runs

from raybench.analysis import Summary, summarise
from raybench.analysis.verdict import DEFAULTS, lateness_bound_s
from raybench.rundir import open_run
from raybench.scenario.models import Bounds
from raybench.schema import (
    ClockSample,
    Exit,
    Generators,
    Host,
    LoadKind,
    Outcome,
    Requests,
    RunStatus,
    Schedule,
)


def summary(tmp_path: Path, late_s: float = 0.001, rows: int = 200, **more: Any) -> Summary:
    """A run whose last 2% of requests are late by `late_s`."""
    made = [
        runs.ok(i, anchor_s=i, sent_s=i + (late_s if i >= rows * 0.98 else 0.0), first_s=i + 1, done_s=i + 2)
        for i in range(rows)
    ]
    return summarise(open_run(runs.write(tmp_path / "r", made, **more)))


def test_a_good_run_is_valid(tmp_path: Path) -> None:
    s = summary(tmp_path)
    assert (s.verdict.word, s.verdict.reasons, s.verdict.unfinished) == ("VALID", (), None)
    assert s.exit_code is Exit.GOOD


@pytest.mark.parametrize(
    ("late_s", "scenario", "valid"),
    [
        (0.0100, {}, True),
        (0.0101, {}, False),
        (0.0200, {"objectives": {"ttft_p99": 2.0}}, True),
        (0.0201, {"objectives": {"ttft_p99": 2.0, "e2e_p99": 90.0}}, False),
        (0.0101, {"objectives": {"ttft_p99": 5.0, "ttft_p50": 0.5}}, False),
        (0.0500, {"valid": {"lateness_p99": 0.05}}, True),
        (0.0010, {"valid": {"lateness_p99": 0.0009}}, False),
    ],
)
def test_lateness(tmp_path: Path, late_s: float, scenario: dict[str, Any], valid: bool) -> None:
    s = summary(tmp_path, late_s, scenario=scenario)
    assert s.verdict.valid is valid
    assert valid or "lateness p99" in s.verdict.reasons[0]


def test_a_capped_client_is_not_judged_by_lateness_unless_asked(tmp_path: Path) -> None:
    assert summary(tmp_path / "a", 5.0, load_kind=LoadKind.CAPPED).verdict.valid
    asked = {"valid": {"lateness_p99": 1.0}}
    assert not summary(tmp_path / "b", 5.0, load_kind=LoadKind.CAPPED, scenario=asked).verdict.valid


@pytest.mark.parametrize(("not_sent", "valid"), [(1, True), (2, False)])
def test_sent_at_least_99_percent(tmp_path: Path, not_sent: int, valid: bool) -> None:
    rows = [runs.ok(i, anchor_s=i, done_s=i + 1) for i in range(100)]
    for row in rows[:not_sent]:
        row |= {Requests.sent_ns: None, Requests.done_ns: None, Requests.outcome: Outcome.NOT_SENT}
    s = summarise(open_run(runs.write(tmp_path / "r", rows)))
    assert s.verdict.valid is valid


def test_a_lost_request_makes_it_invalid(tmp_path: Path) -> None:
    plan = [{Schedule.request_id: i, Schedule.scheduled_ns: i} for i in range(200)]
    rows = [runs.ok(i, anchor_s=0, done_s=1) for i in range(199)]
    s = summarise(open_run(runs.write(tmp_path / "a", rows, schedule=plan)))
    assert s.verdict.reasons == ("lost 1 requests (at most 0 allowed)",)
    assert s.exit_code is Exit.INVALID
    allowed = {"valid": {"lost": 1}}
    assert summarise(
        open_run(runs.write(tmp_path / "b", rows, schedule=plan, scenario=allowed))
    ).verdict.valid


@pytest.mark.parametrize(("uncertainty_ns", "valid"), [(5_000_000, True), (5_000_001, False)])
def test_clock_uncertainty(tmp_path: Path, uncertainty_ns: int, valid: bool) -> None:
    hosts = [Host("generator", 0, "far", "b", 1, None, [ClockSample(0, 0, uncertainty_ns)])]
    assert summary(tmp_path, hosts=hosts).verdict.valid is valid


def test_one_busy_second_is_a_hiccup_and_five_are_not(tmp_path: Path) -> None:
    def of(name: str, *cpu: float) -> bool:
        rows = [{Generators.t_ns: (i + 1) * 10**9, Generators.cpu_ratio: c} for i, c in enumerate(cpu)]
        return summary(tmp_path / name, generators=rows).verdict.valid

    assert of("hiccup", 0.5, 0.5, 1.0, 0.5, 0.5, 0.5)
    assert not of("busy", 0.1, 0.1, 1.0, 1.0, 1.0, 1.0, 1.0, 0.1)
    assert not of("short", 0.95)


@pytest.mark.parametrize("status", [RunStatus.INTERRUPTED, RunStatus.FAILED, RunStatus.RUNNING])
def test_an_unfinished_run_is_incomplete_first(tmp_path: Path, status: RunStatus) -> None:
    s = summary(tmp_path, 5.0, status=status, scenario={"objectives": {"ttft_p99": 0.1}})
    assert s.verdict.unfinished
    assert not s.verdict.valid
    assert s.exit_code is Exit.INCOMPLETE


def test_missed_objectives_come_after_an_invalid_run(tmp_path: Path) -> None:
    missed = {"objectives": {"ttft_p99": 0.5}}
    assert summary(tmp_path / "a", scenario=missed).exit_code is Exit.OBJECTIVES_MISSED
    assert summary(tmp_path / "b", 5.0, scenario=missed).exit_code is Exit.INVALID


def test_defaults_are_those_of_the_scenario() -> None:
    bounds = Bounds().model_dump()
    assert {k: bounds[k] for k in DEFAULTS} == DEFAULTS
    assert set(bounds) == {*DEFAULTS, "lateness_p99"}
    assert lateness_bound_s({}, ()) == 0.010

"""Calibration: what is kept, when it counts, and what `generators: auto` and the verdict make of it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import runs
import yaml
from click.testing import CliRunner

from raybench import schedule
from raybench.analysis import summarise
from raybench.cli.main import main
from raybench.fleet import calibration, crew
from raybench.fleet.calibration import Calibration
from raybench.fleet.conductor import Conductor
from raybench.fleet.output import Output
from raybench.generator.selftest import Floor
from raybench.report import render
from raybench.rundir import open_run
from raybench.scenario import Scenario, load

FLOOR = Floor(
    requests_per_s=10_000.0,
    cpu_s_per_request=1e-4,
    chunks_per_s=400_000.0,
    cpu_s_per_1000_chunks=2e-3,
    cpu_s_per_1000_lone_chunks=1e-2,
    server_chunks_per_s=2e6,
    rate_per_s=100.0,
    lateness_p50_ns=20_000,
    lateness_p99_ns=400_000,
    ttft_error_p50_ns=300_000,
    ttft_error_p99_ns=2_000_000,
    gap_error_p50_ns=100_000,
    gap_error_p99_ns=900_000,
    failures=0,
)
ONE = Calibration("here", 1, 2, 1.7e9, FLOOR)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "raybench"


def scenario(path: Path, rate: str, **request: Any) -> Scenario:
    stage = {"duration": "3s", "arrival": {"process": "constant", "rate": rate}}
    given = {
        "name": "t",
        "target": {"url": "http://127.0.0.1:9", "model": "m"},
        "load": {"stages": [stage], "request": {"prompt": "x", **request}},
    }
    path.write_text(yaml.safe_dump(given))
    return load(path)


# --- what is kept -----------------------------------------------------------------------------------------


def test_what_was_kept_is_found_again_for_its_own_number_only(cache: Path) -> None:
    assert calibration.cached(1) is None
    assert calibration.keep(ONE).parent == cache
    assert calibration.cached(1) == ONE
    assert calibration.cached(2) is None


def test_without_a_cache_directory_of_its_own_it_is_below_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert calibration.cache_directory() == tmp_path / ".cache" / "raybench"


@pytest.mark.parametrize(
    "key", ["hostname", "kernel", "cpu", "cores", "raybench", "python", "uvloop", "httptools"]
)
def test_another_machine_or_version_does_not_count(cache: Path, key: str) -> None:
    path = calibration.keep(ONE)
    kept = json.loads(path.read_text())
    kept["identity"][key] = "another"
    path.write_text(json.dumps(kept))
    assert calibration.cached(1) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kept: kept | {"format_version": calibration.FORMAT_VERSION + 1},
        lambda kept: {k: v for k, v in kept.items() if k != "calibration"},
        lambda kept: kept | {"calibration": {}},
        lambda kept: kept | {"calibration": kept["calibration"] | {"cpu_s_per_request": "fast"}},
        lambda kept: kept | {"calibration": kept["calibration"] | {"cpu_s_per_request": math.nan}},
        lambda kept: kept | {"calibration": kept["calibration"] | {"failures": 1}},
        lambda kept: kept | {"calibration": kept["calibration"] | {"generators": 2}},
        lambda kept: kept | {"calibration": kept["calibration"] | {"more": 2}},
        lambda kept: [],
    ],
)  # fmt: skip
def test_a_file_that_is_not_right_does_not_count(cache: Path, spoil: Any) -> None:
    path = calibration.keep(ONE)
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    assert calibration.cached(1) is None
    path.write_text("{")
    assert calibration.cached(1) is None


def test_of_several_at_once_the_worst_counts() -> None:
    slow = replace(FLOOR, requests_per_s=5.0, cpu_s_per_request=1.0, lateness_p99_ns=9, failures=2)
    found = calibration.worst([slow, FLOOR, replace(FLOOR, failures=1)])
    assert asdict(found) == asdict(FLOOR) | {"requests_per_s": 5.0, "cpu_s_per_request": 1.0, "failures": 3}


def test_one_machine_measured(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "TRIAL_S", 0.1)
    done = CliRunner().invoke(main, ["calibrate", "--format", "json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["generators"], said["rate_per_s"], said["failures"]) == (1, 100.0, 0)
    kept = calibration.cached(1)
    assert kept is not None and kept.as_dict() == said
    again = CliRunner().invoke(main, ["calibrate"])
    assert "calibrating" not in again.stderr, "it is kept"
    assert kept.hostname in again.stdout and "lateness" in again.stdout


def test_a_scenario_says_how_many_and_how_fast(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, float]] = []

    def measure(generators: int, rate_per_s: float) -> Calibration:
        asked.append((generators, rate_per_s))
        floor = replace(FLOOR, rate_per_s=rate_per_s)
        return replace(ONE, generators=generators, floor=floor)

    monkeypatch.setattr(calibration, "measure", measure)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    scenario(tmp_path / "s.yaml", "100/s", max_tokens=100)  # 0.01 + 0.1 of a core: one will do
    assert CliRunner().invoke(main, ["calibrate", "--scenario", str(tmp_path / "s.yaml")]).exit_code == 0
    assert asked == [(1, 100.0)]
    scenario(tmp_path / "s.yaml", "900/s", max_tokens=100)  # 0.99 of a core: two at half a core each
    assert CliRunner().invoke(main, ["calibrate", "--scenario", str(tmp_path / "s.yaml")]).exit_code == 0
    assert asked[1:] == [(1, 900.0), (2, 450.0)]
    done = CliRunner().invoke(main, ["calibrate", "--scenario", str(tmp_path / "none.yaml")])
    assert done.exit_code == 2 and "none.yaml" in done.stderr


def test_a_failed_self_test_says_why(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    done = CliRunner().invoke(main, ["calibrate"])
    assert done.exit_code == 1 and "the self-test failed" in done.stderr
    assert not cache.exists()


def test_a_run_is_stamped_with_the_calibration_of_its_own_number(cache: Path, tmp_path: Path) -> None:
    calibration.keep(replace(ONE, generators=2))
    for generators, known in ((2, True), (3, False)):
        scenario(tmp_path / "s.yaml", "10/s")
        asked = load(tmp_path / "s.yaml", {"load.generators": generators})
        stamped = Conductor(asked, Output(tmp_path / "run")).manifest.calibration
        assert stamped == (replace(ONE, generators=2).as_dict() if known else None)


# --- generators: auto -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "tokens", "wanted"),
    [("10/s", 100, 1), ("400/s", 100, 1), ("500/s", 100, 2), ("1000/s", 300, 7), ("2000/s", 1000, 8)],
)  # fmt: skip
def test_auto_counts_on_calibrated_headroom(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: str, tokens: int, wanted: int
) -> None:
    """At half a core each: rate · (0.1 ms + tokens · 10 µs) / 0.5, and no more than the 8 cores."""
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    calibration.keep(ONE)
    asked = scenario(tmp_path / "s.yaml", rate, max_tokens=tokens)
    per_s = float(rate.removesuffix("/s"))
    assert wanted == min(8, math.ceil(per_s * (1e-4 + tokens * 1e-5) / 0.5))
    assert crew.how_many(asked, schedule.build(asked)) == wanted


def test_auto_without_a_calibration_counts_requests(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    asked = scenario(tmp_path / "s.yaml", "2500/s", max_tokens=100)
    assert crew.how_many(asked, schedule.build(asked)) == 3


def test_an_answer_without_a_limit_is_expected_to_have_some_length(tmp_path: Path) -> None:
    plan = schedule.build(scenario(tmp_path / "s.yaml", "5/s"))
    assert calibration.busiest_second(plan) == (5, 5.0 * calibration.TOKENS_UNKNOWN)
    assert calibration.busiest_second(plan.slice(0, 0)) == (0, 0.0)


# --- what a report makes of it ----------------------------------------------------------------------------


def report(tmp_path: Path, chunks: int, hosts: tuple[str, ...] = (), **more: Any) -> tuple[Any, str]:
    """100 requests in the first second, each with so many chunks over the second after it."""
    from raybench.schema import Host

    rows = [
        runs.ok(i, anchor_s=i / 100, first_s=1.0, last_s=2.0, done_s=2.0, chunks=chunks) for i in range(100)
    ]
    path = runs.write(
        tmp_path,
        rows,
        calibration=ONE.as_dict(),
        hosts=[Host("generator", i, name, "b", 1) for i, name in enumerate(hosts)],
        **more,
    )
    summary = summarise(open_run(path))
    return summary.verdict, render(summary, "text")


@pytest.mark.parametrize(("chunks", "valid"), [(3999, True), (4001, False)])
def test_a_generator_beyond_its_capacity_makes_a_run_invalid(
    tmp_path: Path, chunks: int, valid: bool
) -> None:
    """2 µs a chunk: 400,000 in the second are 80% of a core."""
    judged, text = report(tmp_path / "r", chunks)
    assert judged.valid is valid
    assert any("80% of its calibrated capacity" in check for check in judged.checks), judged.checks
    assert "400,000 chunks/s" in text and "lateness p99 400 µs at 100/s" in text


@pytest.mark.parametrize(("limit_s", "valid"), [(0.041, True), (0.039, False)])
def test_ttft_that_cannot_be_measured_well_enough_makes_a_run_invalid(
    tmp_path: Path, limit_s: float, valid: bool
) -> None:
    """2 ms of error are 5% of 40 ms."""
    judged, _ = report(tmp_path / "r", 1, scenario={"objectives": {"ttft_p99": limit_s}})
    assert judged.valid is valid
    assert any("calibrated error of TTFT" in check for check in judged.checks)


def test_generators_on_other_hosts_are_not_judged_by_this_ones_calibration(tmp_path: Path) -> None:
    judged, text = report(tmp_path / "r", 10**6, hosts=("here", "far"))
    assert judged.valid and not any("calibrated" in check for check in judged.checks)
    assert "not of far, where generators ran" in text


def test_without_a_calibration_a_run_is_valid_and_says_what_to_do(tmp_path: Path) -> None:
    path = runs.write(tmp_path / "r", [runs.ok(0, anchor_s=0, first_s=0.1, done_s=0.2)])
    summary = summarise(open_run(path))
    assert summary.verdict.valid
    assert "not calibrated; run `raybench calibrate`" in render(summary, "text")
    assert json.loads(render(summary, "json"))["header"]["calibration"] is None


def test_the_json_report_holds_the_calibration(tmp_path: Path) -> None:
    path = runs.write(tmp_path / "r", [runs.ok(0, anchor_s=0, done_s=1)], calibration=ONE.as_dict())
    assert json.loads(render(summarise(open_run(path)), "json"))["header"]["calibration"] == ONE.as_dict()

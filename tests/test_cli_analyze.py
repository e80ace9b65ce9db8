"""`raybench analyze` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import runs
from click.testing import CliRunner, Result

from raybench.cli.main import main
from raybench.schema import Outcome, RunStatus, Schedule


def analyze(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["analyze", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = [
        runs.ok(
            i, anchor_s=i, sent_s=i + 0.001, first_s=i + 0.5, done_s=i + 1 + i / 100, tokens=11, stage=i // 50
        )
        for i in range(100)
    ]
    return runs.write(tmp_path / "run", rows, load_total_s=101.0, scenario={"objectives": {"ttft_p99": 2.0}})


def test_the_report(run: Path) -> None:
    result = analyze(run)
    assert result.exit_code == 0
    assert "VALID" in result.output
    assert "By stage" in result.output


def test_a_copy_gives_the_same_report(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(run, tmp_path / "elsewhere" / "run")
    assert analyze(copy, "--format", "json").output == analyze(run, "--format", "json").output


def test_ask_again_in_another_way(run: Path) -> None:
    asked = (
        "--format json --window 10s:50s --anchor sent --percentiles 50,99.9 --objective e2e_p50=1s "
        "--objective success_rate=99% --by generator"
    )
    report = json.loads(analyze(run, *asked.split()).output)
    assert report["selected"]["rows"] == 40
    assert report["selected"]["window_s"] == [10.0, 50.0]
    assert report["anchor"] == "sent"
    assert report["percentiles"] == [50, 99.9]
    assert [(o["objective"]["metric"], o["met"]) for o in report["objectives"]] == [
        ("e2e", False),
        ("success_rate", True),
    ]
    assert report["grouping"]["by"] == "generator"
    assert report["exit_code"] == 3
    assert analyze(run, "--window", "90s:").exit_code == 0
    assert json.loads(analyze(run, "--window", ":5s", "--format", "json").output)["selected"]["rows"] == 5


def test_exit_codes(tmp_path: Path, run: Path) -> None:
    rows = [runs.ok(0, anchor_s=0, done_s=1)]
    plan = [{Schedule.request_id: i, Schedule.scheduled_ns: 0} for i in range(2)]
    stale = {"status": RunStatus.RUNNING, "heartbeat_unix_ns": 0, "created_unix_ns": 0}
    lost = runs.write(tmp_path / "lost", rows, schedule=plan)
    killed = runs.write(tmp_path / "killed", rows, schedule=plan, **stale)
    assert analyze(run, "--objective", "ttft_p99=1ms").exit_code == 3
    assert analyze(lost).exit_code == 4
    assert analyze(killed).exit_code == 5
    assert "killed" in analyze(killed).output
    assert analyze(run, lost).exit_code == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "10"], "--window 10: two times with a colon are right, such as 10s:50s, 5m: or :1h"),
        (["--window", "1:2"], "--window 1: a time with its unit is right, such as 10s"),
        (["--window", "9s:2s"], "its end must lie after its start"),
        (["--percentiles", "p50"], "--percentiles p50: numbers with commas are right"),
        (["--percentiles", "0"], "percentile 0: a number above 0 and up to 100 is right"),
        (["--objective", "ttft_p99"], "--objective ttft_p99: NAME=LIMIT is right"),
        (["--objective", "speed_p99=1s"], "objective 'speed_p99': success_rate, or one of ttft, tpot, e2e"),
        (["--objective", "ttft_p99=2"], "--objective ttft_p99 2: a time with its unit is right"),
        (["--objective", "success_rate=2"], "a percentage is right, such as success_rate=99.9%"),
        (
            ["--by", "colour"],
            "--by colour: stage, phase, replica, generator or a length such as 10s is right",
        ),
    ],
)
def test_mistakes_are_answered_with_what_is_right(run: Path, options: list[str], message: str) -> None:
    result = analyze(run, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_not_a_run(tmp_path: Path) -> None:
    result = analyze(tmp_path)
    assert result.exit_code == 2
    assert "not a run directory" in result.stderr


def test_several_runs_side_by_side(run: Path, tmp_path: Path) -> None:
    other = runs.write(tmp_path / "other", [runs.failed(0, Outcome.TIMEOUT, anchor_s=0, done_s=300)])
    result = analyze(run, other)
    assert "Runs side by side" in result.output
    assert "other" in result.output


def test_analysis_needs_no_ray(run: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['ray'] = None\n"
        "from raybench.cli.main import main\n"
        f"main(['analyze', {str(run)!r}], standalone_mode=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "VALID" in done.stdout

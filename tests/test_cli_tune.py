"""The command on the real simulator: what it finds, prints, writes and leaves with."""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import raybench.tuning.trial as trials
from raybench.analysis import summarise
from raybench.cli.main import main
from raybench.scenario import Autoscaling, Scenario, load
from raybench.schema import Exit
from raybench.simulator import simulate
from raybench.tuning.trial import with_autoscaling

SMALL = """
name: small
seed: 3
deployment:
  engine: emulated
  model: m
  slots_per_replica: 2
  emulated: {startup: 1s, output_tokens: {distribution: fixed, mean: 32}}
  autoscaling: {autoscaling_window: 2s, min_replicas: 1, max_replicas: 2}
load:
  stages: [{duration: 6s, arrival: {process: poisson, rate: 2/s}}]
  request: {prompt: hello, max_tokens: 64, timeout: 20s}
  settle: {until: min_replicas, at_most: 30s}
objectives: {e2e_p95: 6s, success_rate: 99%}
"""
VARY = ["--vary", "min_replicas=0,1", "--vary", "max_replicas=1,2", "--repeats", "40"]
TWO = ["--vary", "max_replicas=1,2", "--repeats", "36"]


KNOWN: dict[tuple[object, ...], trials.Trial] = {}


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run is simulated once for all tests of this process: it is always the same."""
    real = trials.trial

    def known(scenario: Scenario, against: trials.Against, scaling: Autoscaling, repeat: int) -> trials.Trial:
        key = scenario.model_dump_json(), against, scaling.model_dump_json(), repeat
        if key not in KNOWN:
            KNOWN[key] = real(scenario, against, scaling, repeat)
        return KNOWN[key]

    monkeypatch.setattr(trials, "trial", known)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return path


def tune(*arguments: object, workers: int = 1) -> Result:
    given = [str(a) for a in arguments]
    return CliRunner().invoke(main, ["tune", *given, "--workers", str(workers)])


def as_json(*arguments: object, workers: int = 1) -> dict[str, Any]:
    done = tune(*arguments, "--format", "json", workers=workers)
    assert done.exit_code in (Exit.GOOD, Exit.OBJECTIVES_MISSED), done.output
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["exit_code"] == done.exit_code
    return found


@pytest.fixture
def found(small: Path) -> dict[str, Any]:
    return as_json(small, *VARY, "--price-per-replica-hour", "3.6")


def test_its_figures_are_those_of_the_reports_of_the_same_simulated_runs(
    found: dict[str, Any], small: Path
) -> None:
    scenario = load(small)
    assert scenario.deployment is not None
    for setting in found["settings"]:
        own = scenario.deployment.autoscaling.model_dump() | setting["values"]
        scaled = with_autoscaling(scenario, Autoscaling.model_validate(own))
        summaries = [summarise(simulate(scaled, repeat=k)) for k in range(setting["runs"])]
        seconds = [s.bill.replica_seconds for s in summaries if s.bill is not None]
        assert setting["replica_seconds"] == pytest.approx(statistics.fmean(seconds))  # type: ignore[type-var]
        assert setting["cost"] == pytest.approx(setting["replica_seconds"] / 1000)
        assert setting["met"] == sum(s.exit_code == Exit.GOOD for s in summaries)
        assert setting["goodput_per_s"] == pytest.approx(
            statistics.fmean(s.goodput.good for s in summaries) / 6
        )
        e2e = sorted(s.latencies.e2e_scheduled.at(95).value for s in summaries)  # type: ignore[union-attr]
        assert setting["objectives"]["e2e_p95"]["value"] == e2e[(len(e2e) - 1) // 2]


def test_what_it_chooses_is_at_least_as_good_as_the_scenarios_own(found: dict[str, Any]) -> None:
    assert found["exit_code"] == Exit.GOOD and found["random"] is True
    chosen = found["settings"][found["chosen"]]
    own = found["settings"][0]
    assert own["values"] == {"min_replicas": 1, "max_replicas": 2}
    assert chosen["replica_seconds"] <= own["replica_seconds"]
    passed = next(c for c in found["confirmations"] if c["passed"])
    assert passed["setting"] == found["chosen"] and passed["least_share"] >= found["share"]
    assert found["saving"]["runs"] == 40
    dearer = [s for s in found["settings"] if s["met"] == s["runs"]]
    assert chosen["replica_seconds"] == min(s["replica_seconds"] for s in dearer)


def test_text_and_markdown_say_what_json_holds(found: dict[str, Any], small: Path) -> None:
    text = tune(small, *VARY, "--price-per-replica-hour", "3.6", "--all")
    assert text.exit_code == Exit.GOOD
    lines = text.stdout.splitlines()
    for s in found["settings"]:
        row = next(line for line in lines if line.split()[:1] == [str(s["number"])])
        assert f"{s['met']}/{s['runs']}" in row and f"{s['replica_seconds']:,.1f}" in row
        if s["fate"] == "dominated":
            assert f"dominated by #{s['by']}" in row
    assert any(" own" in line for line in lines)
    chosen = next(line for line in lines if "CHOSEN" in line)
    assert chosen.split()[0] == str(found["chosen"])
    assert f"{found['saving']['share'] * 100:.4g}% less" in " ".join(text.stdout.split())
    assert found["confirming_scenario"].rstrip() in text.stdout
    markdown = tune(small, *VARY, "--format", "markdown").stdout
    assert markdown.startswith("# Tuning small") and "| CHOSEN |" in markdown.replace(", own", "")
    assert "```\n# Found by raybench tune" in markdown


def test_the_result_is_the_same_with_two_processes(
    found: dict[str, Any], small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # nothing is known beforehand there
    assert as_json(small, *VARY, "--price-per-replica-hour", "3.6", workers=2) == found


def test_the_scenario_that_it_writes_is_one_and_is_not_overwritten(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "sub" / "tuned.yaml"
    missing = tune(small, *VARY, "--write", file)
    assert missing.exit_code == Exit.USAGE and "there is no directory" in missing.output
    file.parent.mkdir()
    done = tune(small, *TWO, "--write", file, "--objective", "e2e_p95=7s", "--seed", 9)
    assert done.exit_code == Exit.GOOD and f"raybench run {file}" in done.stdout
    written = load(file)
    assert written.name == "small-tuned" and written.seed == 9
    assert [(o.key, o.seconds) for o in written.objectives.limits] == [("e2e_p95", 7.0)]
    assert written.load == load(small).load
    again = tune(small, *VARY, "--write", file)
    assert again.exit_code == Exit.USAGE and "--force" in again.output


def test_where_nothing_is_good_enough_it_says_so_and_names_the_nearest(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "tuned.yaml"
    done = tune(small, *TWO, "--objective", "ttft_p99=1ms", "--write", file)
    assert done.exit_code == Exit.OBJECTIVES_MISSED
    text = " ".join(done.stdout.split())
    assert "NO SETTING" in text and "The nearest is #" in text and "ttft_p99 missed in" in text
    assert "success_rate is no objective here" in text
    assert not file.exists() and "nothing to confirm" in done.stderr


def test_against_a_latency_the_frontier_is_of_that(small: Path) -> None:
    got = as_json(small, *TWO, "--against", "ttft_p95")
    every = got["settings"]
    best = [(every[i]["replica_seconds"], every[i]["against"]) for i in got["frontier"]]
    assert all(a[0] < b[0] and a[1] > b[1] for a, b in itertools.pairwise(best))
    assert {s["number"] for s in every if s["fate"] == "frontier"} == set(got["frontier"])
    head = next(
        line for line in tune(small, *TWO, "--against", "ttft_p95").stdout.splitlines() if "goodput " in line
    )
    assert head.split()[-4:] == ["goodput", "ttft_p95", "success_rate", "e2e_p95"]


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        (lambda t: t.split("deployment:")[0] + "target: {url: 'http://127.0.0.1:1', model: m}\nload:"
         + t.split("load:")[1], [], "target: cannot be tuned"),
        (lambda t: t.split("objectives:")[0], [], "objectives: value missing"),
        (lambda t: t.replace("duration: 6s", "duration: 6"), [], "load.stages[0].duration: value 6:"),
        (lambda t: t, ["--vary", "foo=1"], "--vary foo: queue_depth has no such setting"),
        (lambda t: t, ["--vary", "autoscaling_window=5"], "value 5: a duration needs a unit"),
        (lambda t: t, ["--against", "speed"], "--against: value 'speed': goodput, or a latency"),
        (lambda t: t, ["--objective", "ttft_p99"], "NAME=LIMIT is right"),
        (lambda t: t, ["--objective", "speed=2s"], "objectives.speed: value '2s': not an objective"),
        (lambda t: t, ["--confidence", "often"], "a percentage is right, such as 95%"),
        (lambda t: t, ["--repeats", "20"], "repeats 20: too few"),
        (lambda t: t, ["--policy", "best"], "--policy best: no policy 'best'"),
    ],
)  # fmt: skip
def test_bad_input_is_said_in_one_line_and_leaves_with_2(
    small: Path, change: Callable[[str], str], arguments: list[str], said: str
) -> None:
    small.write_text(change(SMALL), encoding="utf-8")
    done = tune(small, *arguments)
    assert done.exit_code == Exit.USAGE and said in done.output, done.output
    assert len(done.stderr.strip().splitlines()) == 1 or "Usage:" in done.stderr


def test_ctrl_c_prints_what_is_known_and_leaves_with_5(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = trials.trial, 0

    def stopped(*arguments: Any) -> trials.Trial:
        nonlocal calls
        calls += 1
        if calls > 60:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(trials, "trial", stopped)
    done = tune(small, *VARY)
    assert done.exit_code == Exit.INCOMPLETE, done.output
    assert "INTERRUPTED after 60 simulated runs" in done.stdout and "The best so far is #" in done.stdout


def test_ctrl_c_ends_the_processes_too_and_shows_no_traceback(small: Path) -> None:
    """As a terminal does it: every process of the group gets the signal."""
    command = [sys.executable, "-m", "raybench", "tune", str(small), "--workers", "2", *TWO[:2]]
    command += ["--repeats", "100000"]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whatever started these tests in the background may have left the signal ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert running.stderr is not None
    try:
        for line in running.stderr:
            if "confirming" in line:
                break
        os.killpg(running.pid, signal.SIGINT)
        out, err = running.communicate(timeout=60)
    except BaseException:
        os.killpg(running.pid, signal.SIGKILL)
        raise
    assert running.returncode == Exit.INCOMPLETE, out + err
    assert "INTERRUPTED" in out and "before the interruption" in out and "Traceback" not in out + err
    for _ in range(300):  # those that end are gone once somebody has asked for them
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("processes of the group are still there")


def test_a_policy_that_fails_in_a_run_is_a_failure_that_names_the_setting(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "class Broken:\n"
        "    name = 'broken'\n"
        "    def __init__(self, max_replicas: int): pass\n"
        "    def decide(self, seen): raise RuntimeError('no idea')\n"
        "    def next_decision_s(self, seen): return seen.now_s\n"
    )
    (tmp_path / "tuned_broken.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    def broken(*arguments: Any) -> trials.Trial:
        raise RuntimeError("no idea")

    monkeypatch.setattr(trials, "trial", broken)
    done = tune(small, "--policy", "tuned_broken:Broken")
    assert done.exit_code == Exit.FAILURE and "setting #0, repeat 0: RuntimeError: no idea" in done.stderr

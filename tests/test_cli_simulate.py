"""`raybench simulate` as somebody calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raybench.cli.main import main
from raybench.rundir import open_run
from raybench.schema import TABLES, Requests

SCENARIO = """
name: small
seed: 3
deployment:
  model: m
  slots_per_replica: 2
  emulated: {preset: demo, startup: 1s, output_tokens: {distribution: exponential, mean: 40}}
  autoscaling: {autoscaling_window: 3s, min_replicas: 0, max_replicas: 2}
load:
  stages: [{duration: 20s, arrival: {process: poisson, rate: 2/s}}]
  request: {prompt: "Why?", timeout: 60s}
objectives: {e2e_p95: 60s}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["simulate", *map(str, arguments)])


def test_a_run_directory_like_that_of_a_live_run(scenario: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call(scenario, "-o", out)
    assert done.exit_code == 0, done.output
    assert "SIMULATED" in done.stdout and str(out) in done.stderr
    assert (out / "report.txt").read_text(encoding="utf-8").rstrip() == done.stdout.rstrip()
    assert "<svg" in (out / "report.html").read_text(encoding="utf-8")
    run = open_run(out)
    assert run.manifest.exit_code == 0 and run.manifest.measured["simulated"] is True
    for table in TABLES:
        assert sum(b.num_rows for b in run.batches(table, list(table.columns))) > 0, table.name
    # And every other command takes it.
    again = CliRunner().invoke(main, ["analyze", str(out), "--by", "replica"])
    assert again.exit_code == 0 and "SIMULATED" in again.stdout
    compared = CliRunner().invoke(main, ["compare", str(out), str(out)])
    assert compared.exit_code == 0, compared.output


def test_the_seed_and_the_policy_can_be_others(scenario: Path, tmp_path: Path) -> None:
    runs = {}
    for name, more in {"own": [], "same": [], "seed": ["--seed", 4], "policy": ["--policy", "fixed"]}.items():
        assert call(scenario, "-o", tmp_path / name, *more).exit_code == 0
        run = open_run(tmp_path / name)
        runs[name] = [b.column(0).to_pylist() for b in run.batches(Requests, [Requests.done_ns])]
    assert runs["own"] == runs["same"] != runs["seed"]
    assert open_run(tmp_path / "policy").manifest.scenario["deployment"]["autoscaling"]["policy"] == "fixed"


def test_repeats_have_bands_in_every_format(scenario: Path, tmp_path: Path) -> None:
    text = call(scenario, "-o", tmp_path / "a", "--repeats", 3, "--workers", 1)
    assert text.exit_code == 0, text.output
    assert "Repeats\n-------" in text.stdout and "3 repeats" in text.stdout
    assert "3 repeats" in (tmp_path / "a" / "report.txt").read_text(encoding="utf-8")
    asjson = call(scenario, "-o", tmp_path / "b", "--repeats", 3, "--workers", 2, "--format", "json")
    found = json.loads(asjson.stdout)
    assert found["repeats"]["repeats"] == 3
    band = found["repeats"]["figures"]["e2e_p50_s"]
    assert band["p5"] <= band["p50"] <= band["p95"]
    assert found["report"]["exit_code"] == 0


def test_what_cannot_be_simulated_is_said_in_a_line(scenario: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.yaml"
    target.write_text(
        "name: t\ntarget: {url: 'http://127.0.0.1:1', model: m}\n"
        "load: {stages: [{duration: 1s, arrival: {process: constant, rate: 1/s}}], request: {prompt: x}}\n",
        encoding="utf-8",
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments, words in (
        ([target], "target: only a deployment can be simulated"),
        ([tmp_path / "none.yaml"], "No such file"),
        ([scenario, "--policy", "nothing"], "no such policy"),
        ([scenario, "-o", tmp_path / "full"], "new or empty"),
    ):
        done = call(*arguments)
        assert done.exit_code == 2
        assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_missed_objectives_are_an_exit_code(scenario: Path, tmp_path: Path) -> None:
    scenario.write_text(SCENARIO.replace("e2e_p95: 60s", "e2e_p95: 100ms"), encoding="utf-8")
    assert call(scenario, "-o", tmp_path / "out").exit_code == 3

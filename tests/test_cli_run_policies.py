"""`raybench run` with several policies, and with a capacity: what it refuses, runs and prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import runs
import yaml
from click.testing import CliRunner, Result

import raybench.fleet.cluster
import raybench.fleet.conductor
from raybench import schedule
from raybench.cli import several
from raybench.cli.main import main
from raybench.rundir import capacity as files
from raybench.rundir import open_run
from raybench.scenario import load
from raybench.schema import EventKind, RunStatus
from raybench.schema.capacity import CapacityRun


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    given = {
        "name": "small",
        "deployment": {"engine": "emulated", "model": "m", "slots_per_replica": 4,
                       "autoscaling": {"policy": "hpa", "policy_options": {"target_average_value": 3}}},
        "load": {"stages": [{"duration": "10s", "arrival": {"process": "constant", "rate": "10/s"}}],
                 "request": {"prompt": "x"}},
        "objectives": {"ttft_p95": "1s"},
    }  # fmt: skip
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


def replica_events(from_s: float, to_s: float) -> list[dict[str, Any]]:
    """One replica, asked for and running from the first instant on, gone at the second."""
    return [
        runs.event(from_s, EventKind.DECISION, "fixed", **{"from": 0, "to": 1, "reason": "because"}),
        runs.event(from_s, EventKind.REPLICA_STATE, "r1", state="running"),
        runs.event(to_s, EventKind.REPLICA_STATE, "r1", state="stopping"),
        runs.event(to_s, EventKind.REPLICA_STATE, "r1", state="stopped"),
    ]


class Made:
    """In place of the conductor: its run is written at once, TTFT as the policy's name is long."""

    deploying = False
    made: ClassVar[list[Any]] = []
    during: ClassVar[Callable[[Any], None] | None] = None

    def __init__(self, checked: Any, output: Any, *, private: bool = False) -> None:
        self.scenario, self.output, self.private = checked, output, private
        self.interrupted = False
        self.code: int | None = None
        Made.made.append(self)

    def watch(self, watcher: Any) -> None: ...

    def interrupt(self) -> None:
        self.interrupted = True

    def run(self) -> None:
        if Made.during is not None:
            Made.during(self)
        plan = schedule.build(self.scenario)
        took = len(self.scenario.deployment.autoscaling.policy) / 100
        rows = [runs.ok(i, anchor_s=i / 10, first_s=i / 10 + took, done_s=i / 10 + 0.5) for i in range(100)]
        runs.write(
            self.output.path,
            rows,
            events=replica_events(0.0, 20.0),
            scenario=self.scenario.model_dump(mode="json"),
            schedule_sha256=schedule.digest(plan),
            status=RunStatus.INTERRUPTED if self.interrupted else RunStatus.COMPLETE,
            load_total_s=10.5,
            measured={"autoscaling": self.scenario.deployment.autoscaling.model_dump(mode="json")},
        )

    def close(self, code: int) -> bool:
        self.code = code
        return True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    @contextmanager
    def nowhere(address: str | None = None) -> Iterator[bool]:
        yield True

    monkeypatch.setattr(raybench.fleet.conductor, "Conductor", Made)
    monkeypatch.setattr(raybench.fleet.cluster, "attached", nowhere)
    monkeypatch.setattr(several, "on_signals", lambda job, what="": None)
    Made.made, Made.during = [], None
    yield Made.made
    Made.during = None


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


def capacity_run(path: Path, scenario: Path, **more: Any) -> Path:
    path.mkdir()
    dump = load(scenario).model_dump(mode="json")
    values: dict[str, Any] = {"status": RunStatus.COMPLETE, "requests_per_s": 5.0, "found": True} | more
    files.write(path, CapacityRun("small", dump, 0.1, {"process": "constant"}, **values))
    return path


def test_one_run_a_policy_on_one_schedule_and_a_table(
    scenario: Path, tmp_path: Path, made: list[Any]
) -> None:
    out = tmp_path / "out"
    done = run(scenario, "--policy", "hpa", "--policy", "queue_depth", "--policy", "fixed", "-o", out)
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in out.iterdir()) == ["fixed", "hpa", "queue_depth"]
    found = [open_run(out / name).manifest for name in ("hpa", "queue_depth", "fixed")]
    assert len({m.schedule_sha256 for m in found}) == 1
    own, other, fixed = (m.scenario["deployment"]["autoscaling"] for m in found)
    assert own["policy_options"] == {"target_average_value": 3}, "the scenario's own policy keeps its options"
    assert (other["policy"], other["policy_options"]) == ("queue_depth", {})
    assert (fixed["min_replicas"], fixed["max_replicas"]) == (2, 2), "there from the start"
    rows = {" ".join(line.split()[:-3]): line.split()[-3:] for line in done.stdout.splitlines()}
    assert rows["policy"] == ["hpa", "queue_depth", "fixed"]
    assert done.stdout.splitlines()[2].split() == rows["policy"], "a column each"
    assert rows["oscillations"] == ["0", "0", "0"] and rows["replica-seconds"] == ["20", "20", "20"]
    assert "30.0 ms 110 ms 50.0 ms" in " ".join(done.stdout.split()), "TTFT p50"
    for title in ("TTFT p99", "E2E p95", "goodput", "success rate"):
        assert title in done.stdout
    assert "over-provisioned" not in done.stdout and "cost" not in done.stdout
    assert all((out / name / "report.txt").exists() for name in ("hpa", "queue_depth", "fixed"))
    assert [m.code for m in made] == [0, 0, 0]
    assert not any(m.private for m in made), "each takes away what it deployed before the next begins"


def test_with_price_and_capacity_the_table_has_them_too(
    scenario: Path, tmp_path: Path, made: list[Any]
) -> None:
    """10/s for 10 s at 5/s a replica: two needed, one there: 10 replica-s short, then 10 too many."""
    where = capacity_run(tmp_path / "cap", scenario)
    done = run(scenario, "--policy", "hpa", "--policy", "fixed", "--capacity", where,
               "--price-per-replica-hour", "180", "-o", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    assert "over-provisioned 10 replica-s 10 replica-s" in text
    assert "under-provisioned 10 replica-s 10 replica-s" in text
    assert "cost 1 1" in text
    assert f"One replica: 5/s, measured: {where}" in "".join(done.stdout.split("\n  "))
    again = run(scenario, "--policy", "hpa", "--policy", "fixed", "--format", "json",
                "--capacity", "300/min", "-o", tmp_path / "again")  # fmt: skip
    found = json.loads(again.stdout)
    assert [f["run"] for f in found] == ["hpa", "fixed"]
    assert found[0]["report"]["bill"]["provisioning"]["under_area"] == 10.0
    assert found[0]["report"]["bill"]["provisioning"]["capacity"]["source"] == "as told by --capacity"


def test_an_interruption_ends_the_series_with_the_table_of_what_is_done(
    scenario: Path, tmp_path: Path, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Any] = []
    monkeypatch.setattr(several, "on_signals", lambda job, what="": jobs.append(job))
    Made.during = lambda conductor: jobs[0].interrupt() if len(made) == 2 else None
    done = run(scenario, "--policy", "hpa", "--policy", "queue_depth", "--policy", "fixed",
               "-o", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 5
    assert len(made) == 2 and [m.code for m in made] == [0, 5]
    assert "UNFINISHED" in done.stdout and "queue_depth" in done.stdout
    assert "not run: fixed" in done.stderr


def test_a_failure_ends_the_series(scenario: Path, tmp_path: Path, made: list[Any]) -> None:
    def fail(conductor: Any) -> None:
        if len(made) == 2:
            raise RuntimeError("no room")

    Made.during = fail
    done = run(scenario, "--policy", "hpa", "--policy", "fixed", "-o", tmp_path / "out")
    assert done.exit_code == 5 and "fixed: the run failed: no room" in done.stderr
    assert "not run: fixed" in done.stderr and "TTFT p50" in done.stdout


def test_one_policy_is_one_run_with_its_report(scenario: Path, tmp_path: Path, made: list[Any]) -> None:
    done = run(scenario, "--policy", "queue_depth", "-o", tmp_path / "out", "--capacity", "5")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "manifest.json").exists() and made[0].private
    assert "Bill of the whole run" in done.stdout
    assert "5/s a replica, as told by --capacity" in done.stdout
    assert "under-provisioned  10.0 s, 10 replica-seconds" in done.stdout


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--policy", "hpa", "--policy", "hpa"], "--policy hpa: named more than once"),
        (["--policy", "hpa", "--policy", "hpaa"], "no such policy"),
        (["--capacity", "nowhere"], "nowhere: no such directory; name a capacity run"),
        (["--capacity", "-3"], "a positive one is right"),
        (["--capacity", "nan"], "a positive one is right"),
        (["--capacity-anyway"], "goes with --capacity"),
    ],
)
def test_bad_input_is_answered_before_anything_runs(
    scenario: Path, made: list[Any], arguments: list[str], told: str
) -> None:
    done = run(scenario, *arguments)
    assert done.exit_code == 2 and told in done.stderr, done.output
    assert not made


def test_a_policy_for_a_target_is_refused(tmp_path: Path, made: list[Any]) -> None:
    given = {"name": "t", "target": {"url": "http://127.0.0.1:9", "model": "m"},
             "load": {"stages": [{"duration": "1s", "arrival": {"process": "constant", "rate": "1/s"}}],
                      "request": {"prompt": "x"}}}  # fmt: skip
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(given))
    done = run(tmp_path / "t.yaml", "--policy", "hpa")
    assert done.exit_code == 2 and "a target and no deployment: nothing to scale" in done.stderr
    assert not made


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("target", {"url": "http://127.0.0.1:9", "model": "m"}, "nobody sees how many replicas"),
        ("concurrency", 3, "a closed loop plans no rate"),
    ],
)
def test_a_capacity_that_nothing_could_be_held_against_is_refused(
    scenario: Path, made: list[Any], key: str, value: Any, told: str
) -> None:
    given = yaml.safe_load(scenario.read_text())
    if key == "target":
        del given["deployment"]
        given[key] = value
    else:
        given["load"] |= {key: value, "stages": [{"duration": "10s", "requests": 9}]}
    scenario.write_text(yaml.safe_dump(given))
    done = run(scenario, "--capacity", "5")
    assert done.exit_code == 2 and told in done.stderr and not made


def test_a_capacity_of_something_else_is_refused_unless_forced(
    scenario: Path, tmp_path: Path, made: list[Any]
) -> None:
    where = capacity_run(tmp_path / "cap", scenario)
    scenario.write_text(scenario.read_text().replace("slots_per_replica: 4", "slots_per_replica: 8"))
    done = run(scenario, "--capacity", where, "-o", tmp_path / "out")
    assert done.exit_code == 2 and not made
    assert "deployment.slots_per_replica: 4 there, 8 here" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    forced = run(scenario, "--capacity", where, "--capacity-anyway", "-o", tmp_path / "out")
    assert forced.exit_code == 0 and "on something else" in " ".join(forced.stdout.split())


# --- afterwards -----------------------------------------------------------------------------------------


def test_analyze_takes_the_same_capacity(scenario: Path, tmp_path: Path, made: list[Any]) -> None:
    where = capacity_run(tmp_path / "cap", scenario)
    run(scenario, "--policy", "queue_depth", "-o", tmp_path / "one")
    invoke = CliRunner().invoke
    plain = invoke(main, ["analyze", str(tmp_path / "one")])
    assert "under-provisioned" not in plain.stdout
    billed = invoke(main, ["analyze", str(tmp_path / "one"), "--capacity", str(where)])
    assert billed.exit_code == 0 and "under-provisioned  10.0 s, 10 replica-seconds" in billed.stdout
    other = tmp_path / "other"
    changed = load(scenario, {"deployment.model": "another"}).model_dump(mode="json")
    runs.write(other, [runs.ok(0, anchor_s=0.0, first_s=0.1, done_s=0.5)], scenario=changed)
    refused = invoke(main, ["analyze", str(tmp_path / "one"), str(other), "--capacity", str(where)])
    assert refused.exit_code == 2 and "deployment.model: m there, another here" in refused.stderr

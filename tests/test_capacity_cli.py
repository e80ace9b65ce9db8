"""`raybench capacity`: what it refuses, and with which words; and what a probe is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from raybench.cli.main import main
from raybench.fleet.bracket import CapacityError, arrival_of, one_replica
from raybench.scenario import Scenario, load

DEPLOYED: dict[str, Any] = {
    "name": "small",
    "deployment": {"engine": "emulated", "model": "m", "autoscaling": {"max_replicas": 4}},
    "load": {
        "stages": [{"duration": "10s", "arrival": {"process": "constant", "rate": "2/s"}}],
        "request": {"prompt": "x"},
    },
    "objectives": {"ttft_p95": "1s"},
}


def written(path: Path, **more: Any) -> Path:
    """DEPLOYED with keys replaced; a key with None is left out."""
    given = {k: v for k, v in (DEPLOYED | more).items() if v is not None}
    (path / "small.yaml").write_text(yaml.safe_dump(given))
    return path / "small.yaml"


def capacity(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["capacity", *map(str, arguments)])


TARGET = {"url": "http://127.0.0.1:9", "model": "m"}


@pytest.mark.parametrize(
    ("keys", "arguments", "told"),
    [
        ({"objectives": None}, [], "state some, such as objectives: {ttft_p95: 2s"),
        ({"deployment": None, "target": TARGET}, [], "--target-is-one-replica"),
        ({"deployment": None, "target": TARGET}, ["--engine", "vllm"], "deployment.model: value missing"),
        ({}, ["--target-is-one-replica"], "there is a deployment in it and no target"),
        ({}, ["--precision", "0.1%"], "a percentage from 1% to 100% is right"),
        ({}, ["--precision", "ten"], "a percentage from 1% to 100% is right"),
        ({}, ["--probe-at-most", "1s"], "a time of 5s or more"),
        ({}, ["--probe-at-most", "30"], "a time of 5s or more"),
        ({}, ["--start", "5"], "a rate above 0 with its unit"),
        ({}, ["-o", "s3://bucket/c"], "a directory on this machine is right"),
        ({"load": DEPLOYED["load"] | {"request": {"prompt": "x", "conversation": {
            "turns": {"distribution": "fixed", "value": 3}}}}}, [], "leave the conversation out"),
    ],
)  # fmt: skip
def test_bad_input_is_answered_at_once(
    tmp_path: Path, keys: dict[str, Any], arguments: list[str], told: str
) -> None:
    done = capacity(written(tmp_path, **keys), *arguments)
    assert done.exit_code == 2, done.output
    assert told in " ".join(done.stderr.split())


def test_a_directory_that_is_taken_is_refused(tmp_path: Path) -> None:
    done = capacity(written(tmp_path), "-o", tmp_path)
    assert done.exit_code == 2 and "is not empty" in done.stderr


def test_a_scenario_that_is_wrong_is_told_as_everywhere(tmp_path: Path) -> None:
    done = capacity(written(tmp_path, objectives={"ttft_p95": 1}))
    assert done.exit_code == 2 and "small.yaml:" in done.stderr


def test_one_replica_that_nobody_scales(tmp_path: Path) -> None:
    found = one_replica(load(written(tmp_path)))
    assert found.deployment is not None
    autoscaling = found.deployment.autoscaling
    assert (autoscaling.policy, autoscaling.min_replicas, autoscaling.max_replicas) == ("fixed", 1, 1)


def with_arrival(tmp_path: Path, **arrival: Any) -> Scenario:
    stages = [{"duration": "10s", "arrival": arrival}]
    return load(written(tmp_path, load=DEPLOYED["load"] | {"stages": stages}))


@pytest.mark.parametrize(
    ("arrival", "expected"),
    [
        ({"process": "constant", "rate": "2/s"}, {"process": "constant"}),
        ({"process": "poisson", "rate": "2/s"}, {"process": "poisson"}),
        ({"process": "gamma", "rate": "2/s", "burstiness": 0.5}, {"process": "gamma", "burstiness": 0.5}),
        ({"process": "ramp", "start": "1/s", "end": "2/s"}, {"process": "constant"}),
        ({"process": "ramp", "start": "1/s", "end": "2/s", "spacing": "poisson"}, {"process": "poisson"}),
        ({"process": "bursts", "size": 3, "every": "5s"}, {"process": "poisson"}),
    ],
)
def test_probes_are_as_random_as_the_scenario(
    tmp_path: Path, arrival: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert arrival_of(with_arrival(tmp_path, **arrival)) == expected


def test_prompts_from_a_trace_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00,10,5\n")
    stages = [{"duration": "10s", "arrival": {"process": "trace", "path": "t.csv"}}]
    with pytest.raises(CapacityError, match="come from a trace"):
        one_replica(load(written(tmp_path, load={"stages": stages})))

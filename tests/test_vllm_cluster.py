"""cluster.yaml: valid by Ray's own schema, and able to hold what the scenarios ask for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from raybench.fleet.placement import RESOURCE
from raybench.scenario import load
from raybench.scenario.models import Deployment
from raybench.serving.app import actor_options
from raybench.serving.preflight import _resources as resources

ROOT = Path(__file__).parents[1]
SCENARIOS = sorted(path.name for path in (ROOT / "scenarios").glob("llama3-8b-*.yaml"))


@pytest.fixture(scope="module")
def config() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture(scope="module")
def prepared(config: dict) -> dict:
    """As `ray up` sees it: with the launcher's defaults filled in."""
    return prepare_config(config)


def test_the_launcher_accepts_it(prepared: dict):
    validate_config(prepared)


def test_the_launcher_would_notice_a_mistake(prepared: dict):
    with pytest.raises(Exception, match="max_worker_count"):
        validate_config(prepared | {"max_worker_count": 3})


def test_nodes_are_named_and_counted_consistently(config: dict):
    types = config["available_node_types"]
    assert config["head_node_type"] in types
    assert config["max_workers"] == sum(kind["max_workers"] for kind in types.values())


def deployment(name: str) -> Deployment:
    found = load(ROOT / "scenarios" / name).deployment
    assert found is not None
    return found


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_gpu_node_holds_one_replica_and_there_are_enough_of_them(config: dict, name: str):
    replica = deployment(name)
    wanted = resources(actor_options(replica))
    assert wanted["GPU"] == 1 and wanted["memory"] == 15 * 2**30 and wanted["CPU"] == 4
    types = config["available_node_types"]
    able = {
        kind: spec
        for kind, spec in types.items()
        if all(spec["resources"].get(key, 0) >= amount for key, amount in wanted.items())
    }
    assert list(able) == ["a100_40g"]
    [node] = able.values()
    assert (node["min_workers"], node["max_workers"]) == (0, replica.autoscaling.max_replicas)


def test_generators_have_nodes_of_their_own(config: dict):
    having = [kind for kind, spec in config["available_node_types"].items() if RESOURCE in spec["resources"]]
    assert having == ["generators"]
    assert "GPU" not in config["available_node_types"]["generators"]["resources"]


def test_a_gpu_node_installs_what_all_nodes_install(config: dict):
    """The commands of a node type replace the common ones, so they are written twice."""
    own = config["available_node_types"]["a100_40g"]["worker_setup_commands"]
    assert config["setup_commands"] == own[:1]
    assert [re.search(r"vllm==[\d.*]+", command) is not None for command in own[1:]] == [True]


def test_versions_are_those_of_the_package(config: dict):
    project = (ROOT / "pyproject.toml").read_text()
    ray, vllm = re.search(r"ray\[serve\]==([\d.]+)\.\*", project), re.search(r'"vllm==([\d.]+)\.\*"', project)
    assert ray and vllm
    text = (ROOT / "cluster.yaml").read_text()
    assert set(re.findall(r"ray\[serve\]==([\d.]+)\.\*", text)) == {ray[1]}
    assert set(re.findall(r"rayproject/ray:(\d+\.\d+)\.\d+-py311", text)) == {ray[1]}
    assert set(re.findall(r"vllm==([\d.]+)\.\*", text)) == {vllm[1]}


def test_no_secret_is_in_it(config: dict):
    text = (ROOT / "cluster.yaml").read_text()
    assert not re.search(r"hf_[A-Za-z0-9]{20,}|-----BEGIN|\"private_key\"", text)
    assert config["provider"]["project_id"] == "<project-id>"

"""`raybench deploy` and `raybench remove`: what they say and how they end. For real: the live test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from click.testing import CliRunner, Result
from ray._private.state import state
from ray.core.generated.autoscaler_pb2 import ClusterConfig

import raybench.fleet.cluster
from raybench.cli.main import main
from raybench.fleet.cluster import ClusterError
from raybench.scenario.models import Deployment
from raybench.serving import deployer, preflight
from raybench.serving.deployer import Deployed, DeployError

SMALL = """
name: small
deployment: {engine: emulated, model: m, emulated: {preset: demo}}
serving: {application: mine}
load:
  stages: [{duration: 1s, arrival: {process: constant, interval: 1s}}]
  request: {prompt: hello}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    written = tmp_path / "small.yaml"
    written.write_text(SMALL)
    return written


@pytest.fixture
def attached_to(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands for Ray; the addresses that were asked for."""
    asked = []

    @contextmanager
    def attached(address: str | None = None) -> Iterator[bool]:
        asked.append(address)
        yield False

    monkeypatch.setattr(raybench.fleet.cluster, "attached", attached)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return asked


def call(*words: Any) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_deploy_says_where_it_is_and_how_to_remove_it(
    small: Path, attached_to: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def deploy(scenario: Any, *, keep: bool) -> Deployed:
        seen.append((scenario.deployment.engine, keep))
        return Deployed("http://127.0.0.1:8000/raybench", "mine", "raybench-engine", True)

    monkeypatch.setattr(deployer, "deploy", deploy)
    done = call("deploy", small)
    assert (done.exit_code, attached_to, seen) == (0, ["auto"], [("emulated", True)])
    assert "mine is deployed on the Ray at 10.0.0.1:6379: http://127.0.0.1:8000/raybench/v1" in done.output
    assert "raybench remove --application mine" in done.output


@pytest.mark.parametrize(
    "words, environment, address",
    [
        ([], {"RAY_ADDRESS": "1.2.3.4:6379"}, "1.2.3.4:6379"),
        (["--address", "a:1"], {"RAY_ADDRESS": "b:2"}, "a:1"),
    ],
)
def test_the_address_is_the_options_then_the_environments(
    words: list[str],
    environment: dict[str, str],
    address: str,
    attached_to: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(deployer, "remove", lambda application, shutdown_serve: True)
    monkeypatch.setattr(deployer, "started_by_raybench", lambda: False)
    assert call("remove", *words).exit_code == 0
    assert attached_to == [address]


def test_deploy_without_a_running_ray_says_how_to_start_one(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def attached(address: str | None = None) -> Iterator[bool]:
        raise ClusterError("Ray at 'auto' cannot be reached")
        yield False

    monkeypatch.setattr(raybench.fleet.cluster, "attached", attached)
    done = call("deploy", small)
    assert done.exit_code == 1
    assert "cannot be reached" in done.output and "ray start --head" in done.output


def test_a_deployment_that_fails_is_an_error_with_the_file(
    small: Path, attached_to: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deploy(scenario: Any, *, keep: bool) -> Deployed:
        raise DeployError("the deployment failed to start")

    monkeypatch.setattr(deployer, "deploy", deploy)
    done = call("deploy", small)
    assert done.exit_code == 1
    assert f"{small}: the deployment failed to start" in done.output


def test_a_scenario_with_a_target_has_nothing_to_deploy(tmp_path: Path) -> None:
    written = tmp_path / "target.yaml"
    written.write_text(
        SMALL.replace("deployment: {engine: emulated, model: m, emulated: {preset: demo}}", TARGET)
    )
    done = call("deploy", written)
    assert done.exit_code == 2
    assert "nothing to deploy" in done.output


TARGET = "target: {url: 'http://127.0.0.1:9', model: m}"


def test_bad_input_is_exit_code_2(tmp_path: Path, small: Path) -> None:
    assert call("deploy", tmp_path / "missing.yaml").exit_code == 2
    assert call("remove", tmp_path / "missing.yaml").exit_code == 2
    both = call("remove", small, "--application", "x")
    assert both.exit_code == 2 and "not both" in both.output


@pytest.mark.parametrize(
    "words, application", [(["small"], "mine"), (["--application", "x"], "x"), ([], "raybench")]
)
def test_remove_names_what_it_removed(
    words: list[str], application: str, small: Path, attached_to: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = []

    def remove(name: str, *, shutdown_serve: bool) -> bool:
        removed.append((name, shutdown_serve))
        return True

    monkeypatch.setattr(deployer, "remove", remove)
    monkeypatch.setattr(deployer, "started_by_raybench", lambda: True)
    done = call("remove", *(small if word == "small" else word for word in words))
    assert (done.exit_code, done.output, removed) == (0, f"{application} is removed\n", [(application, True)])


# --- before anything is deployed ----------------------------------------------------------------------

GPU = {"engine": "emulated", "model": "m", "replica": {"accelerator": "A100-40G", "reserve": True}}


def cluster(
    monkeypatch: pytest.MonkeyPatch,
    *nodes: dict[str, float],
    grows: bool = False,
    types: tuple[dict[str, float], ...] = (),
) -> None:
    alive = [{"Alive": True, "NodeID": str(n), "Resources": node} for n, node in enumerate(nodes)]
    monkeypatch.setattr(ray, "nodes", lambda: alive)
    monkeypatch.setattr(preflight, "_cluster_grows", lambda: grows)
    config = ClusterConfig()
    for resources in types:
        config.node_group_configs.add(max_count=2, resources={k: int(v) for k, v in resources.items()})
    monkeypatch.setattr(state, "get_cluster_config", lambda: config if types else None)


SMALL_NODE = {"CPU": 8.0, "memory": 32e9}
GPU_NODE = {"CPU": 12.0, "memory": 85e9, "GPU": 1.0, "accelerator_type:A100-40G": 1.0}


@pytest.mark.parametrize(
    "nodes, told",
    [
        ([SMALL_NODE], r"GPU: a replica needs 1, the largest node has 0"),
        ([SMALL_NODE], r"accelerator_type:A100-40G: a replica needs 0.001"),
        ([GPU_NODE | {"CPU": 2.0}], r"CPU: a replica needs 4, the largest node has 2"),
        ([GPU_NODE | {"memory": 1e9}], r"memory: a replica needs 1.61061e\+10, the largest node has 1e\+09"),
        ([GPU_NODE | {"CPU": 2.0}, SMALL_NODE], "no single node has them all"),
    ],
)
def test_a_replica_that_fits_nowhere_is_refused_by_resource(
    nodes: list[dict[str, float]], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster(monkeypatch, *nodes)
    with pytest.raises(DeployError, match=told):
        preflight.preflight(Deployment.model_validate(GPU))


def test_a_replica_that_fits_somewhere_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, SMALL_NODE, GPU_NODE)
    preflight.preflight(Deployment.model_validate(GPU))


def test_a_cluster_that_adds_nodes_may_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, SMALL_NODE, grows=True)
    preflight.preflight(Deployment.model_validate(GPU))


def test_the_node_types_that_may_be_added_decide_where_they_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster(monkeypatch, SMALL_NODE, grows=True, types=(SMALL_NODE, GPU_NODE))
    preflight.preflight(Deployment.model_validate(GPU))
    cluster(monkeypatch, SMALL_NODE, grows=True, types=(SMALL_NODE, GPU_NODE | {"GPU": 0.0}))
    with pytest.raises(DeployError, match="GPU: a replica needs 1, the largest node or node type has 0"):
        preflight.preflight(Deployment.model_validate(GPU))


def test_the_emulated_engine_reserves_nothing_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, {"CPU": 1.0})
    preflight.preflight(Deployment.model_validate(GPU | {"replica": {"accelerator": "A100-40G"}}))


def report(types: list[str]) -> bytes:
    import json

    return json.dumps({"autoscaler_report": {"active_nodes": dict.fromkeys(types, 1)}}).encode()


@pytest.mark.parametrize(
    "reported, grows", [(None, False), (report(["node_0"]), False), (report(["ray.head.default"]), True)]
)
def test_a_monitor_that_only_watches_adds_no_nodes(
    reported: bytes | None, grows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "NodeID": "0", "Resources": {}}])
    monkeypatch.setattr(preflight, "_internal_kv_get", lambda key: reported)
    assert preflight._cluster_grows() is grows

"""Where generators go, by what nodes declare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raybench.fleet import placement
from raybench.scenario import Scenario, load


def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": name * 28, "Alive": alive, "Resources": {"CPU": 8.0, **resources}}


HEAD, PLAIN, GPU = node("b1"), node("b2"), node("a0", GPU=1.0)
GEN_A, GEN_B = node("c8", generator=1.0), node("c9", generator=1.0)


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ([GPU, HEAD, GEN_B, GEN_A], ["c8", "c9"]),
        ([GPU, PLAIN, HEAD], ["b1", "b2"]),
        ([GPU], ["a0"]),
        ([HEAD, node("c8", alive=False, generator=1.0)], ["b1"]),
        ([node("b1", CPU=0.0), PLAIN], ["b2"]),
        ([{"NodeID": "1", "Alive": True, "Resources": {}}], []),
    ],
)
def test_declared_nodes_first_then_those_without_a_gpu(nodes: list[Any], found: list[str]) -> None:
    assert [n["NodeID"][:2] for n in placement.candidates(nodes)] == found


def scenario(path: Path, **place: Any) -> Scenario:
    stage = {"duration": "3s", "arrival": {"process": "constant", "rate": "1/s"}}
    path.write_text(
        yaml.safe_dump({"name": "t", "load": {"stages": [stage], "request": {"prompt": "x"}}, **place})
    )
    return load(path)


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("http://127.0.0.1:80", True),
        ("http://127.9.0.1:80", True),
        ("http://[::1]:80", True),
        ("http://localhost", True),
        (["http://gpu-1:80", "http://localhost"], True),
        ("http://10.0.0.1:80", False),
        ("https://api.example.com/v1", False),
    ],
)
def test_a_target_on_loopback_keeps_generators_here(tmp_path: Path, url: Any, near: bool) -> None:
    found = scenario(tmp_path / "s.yaml", target={"url": url, "model": "m"})
    assert placement.is_on_loopback(found) is near


def test_a_deployment_keeps_them_on_the_head_unless_it_listens_beyond(tmp_path: Path) -> None:
    deployment = {"engine": "emulated", "model": "m"}
    assert placement.is_on_loopback(scenario(tmp_path / "s.yaml", deployment=deployment))
    beyond = scenario(tmp_path / "s.yaml", deployment=deployment, serving={"listen": "node"})
    assert not placement.is_on_loopback(beyond)


def test_they_are_dealt_out_over_the_nodes_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [GEN_B, HEAD, GEN_A])
    far = scenario(tmp_path / "s.yaml", target={"url": "http://10.0.0.1", "model": "m"})
    made = [placement.options(far, number) for number in range(4)]
    assert [o["scheduling_strategy"].node_id[:2] for o in made] == ["c8", "c9", "c8", "c9"]
    assert all(o["resources"] == {"generator": placement.RESOURCE_EACH} for o in made)
    monkeypatch.setattr("ray.nodes", lambda: [PLAIN, GPU])
    assert "resources" not in placement.options(far, 0)

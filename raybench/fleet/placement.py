"""On which nodes generators run: away from engines, spread, and where the server can be reached."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raybench.scenario import Scenario

RESOURCE = "generator"
"""Nodes that declare this custom resource take the generators: as in cluster.yaml and docs/cluster.md."""
RESOURCE_EACH = 0.001
CPUS_EACH = 0.1

Node = Mapping[str, Any]
"""One entry of `ray.nodes()`."""


def options(scenario: Scenario, number: int) -> dict[str, Any]:
    """Ray's options for the actor of generator `number`, by the nodes that are there now.

    A server on loopback has all of them on its own node: a deployment's on the head, beside its proxy,
    a target's on this one. They then need no CPU of Ray's, since heads often offer none.
    """
    if is_on_loopback(scenario):
        node = next((n["NodeID"] for n in ray.nodes() if _is_head(n)), None) if scenario.deployment else None
        here = node or ray.get_runtime_context().get_node_id()
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False), "num_cpus": 0}
    nodes = candidates(ray.nodes())
    if not nodes:
        return {"scheduling_strategy": "SPREAD"}
    chosen = nodes[number % len(nodes)]
    # Soft: a node that goes in this very moment is replaced by another one, by Ray itself.
    strategy = NodeAffinitySchedulingStrategy(chosen["NodeID"], soft=True)
    needs = {"resources": {RESOURCE: RESOURCE_EACH}} if RESOURCE in chosen["Resources"] else {}
    return {"scheduling_strategy": strategy, **needs}


def candidates(nodes: Sequence[Node]) -> list[Node]:
    """Nodes for generators, in an order that stays: those that declare `RESOURCE`; else those without a
    GPU; else all. Only living ones with a CPU to offer."""
    able = [n for n in nodes if n.get("Alive") and n.get("Resources", {}).get("CPU", 0) >= CPUS_EACH]
    declared = [n for n in able if n["Resources"].get(RESOURCE, 0) >= RESOURCE_EACH]
    plain = [n for n in able if not n["Resources"].get("GPU")]
    return sorted(declared or plain or able, key=lambda n: str(n["NodeID"]))


def is_on_loopback(scenario: Scenario) -> bool:
    """Whether the server can be reached from its own host only."""
    if scenario.deployment is not None:
        return scenario.serving.listen == "loopback"
    assert scenario.target is not None
    urls = scenario.target.url
    return any(
        _is_loopback(urlsplit(url).hostname or "") for url in ([urls] if isinstance(urls, str) else urls)
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_head(node: Node) -> bool:
    return bool(node.get("Alive")) and "node:__internal_head__" in node.get("Resources", {})

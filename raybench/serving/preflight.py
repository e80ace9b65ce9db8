"""Before anything is deployed: could any node ever hold a replica?"""

from __future__ import annotations

import json
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.experimental.internal_kv import _internal_kv_get

from raybench.scenario.models import Deployment


class DeployError(Exception):
    """The application could not be deployed; the text says why and what would help."""


def preflight(deployment: Deployment) -> None:
    """Raises DeployError, naming the resource, if no node could ever hold a replica.

    On a cluster that adds nodes by itself its node types count as well, where its autoscaler has made them
    known; where it has not, nothing is refused.
    """
    from raybench.serving.app import actor_options

    if deployment.engine == "emulated" and not deployment.replica.reserve:
        return
    wanted = _resources(actor_options(deployment))
    types = _node_types()
    nodes = [*(node["Resources"] for node in ray.nodes() if node["Alive"]), *types]
    if any(all(node.get(name, 0.0) >= amount for name, amount in wanted.items()) for node in nodes):
        return
    if not types and _cluster_grows():
        return
    largest = "the largest node or node type" if types else "the largest node"
    lacking = [
        f"{name}: a replica needs {amount:g}, {largest} has {max(n.get(name, 0.0) for n in nodes):g}"
        for name, amount in wanted.items()
        if all(node.get(name, 0.0) < amount for node in nodes)
    ] or [f"each of {', '.join(wanted)} is somewhere, but no single node has them all"]
    raise DeployError(
        "no node of this cluster could ever hold a replica (deployment.replica)\n  " + "\n  ".join(lacking)
    )


def _resources(options: dict[str, Any]) -> dict[str, float]:
    """Actor options as the resources of a node."""
    named = {"CPU": options["num_cpus"], "GPU": options["num_gpus"], "memory": options["memory"]}
    if "accelerator_type" in options:
        named[f"accelerator_type:{options['accelerator_type']}"] = 0.001
    return {name: float(amount) for name, amount in named.items() if amount}


def _node_types() -> list[dict[str, float]]:
    """The resources of each node type that the cluster's autoscaler may add, as it has told Ray."""
    from ray._private.state import state

    config = state.get_cluster_config()
    groups = config.node_group_configs if config else ()
    return [{name: float(n) for name, n in g.resources.items()} for g in groups if g.max_count != 0]


def _cluster_grows() -> bool:
    """Whether something adds nodes. Ray's monitor reports on every cluster started by `ray start`; where it
    only watches, it names each node's type after the node itself.
    """
    reported = _internal_kv_get(DEBUG_AUTOSCALING_STATUS)
    if not reported:
        return False
    types = json.loads(reported).get("autoscaler_report", {}).get("active_nodes", {})
    return not set(types) <= {f"node_{node['NodeID']}" for node in ray.nodes()}

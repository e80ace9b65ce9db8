"""Putting the application onto Serve and taking it away again, as a guest.

A running Serve is used as it is; where there is none, one is started, and only then may it be shut down.
Nothing but the application named in the scenario is ever touched, and only if raybench put it there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.experimental.internal_kv import (
    _internal_kv_get,
    _internal_kv_put,
    _pin_runtime_env_uri,
)

from raybench.policies import Policy
from raybench.scenario.models import Deployment, Scenario, Serving
from raybench.schema import ReplicaState
from raybench.serving.ports import free_port
from raybench.serving.preflight import DeployError as DeployError
from raybench.serving.preflight import preflight
from raybench.serving.scaler import MONITOR

DEPLOYMENT_NAME = "raybench-engine"
"""Of the deployment inside the application; by it raybench knows its own."""

REMOVE_TIMEOUT_S = 60.0
POLL_S = 0.2
PORT_TRIES = 3
_BIND_FAULT = "Failed to bind to address"  # Serve's words

KEEP_CODE_S = 30 * 86400
"""How long the code of an application that outlives its deployer stays available to new replicas."""

_KV, _STARTED = b"raybench", b"serve-started"  # namespace and key in Ray's key-value store

_STATES = {
    "STARTING": ReplicaState.STARTING,
    "RECOVERING": ReplicaState.STARTING,
    "UPDATING": ReplicaState.STARTING,
    "RUNNING": ReplicaState.RUNNING,
    "PENDING_MIGRATION": ReplicaState.RUNNING,
    "STOPPING": ReplicaState.STOPPING,
}


@dataclass(frozen=True)
class Deployed:
    """Where the application is. `url` is its base: `{url}/v1/chat/completions`."""

    url: str
    application: str
    deployment: str
    started_serve: bool  # whether Serve was started for it, and may be shut down with it


@dataclass(frozen=True)
class Replica:
    replica: str  # its id, as in the response header x-raybench-replica
    node: str | None
    state: ReplicaState
    started_unix_s: float | None = None  # by Serve's own clock; when it was found again, after a restart


@dataclass(frozen=True)
class Status:
    """What Serve says of the application at this moment."""

    state: str  # Serve's own word: RUNNING, DEPLOYING, DEPLOY_FAILED, …
    message: str
    target: int
    replicas: tuple[Replica, ...]
    total_requests: float | None  # waiting and served, as the autoscaler counts them; None if unknown


def monitor_name(application: str) -> str:
    """The name of the actor, in namespace `raybench`, that the application's policy tells what it sees."""
    return MONITOR + application


def deploy(scenario: Scenario, *, policy_override: Policy | None = None, keep: bool = False) -> Deployed:
    """Deploys the scenario's application on the Ray that this process is connected to, and waits for its
    minimum of replicas.

    `policy_override` is a policy object to use instead of the one the scenario names. `keep` makes the
    application outlive this process's connection. An application of this name that raybench left behind is
    replaced. Raises DeployError.
    """
    from raybench.serving.app import build

    if scenario.deployment is None:
        raise DeployError(f"{scenario.name}: there is no deployment in the scenario, only a target")
    deployment, serving = scenario.deployment, scenario.serving
    preflight(deployment)
    try:
        application = build(
            {
                "deployment": deployment,
                "seed": scenario.seed,
                "request_timeout": f"{scenario.load.request.timeout:f}s",
            },
            policy_override,
        )
    except (ValueError, ImportError) as error:
        raise DeployError(f"the application cannot be built: {error}") from error
    with _quiet():
        client = _client()
        _check_free(client, serving)
        url, started = (_attach(client, serving), False) if client else (_start(serving), True)
        try:
            if client:
                remove(serving.application)
            _run(application, serving)
            if keep:
                _pin_code()
            _wait(serving.application, deployment)
        except BaseException:
            remove(serving.application, shutdown_serve=started)
            raise
    return Deployed(url, serving.application, DEPLOYMENT_NAME, started)


def remove(application: str, *, shutdown_serve: bool = False) -> bool:
    """Removes the application if raybench deployed it; whether there was one. `shutdown_serve` ends Serve as
    well: only for who started it, and only if no other application is left.

    Raises DeployError if it belongs to somebody else.
    """
    client = _client()
    if client is None:
        return False
    from ray import serve

    from raybench.serving import vllm

    found = client.get_serve_details()["applications"]
    ours = application in found
    if ours:
        if DEPLOYMENT_NAME not in found[application]["deployments"]:
            raise DeployError(
                f"application {application!r} on this Serve was not deployed by raybench; it is left alone"
            )
        with _quiet():
            serve.delete(application, _blocking=False)
        _wait_gone(client, application)
        vllm.forget(application)
    if shutdown_serve and not set(found) - {application}:
        _shut_down(client)
    return ours


def started_by_raybench() -> bool:
    """Whether the Serve that is running was started by some `deploy`."""
    client = _client()
    return client is not None and _internal_kv_get(_STARTED, namespace=_KV) == _identity(client)


def status(application: str, *, count: bool = True) -> Status | None:
    """What Serve says of the application now; None if there is none. A few milliseconds, half of them for
    `total_requests`, which is None without `count`.
    """
    client = _client()
    if client is None:
        return None
    found = client.get_serve_details()["applications"].get(application)
    if found is None:
        return None
    deployment = found["deployments"].get(DEPLOYMENT_NAME, {})
    return Status(
        state=str(getattr(found["status"], "value", found["status"])),
        message="\n".join(filter(None, (found["message"], deployment.get("message")))),
        target=deployment.get("target_num_replicas", 0),
        replicas=tuple(_replicas(deployment)),
        total_requests=_total_requests(client, application) if deployment and count else None,
    )


# --- one step each ----------------------------------------------------------------------------------


def _check_free(client: Any, serving: Serving) -> None:
    """Neither the name nor the route may belong to somebody else."""
    if client is None:
        return
    found = client.get_serve_details()["applications"]
    taken = [
        f"serving.route: {serving.route!r} is taken on this Serve by application {name!r}; choose another"
        for name, other in found.items()
        if name != serving.application and other["route_prefix"] == serving.route
    ]
    if serving.application in found and DEPLOYMENT_NAME not in found[serving.application]["deployments"]:
        taken.append(
            f"serving.application: {serving.application!r} is taken on this Serve by an application that "
            "raybench did not deploy; choose another name"
        )
    if taken:
        raise DeployError("\n".join(taken))


def _attach(client: Any, serving: Serving) -> str:
    """The base URL on a Serve that is running."""
    options = client.http_config
    location = client.get_serve_details()["proxy_location"]
    if str(getattr(location, "value", location)) == "Disabled":
        raise DeployError("the running Serve has no HTTP proxy (proxy_location Disabled); start it with one")
    if serving.port not in (0, options.port):
        raise DeployError(
            f"serving.port: {serving.port}, but the running Serve listens on {options.port}; "
            "leave it out to use that"
        )
    on_loopback = options.host in ("127.0.0.1", "localhost", "::1")
    if serving.listen == "node" and on_loopback:
        raise DeployError(
            f"serving.listen: node, but the running Serve listens on {options.host} only; start it with "
            "--http-host 0.0.0.0, or shut it down and let raybench start its own"
        )
    host = _head_address() if serving.listen == "node" else "127.0.0.1"
    if options.host not in ("0.0.0.0", "::") and not on_loopback:
        host = options.host
    return f"http://{host}:{options.port}{serving.route.rstrip('/')}"


def _start(serving: Serving) -> str:
    """Starts Serve with its HTTP proxy; the base URL. A port of raybench's own choice that somebody else
    took meanwhile is given up for another."""
    everywhere = serving.listen == "node"
    for left in reversed(range(1 if serving.port else PORT_TRIES)):
        port = serving.port or free_port()
        try:
            _start_on("0.0.0.0" if everywhere else "127.0.0.1", port)
            break
        except DeployError as error:
            if _BIND_FAULT not in str(error):
                raise
            if not left:
                raise DeployError(
                    f"serving.port: {port} is taken on this host; name one that is free, or 0 for any"
                ) from error
    _internal_kv_put(_STARTED, _identity(_client()), overwrite=True, namespace=_KV)
    host = _head_address() if everywhere else "127.0.0.1"
    return f"http://{host}:{port}{serving.route.rstrip('/')}"


def _start_on(host: str, port: int) -> None:
    """Starts Serve with its HTTP proxy on this port, or leaves none behind and raises DeployError."""
    from ray import serve

    try:
        serve.start(
            proxy_location="HeadOnly" if host == "127.0.0.1" else "EveryNode",
            http_options={"host": host, "port": port},
            logging_config={"enable_access_log": False},
        )
    except Exception as error:
        serve.shutdown()
        raise DeployError(
            f"Ray Serve could not be started with its HTTP proxy on port {port}: {error}"
        ) from error


def _run(application: Any, serving: Serving) -> None:
    from ray import serve

    target = serve.RunTarget(application, name=serving.application, route_prefix=serving.route)
    try:
        serve.run_many([target], wait_for_applications_running=False)
    except Exception as error:
        raise DeployError(f"Serve did not take the application: {error}") from error


def _pin_code() -> None:
    """Ray drops uploaded code once nothing that runs was started with it: with no replica up, at the end of
    the job that brought it, unless that job also started Serve. A later replica still needs it.
    """
    environment = dict(ray.get_runtime_context().runtime_env)
    for uri in (environment.get("working_dir"), *environment.get("py_modules", ())):
        if uri and uri.startswith("gcs://"):
            _pin_runtime_env_uri(uri, expiration_s=KEEP_CODE_S)


def _wait(application: str, deployment: Deployment) -> None:
    """Until the minimum of replicas runs; an error says what Serve says."""
    deadline = time.monotonic() + deployment.startup_timeout
    wanted = deployment.autoscaling.min_replicas
    while True:
        seen = status(application)
        running = sum(r.state is ReplicaState.RUNNING for r in seen.replicas) if seen else 0
        if seen and seen.state == "RUNNING" and running >= wanted:
            return
        if seen and seen.state in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise DeployError(f"the deployment failed to start; Serve says:\n{seen.message}")
        if time.monotonic() > deadline:
            said = f"; Serve says:\n{seen.message}" if seen and seen.message else ""
            raise DeployError(
                f"{running} of {wanted} replicas ran after {deployment.startup_timeout:g} s "
                f"(deployment.startup_timeout){said}"
            )
        time.sleep(POLL_S)


def _wait_gone(client: Any, application: str) -> None:
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    while application in client.get_serve_details()["applications"]:
        if time.monotonic() > deadline:
            raise DeployError(
                f"application {application!r} is being removed; after {REMOVE_TIMEOUT_S:g} s its replicas "
                "still finish their requests; they get as long as deployment.drain says"
            )
        time.sleep(POLL_S)


def _shut_down(client: Any) -> None:
    """Ends Serve. Its own call waits inside the controller until the controller is killed, and Ray then
    prints on the driver's standard output that the call failed: so the controller is only told, and watched.
    """
    from ray import serve

    client.shutdown_cached_handles()
    ray.get(client._controller.graceful_shutdown.remote(wait=False))
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    while _controller_lives():
        if time.monotonic() > deadline:
            raise DeployError(f"Ray Serve did not shut down within {REMOVE_TIMEOUT_S:g} s")
        time.sleep(POLL_S)
    with _quiet():
        serve.shutdown()  # nothing is left of it but what this process remembers


def _controller_lives() -> bool:
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


# --- what Ray and Serve know -------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    """Serve tells each of its steps on standard error, across whatever else is shown there."""
    logger = logging.getLogger("ray.serve")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _client() -> Any:
    """Serve's own client, None while Serve is not running: the public API tells neither targets nor ids."""
    from ray.serve.context import _get_global_client

    return _get_global_client(raise_if_no_controller_running=False)


def _identity(client: Any) -> bytes:
    """Which Serve this is: the id of its controller."""
    identity: str = client._controller._actor_id.hex()
    return identity.encode()


def _replicas(deployment: dict[str, Any]) -> Iterator[Replica]:
    for found in deployment.get("replicas", ()):
        state = str(getattr(found["state"], "value", found["state"]))
        known = _STATES.get(state, ReplicaState.STARTING)
        yield Replica(found["replica_id"], found.get("node_id"), known, found.get("start_time_s") or None)


def _total_requests(client: Any, application: str) -> float | None:
    from ray.serve._private.common import DeploymentID

    ask = client._controller._get_total_num_requests_for_deployment_for_testing
    try:
        return float(ray.get(ask.remote(DeploymentID(DEPLOYMENT_NAME, application)), timeout=2.0))
    except (ray.exceptions.RayError, TimeoutError, TypeError):
        return None


def _head_address() -> str:
    for node in ray.nodes():
        if node["Alive"] and "node:__internal_head__" in node["Resources"]:
            return str(node["NodeManagerAddress"])
    return str(ray.util.get_node_ip_address())

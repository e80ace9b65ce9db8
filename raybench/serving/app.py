"""From a scenario's deployment to a Serve application: one Serve deployment, engine and HTTP in one."""

from __future__ import annotations

import os
import warnings
from typing import Any

import ray
from pydantic import NonNegativeInt, ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

from raybench.policies import Policy, make
from raybench.scenario.models import Autoscaling, Deployment, Model
from raybench.scenario.units import WRITTEN, Seconds
from raybench.serving.deployer import DEPLOYMENT_NAME
from raybench.serving.scaler import Scaler, pack

METRICS_INTERVAL_S = 0.5
LOOK_BACK_S = 1.0
"""A sample is a mean over the last second, reported twice a second. The window belongs to the policy: Serve's
own mean over a long look-back collapses to the last moment whenever a new client process appears."""

EMULATED_CPUS = 0.1

DRAIN_POLL_S = 0.5  # Serve's own 2 s would quantise every step down


class Arguments(Model):
    """What `build` takes: a scenario's `deployment`, with the same keys and units."""

    deployment: Deployment
    seed: NonNegativeInt = 1
    request_timeout: Seconds = 300  # how long a request may last: the default of deployment.drain


def build(args: dict[str, Any], policy: Policy | None = None) -> Application:
    """The application. `args` are those of `Arguments`, from YAML or from a checked scenario.

    A `policy` given here replaces the one that the deployment names. Raises ValueError with a line for each
    mistake.
    """
    try:
        checked = Arguments.model_validate(args, context={WRITTEN: True})
    except ValidationError as error:
        lines = (
            f"args.{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors()
        )
        raise ValueError("\n".join(lines)) from None
    deployment = checked.deployment
    drain_s = checked.request_timeout if deployment.drain is None else deployment.drain
    replica, arguments = _engine(deployment, checked.seed)
    return (
        serve.deployment(replica)
        .options(
            name=DEPLOYMENT_NAME,
            ray_actor_options=actor_options(deployment),
            max_ongoing_requests=deployment.slots_per_replica,
            max_queued_requests=deployment.max_queued_requests,
            autoscaling_config=_autoscaling(deployment.autoscaling, policy),
            request_router_config=RequestRouterConfig(
                initial_backoff_s=deployment.router.initial_backoff,
                backoff_multiplier=deployment.router.backoff_multiplier,
                max_backoff_s=deployment.router.max_backoff,
            ),
            graceful_shutdown_timeout_s=drain_s,
            graceful_shutdown_wait_loop_s=DRAIN_POLL_S,
            logging_config={"enable_access_log": False},
        )
        .bind(*arguments)
    )


def _engine(deployment: Deployment, seed: int) -> tuple[type[Any], tuple[Any, ...]]:
    """The replica's class and the arguments of its constructor."""
    if deployment.engine == "vllm":
        from raybench.serving import vllm, vllm_args

        return vllm.VllmReplica, (vllm_args.arguments(deployment), os.environ.get("HF_TOKEN"))
    from raybench.engine_model import from_scenario
    from raybench.serving.emulated import EmulatedReplica

    from_scenario(
        deployment.emulated, deployment.slots_per_replica
    )  # says here what is wrong, not in a replica
    return EmulatedReplica, (deployment, seed)


def actor_options(deployment: Deployment) -> dict[str, Any]:
    """What a replica asks Ray for. The emulated engine reserves nothing to speak of unless told to."""
    options: dict[str, Any] = {"num_cpus": EMULATED_CPUS}
    if deployment.engine == "vllm" or deployment.replica.reserve:
        wanted = deployment.replica
        options = {"num_cpus": wanted.cpus, "num_gpus": wanted.gpus, "memory": wanted.memory}
        if wanted.accelerator:
            options["accelerator_type"] = wanted.accelerator
    variables = deployment.env
    if deployment.engine == "vllm":
        from raybench.serving.vllm_args import environment

        variables = environment(deployment)
    if variables:
        # Serve gives a deployment the job's runtime environment only where it has none of its own.
        job = dict(ray.get_runtime_context().runtime_env) if ray.is_initialized() else {}
        options["runtime_env"] = job | {"env_vars": job.get("env_vars", {}) | variables}
    return options


def _autoscaling(autoscaling: Autoscaling, policy: Policy | None) -> AutoscalingConfig:
    policy = policy or make(autoscaling.policy, autoscaling)
    with warnings.catch_warnings():
        # Serve calls the interval deprecated, but nothing reads what should replace it.
        warnings.simplefilter("ignore", DeprecationWarning)
        return AutoscalingConfig(
            min_replicas=autoscaling.min_replicas,
            initial_replicas=autoscaling.min_replicas,
            max_replicas=autoscaling.max_replicas,
            metrics_interval_s=METRICS_INTERVAL_S,
            look_back_period_s=LOOK_BACK_S,
            aggregation_function="mean",
            # The policy owns all waiting; Serve's own delays, 30 and 600 s, would come on top.
            upscale_delay_s=0.0,
            downscale_delay_s=0.0,
            downscale_to_zero_delay_s=0.0,
            policy=AutoscalingPolicy(
                policy_function=Scaler,
                policy_kwargs={
                    "policy": pack(policy),
                    "depth_source": autoscaling.depth_source,
                },
            ),
        )

"""`raybench deploy`: the application alone."""

from __future__ import annotations

import os
from pathlib import Path

import click

from raybench.cli.main import bad_input, fail


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option(
    "--engine", type=click.Choice(["emulated", "vllm"]), help="Use this engine instead of the scenario's."
)
@click.option(
    "--address", help="Ray cluster to deploy on.  [default: $RAY_ADDRESS, else one on this machine]"
)
def command(scenario: Path, engine: str | None, address: str | None) -> None:
    """Deploy a scenario's application on a running Ray, and leave it there.

    Waits until its minimum of replicas runs. A Serve that is running is used, else one is started;
    `raybench remove` takes away what this command brought.

    \b
    Examples:
        raybench deploy scenarios/demo.yaml
        raybench deploy scenarios/llama3-8b-every-15s.yaml --address 10.0.0.1:6379

    \b
    Exit codes: 0 deployed, 1 it could not be, 2 usage or bad input.
    """
    from raybench.scenario import ScenarioError, load

    try:
        checked = load(scenario, {"deployment.engine": engine} if engine else {})
    except ScenarioError as error:
        bad_input(error)
        return
    if checked.deployment is None:
        fail(f"{scenario}: there is no deployment in it, only a target: nothing to deploy", 2)
    import ray

    from raybench.fleet.cluster import ClusterError, attached
    from raybench.serving.deployer import DeployError, deploy

    try:
        with attached(address or os.environ.get("RAY_ADDRESS") or "auto"):
            deployed = deploy(checked, keep=True)
            ray_address = ray.get_runtime_context().gcs_address
    except ClusterError as error:
        fail(
            f"{error}\n`raybench deploy` needs a Ray that goes on running: start one with `ray start --head`",
            1,
        )
        return
    except DeployError as error:
        fail(f"{scenario}: {error}", 1)
        return
    click.echo(f"{deployed.application} is deployed on the Ray at {ray_address}: {deployed.url}/v1")
    click.echo(f"take it away with: raybench remove --application {deployed.application}")

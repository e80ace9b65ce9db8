"""`raybench remove`: take the application away again."""

from __future__ import annotations

import os
from pathlib import Path

import click

from raybench.cli.main import bad_input, fail


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path), required=False)
@click.option("--application", help="Name of the application, instead of a scenario.  [default: raybench]")
@click.option("--address", help="Ray cluster it is on.  [default: $RAY_ADDRESS, else one on this machine]")
def command(scenario: Path | None, application: str | None, address: str | None) -> None:
    """Remove the application that `raybench deploy` put on a running Ray.

    Nothing else is touched. Serve itself is shut down only if raybench started it and nothing else is
    on it.

    \b
    Examples:
        raybench remove scenarios/demo.yaml
        raybench remove --application raybench

    \b
    Exit codes: 0 removed, 1 it is not there or could not be removed, 2 usage or bad input.
    """
    if scenario is not None and application is not None:
        fail("give a scenario or --application, not both", 2)
    if scenario is not None:
        from raybench.scenario import ScenarioError, load

        try:
            application = load(scenario).serving.application
        except ScenarioError as error:
            bad_input(error)
            return
    application = application or "raybench"
    from raybench.fleet.cluster import ClusterError, attached
    from raybench.serving.deployer import DeployError, remove, started_by_raybench

    try:
        with attached(address or os.environ.get("RAY_ADDRESS") or "auto"):
            there = remove(application, shutdown_serve=started_by_raybench())
    except ClusterError as error:
        fail(str(error), 1)
        return
    except DeployError as error:
        fail(str(error), 1)
        return
    if not there:
        fail(f"there is no application {application!r} on this Ray", 1)
    click.echo(f"{application} is removed")

"""`raybench run`: the main job."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from raybench.cli.main import bad_input, fail
from raybench.cli.reporting import price_option, report
from raybench.schema.vocabulary import Exit

if TYPE_CHECKING:
    from raybench.fleet.conductor import Conductor


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    metavar="DIR-OR-URI",
    help="Where the run goes: a new or empty directory, or a URI such as s3://bucket/run.  "
    "[default: outputs/NAME-DATE-TIME]",
)
@click.option(
    "--engine", type=click.Choice(["emulated", "vllm"]), help="Use this engine instead of the scenario's."
)
@click.option(
    "--policy",
    metavar="NAME",
    help="Use this autoscaling policy (or your own, module:Class) instead of the scenario's, and without its "
    "policy_options.",
)
@click.option("--generators", type=click.IntRange(1, 1000), help="Use so many generators.")
@click.option("--seed", type=click.IntRange(0), help="Use this seed instead of the scenario's.")
@click.option("--address", help="Ray cluster to use.  [default: $RAY_ADDRESS, else a private one]")
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "json"]), default="text")
@price_option
def command(
    scenario: Path,
    output: str | None,
    engine: str | None,
    policy: str | None,
    generators: int | None,
    seed: int | None,
    address: str | None,
    format_: str,
    price: float | None,
) -> None:
    """Deploy (or use a target), load, settle, record, report.

    SCENARIO is a YAML file. Without a running Ray a private one is started on this machine and taken
    down at the end; on a running one raybench is a guest and removes only what it deployed.

    Ctrl-C once ends the run early with everything recorded so far; twice stops at once. Either way
    `raybench analyze RUN` reads what is there.

    \b
    Examples:
        raybench run scenarios/demo.yaml
        raybench run scenarios/llama3-8b-every-15s.yaml --engine emulated
        raybench run scenarios/demo.yaml --policy target_ongoing
        ray job submit --working-dir . -- python -m raybench run scenarios/demo.yaml -o /shared/run1

    \b
    Exit codes: 0 good, 1 failure, 2 usage, 3 objectives missed, 4 invalid run, 5 incomplete or
    interrupted.
    """
    from raybench.scenario import ScenarioError, load

    overrides = {
        key: value
        for key, value in {
            "deployment.engine": engine,
            "load.generators": generators,
            "seed": seed,
        }.items()
        if value is not None
    }
    try:
        checked = load(scenario, overrides)
        stated = checked.deployment.autoscaling.policy if checked.deployment else None
        if policy is not None and policy != stated:
            other = {"policy": policy, "policy_options": {}}
            checked = load(scenario, overrides | {f"deployment.autoscaling.{k}": v for k, v in other.items()})
    except ScenarioError as error:
        bad_input(error)
        return
    key_env = checked.target.api_key_env if checked.target else None
    if key_env and not os.environ.get(key_env):
        fail(f"{scenario}: target.api_key_env: the environment variable {key_env} is not set", 2)
    # Everything heavy is imported only from here on: bad input is answered at once.
    from raybench.cli.live import Live
    from raybench.fleet.cluster import ClusterError, attached
    from raybench.fleet.conductor import Conductor
    from raybench.fleet.output import OutputError, choose
    from raybench.rundir import RunError
    from raybench.workload import DataFileError

    try:
        where = choose(output, checked.name)
    except OutputError as error:
        bad_input(error)
        return
    failed = False
    conductor = None
    try:
        with Live() as live, attached(address) as private:
            conductor = Conductor(checked, where, private=private)
            conductor.watch(live)
            _on_signals(conductor)
            conductor.run()
    except (RunError, DataFileError) as error:
        bad_input(error)
    except ClusterError as error:
        fail(str(error), Exit.FAILURE)
    except Exception as error:
        failed = True
        click.echo(f"the run failed: {error}", err=True)
    if conductor is None or not (where.path / "manifest.json").exists():
        sys.exit(Exit.FAILURE)
    code = report(where.path, format_, failed=failed, price=price)
    arrived = conductor.close(code)
    click.echo(f"\n{where.shown}", err=True)
    if not arrived:
        fail(f"{where.shown}: not everything arrived; it is all in {where.path}", Exit.FAILURE)
    sys.exit(code)


def _on_signals(conductor: Conductor) -> None:
    """Once: end early and cleanly. Twice: stop at once. Set after ray.init, which sets its own."""
    seen = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            os.write(2, b"\nstopped at once; what was written stays readable\n")
            os._exit(5)
        os.write(2, b"\nending the run; once more to stop at once\n")
        conductor.interrupt()
        if conductor.deploying:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)

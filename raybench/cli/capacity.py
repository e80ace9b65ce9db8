"""`raybench capacity`: what one replica sustains within the objectives."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from raybench.cli.main import bad_input, fail
from raybench.schema.vocabulary import Exit


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> float:
    from raybench.scenario.units import seconds

    found = seconds(value.strip())
    if not found or found < 5:
        raise click.BadParameter(f"{value}: a time of 5s or more with its unit is right, such as 30s or 2m")
    return found


def _rate(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    from raybench.scenario.units import rate

    if value is None:
        return None
    found = rate(value.strip())
    if not found:
        raise click.BadParameter(f"{value}: a rate above 0 with its unit is right, such as 2/s or 90/min")
    return found


def _precision(context: click.Context, parameter: click.Parameter, value: str) -> float:
    from raybench.scenario.units import ratio

    found = ratio(value.strip())
    if found is None or not 0.01 <= found <= 1:
        raise click.BadParameter(f"{value}: a percentage from 1% to 100% is right, such as 10%")
    return found


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option("--output", "-o", metavar="DIR",
              help="A new or empty directory.  [default: outputs/NAME-capacity-DATE-TIME]")  # fmt: skip
@click.option("--engine", type=click.Choice(["emulated", "vllm"]),
              help="Use this engine instead of the scenario's.")  # fmt: skip
@click.option("--precision", callback=_precision, default="10%", show_default=True, metavar="PERCENT",
              help="How near a rate that is sustained and one that is not must come.")  # fmt: skip
@click.option("--probe-at-most", "at_most_s", callback=_seconds, default="2m", show_default=True,
              metavar="TIME", help="A probe is judged over no longer than this.")  # fmt: skip
@click.option("--start", "start_per_s", callback=_rate, metavar="RATE",
              help="The first rate.  [default: from the time of an answer alone]")  # fmt: skip
@click.option("--target-is-one-replica", "single_target", is_flag=True,
              help="Needed for a target: raybench cannot see how many replicas answer there.")  # fmt: skip
@click.option("--address", help="Ray cluster to use.  [default: $RAY_ADDRESS, else a private one]")
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "json"]), default="text",
              show_default=True)  # fmt: skip
def command(
    scenario: Path,
    output: str | None,
    engine: str | None,
    precision: float,
    at_most_s: float,
    start_per_s: float | None,
    single_target: bool,
    address: str | None,
    format_: str,
) -> None:
    """Measure the requests per second that one replica of SCENARIO sustains within its objectives.

    One replica is deployed and left alone by autoscaling. Short runs at rising rates, then between the last
    that was sustained and the first that was not, narrow the answer down. `raybench run` and `raybench
    analyze` take the directory as --capacity, for what was over- and under-provisioned.

    The scenario's stages are not used, only how even or random their arrivals are. Ctrl-C once ends the
    search with what is known so far, twice stops at once.

    \b
    Examples:
        raybench capacity scenarios/demo.yaml
        raybench capacity scenarios/demo.yaml --precision 5% --probe-at-most 5m
        raybench analyze RUN --capacity outputs/demo-capacity-20260131-235959

    \b
    Exit codes: 0 found, 1 failure, 2 usage, 3 hopeless: no rate meets the objectives, 4 the generators
    could not do what a probe asks, 5 interrupted or incomplete.
    """
    from raybench.scenario import ScenarioError, load

    try:
        checked = load(scenario, {"deployment.engine": engine} if engine else {})
    except ScenarioError as error:
        bad_input(error)
        return
    if output and "://" in output:
        fail(f"--output {output}: a directory on this machine is right; copy it afterwards", Exit.USAGE)
    if checked.target is not None and not single_target:
        told = "is a server that is already there, and how many replicas answer cannot be seen"
        fail(f"{scenario}: target: {told}; where it is one, say so: --target-is-one-replica", Exit.USAGE)
    if checked.deployment is not None and single_target:
        fail(f"{scenario}: --target-is-one-replica: there is a deployment in it and no target", Exit.USAGE)
    # Everything heavy is imported only from here on: bad input is answered at once.
    from raybench.cli.several import Display, on_signals
    from raybench.fleet.bracket import Bracketing, CapacityError, Settings, one_replica
    from raybench.fleet.cluster import ClusterError, attached
    from raybench.fleet.output import OutputError, choose
    from raybench.report import capacity as words
    from raybench.rundir import RunError
    from raybench.serving.deployer import DeployError
    from raybench.workload import DataFileError

    try:
        one_replica(checked)
        where = choose(output, f"{checked.name}-capacity")
    except CapacityError as error:
        bad_input(f"{scenario}: {error}")
        return
    except OutputError as error:
        bad_input(error)
        return
    search: Bracketing | None = None
    failed = False
    try:
        with Display() as display, attached(address) as private:
            search = Bracketing(
                checked,
                where.path,
                Settings(precision, at_most_s, start_per_s),
                private=private,
                tell=display.tell,
                watch=display,
            )
            on_signals(search, "the search")
            search.run()
    except (RunError, DataFileError, CapacityError) as error:
        bad_input(error)
    except (ClusterError, DeployError) as error:
        fail(f"{scenario}: {error}", Exit.FAILURE)
    except Exception as error:
        failed = True
        click.echo(f"the search failed: {type(error).__name__}: {error}", err=True)
    if search is None:
        sys.exit(Exit.FAILURE)
    found = search.found
    click.echo(words.render(found, format_))
    try:
        (where.path / "report.txt").write_text(words.render(found) + "\n", encoding="utf-8")
    except OSError as error:
        click.echo(f"{where.path / 'report.txt'}: could not be written: {error.strerror}", err=True)
    click.echo(f"\n{where.shown}", err=True)
    sys.exit(Exit.FAILURE if failed or found.exit_code is None else found.exit_code)

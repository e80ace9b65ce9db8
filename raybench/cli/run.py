"""`raybench run`: the main job."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raybench.cli.main import bad_input, fail
from raybench.cli.reporting import anyway_option, capacity_of, capacity_option, price_option, report
from raybench.schema.vocabulary import Exit

if TYPE_CHECKING:
    from raybench.analysis import Question, Summary
    from raybench.cli.several import Display, Series
    from raybench.fleet.output import Output
    from raybench.scenario import Scenario


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    metavar="DIR-OR-URI",
    help="Where the run goes: a new or empty directory, or a URI such as s3://bucket/run; of several "
    "policies, each run into a directory in it.  [default: outputs/NAME-DATE-TIME]",
)
@click.option(
    "--engine", type=click.Choice(["emulated", "vllm"]), help="Use this engine instead of the scenario's."
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME",
    help="Use this autoscaling policy (or your own, module:Class) instead of the scenario's, and without its "
    "policy_options; named several times, one run with each on the same schedule, and a table.",
)
@click.option("--generators", type=click.IntRange(1, 1000), help="Use so many generators.")
@click.option("--seed", type=click.IntRange(0), help="Use this seed instead of the scenario's.")
@click.option("--address", help="Ray cluster to use.  [default: $RAY_ADDRESS, else a private one]")
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "json"]), default="text")
@price_option
@capacity_option
@anyway_option
def command(
    scenario: Path,
    output: str | None,
    engine: str | None,
    policies: tuple[str, ...],
    generators: int | None,
    seed: int | None,
    address: str | None,
    format_: str,
    price: float | None,
    capacity: str | None,
    anyway: bool,
) -> None:
    """Deploy (or use a target), load, settle, record, report.

    SCENARIO is a YAML file. Without a running Ray a private one is started on this machine and taken
    down at the end; on a running one raybench is a guest and removes only what it deployed.

    Ctrl-C once ends the run early with everything recorded so far (of several policies, the rest is left
    out); twice stops at once. Either way `raybench analyze RUN` reads what is there.

    \b
    Examples:
        raybench run scenarios/demo.yaml
        raybench run scenarios/llama3-8b-every-15s.yaml --engine emulated
        raybench run scenarios/demo.yaml --policy target_ongoing
        raybench run scenarios/demo.yaml --policy queue_depth --policy hpa --policy knative
        ray job submit --working-dir . -- python -m raybench run scenarios/demo.yaml -o /shared/run1

    \b
    Exit codes: 0 good, 1 failure, 2 usage, 3 objectives missed, 4 invalid run, 5 incomplete or
    interrupted; of several policies, the worst.
    """
    from raybench.rundir import RunError
    from raybench.scenario import ScenarioError

    given = {"deployment.engine": engine, "load.generators": generators, "seed": seed}
    overrides = {key: value for key, value in given.items() if value is not None}
    if twice := sorted({p for p in policies if policies.count(p) > 1}):
        fail(f"--policy {twice[0]}: named more than once; each policy runs once", Exit.USAGE)
    try:
        variants = [_with_policy(scenario, overrides, policy) for policy in policies or (None,)]
        known = capacity_of(capacity, variants[0].model_dump(mode="json"), anyway=anyway)
    except (ScenarioError, RunError, ValueError) as error:
        bad_input(error)
        return
    key_env = variants[0].target.api_key_env if variants[0].target else None
    if key_env and not os.environ.get(key_env):
        fail(f"{scenario}: target.api_key_env: the environment variable {key_env} is not set", 2)
    # Everything heavy is imported only from here on: bad input is answered at once.
    from raybench.analysis import Question

    question = Question(price_per_replica_hour=price, capacity=known)
    if len(policies) > 1:
        _several(list(zip(policies, variants, strict=True)), output, address, question, format_)
    else:
        _one(variants[0], output, address, question, format_)


def _with_policy(path: Path, overrides: dict[str, Any], policy: str | None) -> Scenario:
    """The scenario with another policy; its own keeps its options. Raises ScenarioError."""
    from raybench.scenario import ScenarioError, load

    checked = load(path, overrides)
    if policy is None:
        return checked
    if checked.deployment is None:
        raise ScenarioError(f"--policy {policy}: {path} has a target and no deployment: nothing to scale")
    if policy == checked.deployment.autoscaling.policy:
        return checked
    other: dict[str, Any] = {"policy": policy, "policy_options": {}}
    if policy == "fixed":  # there from the start, and at rest with all of them
        other["min_replicas"] = checked.deployment.autoscaling.max_replicas
    return load(path, overrides | {f"deployment.autoscaling.{k}": v for k, v in other.items()})


def _one(
    scenario: Scenario, output: str | None, address: str | None, question: Question, format_: str
) -> None:
    from raybench.cli.several import Display, Series, on_signals
    from raybench.fleet.cluster import ClusterError, attached
    from raybench.fleet.conductor import Conductor
    from raybench.fleet.output import OutputError, choose
    from raybench.rundir import RunError
    from raybench.workload import DataFileError

    try:
        where = choose(output, scenario.name)
    except OutputError as error:
        bad_input(error)
        return
    failed = False
    conductor = None
    series = Series()
    try:
        with Display() as display, attached(address) as private:
            conductor = Conductor(scenario, where, private=private)
            conductor.watch(display)
            on_signals(series)
            series.run(conductor)
    except (RunError, DataFileError) as error:
        bad_input(error)
    except ClusterError as error:
        fail(str(error), Exit.FAILURE)
    except Exception as error:
        failed = True
        click.echo(f"the run failed: {error}", err=True)
    if conductor is None or not (where.path / "manifest.json").exists():
        sys.exit(Exit.FAILURE)
    summary = report(where.path, question, format_)
    code = Exit.FAILURE if failed else summary.exit_code
    arrived = conductor.close(code)
    click.echo(f"\n{where.shown}", err=True)
    if not arrived:
        fail(f"{where.shown}: not everything arrived; it is all in {where.path}", Exit.FAILURE)
    sys.exit(code)


@dataclass(frozen=True)
class _Done:
    policy: str
    summary: Summary
    code: Exit


def _several(
    variants: Sequence[tuple[str, Scenario]],
    output: str | None,
    address: str | None,
    question: Question,
    format_: str,
) -> None:
    """A run with each policy on one schedule, and their table. A failure or an interruption ends it."""
    from raybench.cli.several import Display, Series, on_signals
    from raybench.fleet.cluster import ClusterError, attached
    from raybench.fleet.output import Output, OutputError, choose
    from raybench.report import compared
    from raybench.rundir import RunError
    from raybench.rundir.remote import is_uri
    from raybench.workload import DataFileError

    done: list[_Done] = []
    series = Series()
    problem: tuple[str, Exit] | None = None
    try:
        parent = Output(Path(), output.rstrip("/")) if output and is_uri(output) else None
        parent = parent or choose(output, f"{variants[0][1].name}-policies")
        with Display() as display, attached(address):
            on_signals(series, "the series")
            for number, (policy, scenario) in enumerate(variants, 1):
                if series.stopped or (done and done[-1].code is Exit.FAILURE):
                    break
                name = re.sub(r"[^A-Za-z0-9._-]", "_", policy)
                where = choose(f"{parent.uri or parent.path}/{name}", scenario.name)
                display.tell(f"policy {number} of {len(variants)}: {policy} → {where.shown}")
                done += _in_series(policy, scenario, where, series, display, question)
    except (RunError, DataFileError, OutputError) as error:
        problem = str(error), Exit.USAGE
    except ClusterError as error:
        problem = str(error), Exit.FAILURE
    if problem is not None:
        click.echo(problem[0], err=True)
    if not done:
        sys.exit(problem[1] if problem else Exit.INCOMPLETE if series.stopped else Exit.FAILURE)
    click.echo(compared.render([(d.policy, d.summary) for d in done], format_))
    codes = [d.code for d in done] + [Exit.FAILURE] * (problem is not None)
    if rest := [policy for policy, _ in variants[len(done) :]]:
        click.echo(f"not run: {', '.join(rest)}", err=True)
        codes.append(Exit.INCOMPLETE)
    assert parent is not None
    click.echo(f"\n{parent.shown}", err=True)
    sys.exit(Exit.worst(codes))


def _in_series(
    policy: str, scenario: Scenario, where: Output, series: Series, display: Display, question: Question
) -> list[_Done]:
    """One run of them, its report kept but not printed; nothing where there is no run to report on."""
    from raybench.fleet.conductor import Conductor
    from raybench.rundir import RunError
    from raybench.workload import DataFileError

    # Not as `private`: application and Serve go after each run, so that each finds the same beginning.
    conductor = Conductor(scenario, where)
    conductor.watch(display)
    failed = False
    try:
        series.run(conductor)
    except (RunError, DataFileError):
        raise
    except Exception as error:
        failed = True
        display.tell(f"{policy}: the run failed: {error}")
    if not (where.path / "manifest.json").exists():
        return []
    summary = report(where.path, question, None)
    code = Exit.FAILURE if failed else summary.exit_code
    if not conductor.close(code):
        display.tell(f"{where.shown}: not everything arrived; it is all in {where.path}")
        code = Exit.FAILURE
    return [_Done(policy, summary, code)]

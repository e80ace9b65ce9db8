"""`raybench simulate`: the same tables from the model, without waiting."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raybench.cli.main import bad_input, fail
from raybench.cli.reporting import page, price_option
from raybench.cli.working import Bar, processes
from raybench.schema.vocabulary import Exit

if TYPE_CHECKING:
    from raybench.analysis import Question, Summary
    from raybench.rundir import Run
    from raybench.simulator import Simulated
    from raybench.simulator.bands import Bands


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the run goes: a new or empty directory.  [default: outputs/NAME-simulated-DATE-TIME]",
)
@click.option(
    "--policy",
    metavar="NAME",
    help="Use this autoscaling policy (or your own, module:Class) instead of the scenario's, and without its "
    "policy_options.",
)
@click.option("--seed", type=click.IntRange(0), help="Use this seed instead of the scenario's.")
@click.option(
    "--repeats",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="Simulate so often, with new arrivals and answers each time, and show the band of each figure.",
)
@click.option("--workers", type=click.IntRange(1, 1024), help="Processes for repeats.  [default: one a core]")
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "json"]), default="text")
@price_option
def command(
    scenario: Path,
    output: Path | None,
    policy: str | None,
    seed: int | None,
    repeats: int,
    workers: int | None,
    format_: str,
    price: float | None,
) -> None:
    """The same tables and the same report from the model: nothing is deployed, no request is sent.

    SCENARIO is a YAML file with a deployment. Its policy, its engine model and its load go through the same
    code as in a run on the emulated engine, in virtual time; `simulation` in the scenario holds what only
    a simulation needs to be told. The same seed gives the same tables.

    Ctrl-C while repeats go shows the bands of those that are done.

    \b
    Examples:
        raybench simulate scenarios/demo.yaml
        raybench simulate scenarios/demo.yaml --policy target_ongoing
        raybench simulate scenarios/llama3-8b-every-15s.yaml --repeats 200
        raybench compare outputs/demo-simulated-… outputs/demo-…

    \b
    Exit codes: 0 good, 1 failure, 2 usage, 3 objectives missed, 4 invalid run, 5 interrupted.
    """
    from raybench.scenario import ScenarioError, load

    overrides: dict[str, Any] = {} if seed is None else {"seed": seed}
    try:
        checked = load(scenario, overrides)
        if checked.deployment is None:
            raise ScenarioError(
                f"{scenario}: target: only a deployment can be simulated, not a server that is there; "
                "describe it as `deployment`, with its engine, slots and autoscaling"
            )
        if policy is not None and policy != checked.deployment.autoscaling.policy:
            other = {"policy": policy, "policy_options": {}}
            checked = load(scenario, overrides | {f"deployment.autoscaling.{k}": v for k, v in other.items()})
    except ScenarioError as error:
        bad_input(error)
        return
    from raybench.analysis import Question, summarise
    from raybench.rundir import RunError, create, fresh_path, open_run
    from raybench.simulator import simulate
    from raybench.workload import DataFileError

    question = Question(price_per_replica_hour=price)
    where = output or fresh_path(Path("outputs"), f"{checked.name}-simulated")
    if where.exists() and (not where.is_dir() or any(where.iterdir())):
        fail(f"--output {where}: name a directory that is new or empty", 2)
    bands: Bands | None = None
    try:
        with Bar() as bar:
            simulated = simulate(checked, progress=bar.share("simulating"))
            directory = create(where, simulated.manifest)
            _write(simulated, directory.sink("simulator"))
            source = open_run(where)
            summary = summarise(source, question)
            if repeats > 1:
                from raybench.simulator import bands as repeated

                many = min(workers or len(os.sched_getaffinity(0)), repeats)
                with processes(many) as executor:

                    def told(done: int) -> None:
                        bar("repeats", done, repeats)

                    first = repeated.headline(summary)
                    bands = repeated.bands(checked, question, first, repeats, executor, told)
    except (RunError, DataFileError) as error:
        bad_input(error)
        return
    except (OSError, ValueError) as error:  # a full disk; a policy of one's own
        fail(f"the simulation failed: {error}", Exit.FAILURE)
        return
    except KeyboardInterrupt:
        fail("interrupted; nothing was kept", Exit.INCOMPLETE)
        return
    _report(source, question, summary, bands, where, format_)
    codes = [summary.exit_code, Exit.INCOMPLETE if bands and bands.repeats < repeats else Exit.GOOD]
    code = Exit.worst(codes)
    simulated.manifest.exit_code = code
    with suppress(OSError):
        directory.save(simulated.manifest)
    click.echo(f"\n{where}", err=True)
    sys.exit(code)


def _write(simulated: Simulated, sink: Any) -> None:
    """Every table to the run directory, as a live run has them. Raises OSError."""
    from raybench.schema import TABLES

    with sink:
        for table in TABLES:
            for batch in simulated.batches(table, list(table.columns)):
                sink.write(table, batch)


def _report(
    source: Run, question: Question, summary: Summary, bands: Bands | None, where: Path, format_: str
) -> None:
    """Prints the report and keeps it as text and as a page; with the bands, where there are repeats."""
    click.echo(_rendered(summary, bands, format_))
    kept: dict[str, Callable[[], str]] = {
        "report.txt": lambda: _rendered(summary, bands, "text") + "\n",
        "report.html": lambda: page(source, question, summary),
    }
    for name, made in kept.items():
        try:
            (where / name).write_text(made(), encoding="utf-8")
        except OSError as error:
            click.echo(f"{where / name}: could not be written: {error.strerror or error}", err=True)


def _rendered(summary: Summary, bands: Bands | None, format_: str) -> str:
    from raybench.report import bands as shown
    from raybench.report import json as as_json
    from raybench.report import markdown, render, text

    if bands is None:
        return render(summary, format_)
    if format_ == "json":
        whole = {"report": as_json.to_object(summary), "repeats": shown.to_object(bands)}
        return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
    further = shown.section(bands)
    if format_ == "markdown":
        return f"{render(summary, format_)}\n\n{markdown.document([further]).replace('# ', '## ', 1)}"
    return f"{render(summary, format_)}\n\n{text.document([further])}"

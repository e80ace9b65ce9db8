"""`raybench analyze`: the report of runs, from their tables, asked again in any way."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raybench.cli.main import bad_input, fail
from raybench.cli.reporting import anyway_option, capacity_of, capacity_option, page, price_option
from raybench.schema.vocabulary import Exit

if TYPE_CHECKING:
    from raybench.analysis import Objective, Question, Source, Summary


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "json", "html"]), default="text")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write the report to this file."
)
@click.option(
    "--charts",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write every chart to this directory as well, as PNG and SVG.",
)
@click.option(
    "--window", metavar="FROM:TO", help="Only requests planned in this time after t0: 10s:50s, 5m:, :1h."
)
@click.option(
    "--phase",
    type=click.Choice(["auto", "all", "warmup", "steady", "cooldown"]),
    default="auto",
    help="Only this phase.  [default: steady where the scenario has a warm-up or cool-down, else all]",
)
@click.option(
    "--anchor",
    type=click.Choice(["scheduled", "sent"]),
    help="Count headline latencies from here.  "
    "[default: scheduled; named, the oha block is printed from the schedule as well]",
)
@click.option("--percentiles", default="50,90,95,99", show_default=True, metavar="P,P,…")
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="NAME=LIMIT",
    help="Hold the run against ttft_p99=2s, tpot_p50=30ms, e2e_p95=60s, success_rate=99.9% "
    "instead of the scenario's objectives; repeat for more.",
)
@click.option(
    "--by", metavar="WHAT", help="Groups: stage, phase, replica, generator, or windows such as 10s."
)
@click.option(
    "--drift/--no-drift",
    default=None,
    help="How the run changed by hour, or by twelfths.  [default: for ten minutes and more]",
)
@price_option
@capacity_option
@anyway_option
def command(
    runs: tuple[str, ...],
    format_: str,
    output: Path | None,
    charts: Path | None,
    window: str | None,
    phase: str,
    anchor: str | None,
    percentiles: str,
    objectives: tuple[str, ...],
    by: str | None,
    drift: bool | None,
    price: float | None,
    capacity: str | None,
    anyway: bool,
) -> None:
    """The report of a run, from its tables. Several runs are shown side by side. RUN is a directory, or a
    URI such as s3://bucket/run.

    Works on a run that is going, ended, or was killed, and needs neither Ray nor the machine it ran on.

    \b
    Examples:
        raybench analyze outputs/demo-20260131-235959
        raybench analyze RUN --window 10s:50s --objective ttft_p99=2s --by replica
        raybench analyze RUN-A RUN-B RUN-C --format markdown
        raybench analyze RUN --window 5m: --format html --output report.html
        raybench analyze RUN --charts charts/

    \b
    Exit codes: 0 good, 1 failure, 2 usage, 3 objectives missed, 4 invalid run, 5 incomplete or
    interrupted; of several runs, the worst.
    """
    from raybench.analysis import summarise
    from raybench.rundir import RunError, keep_freed_memory, open_run
    from raybench.rundir.capacity import holds_capacity
    from raybench.rundir.remote import local

    keep_freed_memory()
    if len(runs) == 1 and holds_capacity(runs[0]):
        _capacity_run(runs[0], format_, output)
        return
    try:
        if len(runs) > 1 and (format_ == "html" or charts):
            option = "--charts" if charts else "--format html"
            raise ValueError(f"{option}: one RUN at a time is right, not {len(runs)}")
        question = replace(_question(window, phase, anchor, percentiles, objectives, by, price), drift=drift)
        opened = [open_run(local(run)) for run in runs]
        asked = [
            replace(question, capacity=capacity_of(capacity, source.manifest.scenario, anyway=anyway))
            for source in opened
        ]
        named = [
            (Path(run).resolve().name, summarise(source, its))
            for run, source, its in zip(runs, opened, asked, strict=True)
        ]
    except (RunError, ValueError) as error:
        bad_input(error)
        return
    text = _rendered(opened[0], asked[0], named, format_)
    try:
        if charts:
            _draw(opened[0], asked[0], named[0][1], charts)
        if output:
            output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        fail(f"{error.filename or output}: could not be written: {error.strerror or error}", Exit.FAILURE)
    if not output:
        click.echo(text)
    sys.exit(Exit.worst([summary.exit_code for _, summary in named]))


def _capacity_run(path: str, format_: str, output: Path | None) -> None:
    """A capacity run has a report of its own, to which none of the questions applies."""
    from raybench.report import capacity
    from raybench.rundir import RunError
    from raybench.rundir.capacity import read

    try:
        found = read(path)
        text = capacity.render(found, format_)
        if output:
            output.write_text(text + "\n", encoding="utf-8")
    except (RunError, ValueError) as error:
        bad_input(f"--{error}" if isinstance(error, ValueError) else error)
        return
    except OSError as error:
        fail(f"{output}: could not be written: {error.strerror or error}", Exit.FAILURE)
        return
    if not output:
        click.echo(text)
    sys.exit(Exit.INCOMPLETE if found.exit_code is None else found.exit_code)


def _rendered(source: Source, question: Question, named: Sequence[tuple[str, Summary]], format_: str) -> str:
    from raybench.report import compared, render

    if format_ == "html":
        return page(source, question, named[0][1])
    return render(named[0][1], format_) if len(named) == 1 else compared.render(named, format_)


def _draw(source: Source, question: Question, summary: Summary, directory: Path) -> None:
    from raybench.analysis.series import series
    from raybench.report.charts import charts, write

    write(charts(summary, series(source, question, summary)), directory)


def _question(
    window: str | None,
    phase: str,
    anchor: str | None,
    percentiles: str,
    objectives: tuple[str, ...],
    by: str | None,
    price: float | None,
) -> Question:
    """Options to a question. Raises ValueError with the option, its value and what would be right."""
    from raybench.analysis import Anchor, PhaseFilter, Question

    try:
        percents = tuple(float(p) for p in percentiles.split(","))
    except ValueError:
        raise ValueError(
            f"--percentiles {percentiles}: numbers with commas are right, such as 50,90,99"
        ) from None
    return Question(
        window=_window(window) if window else None,
        phase=PhaseFilter(phase),
        anchor=Anchor(anchor) if anchor else None,
        percentiles=percents,
        objectives=tuple(map(_objective, objectives)) or None,
        by=_by(by) if by else None,
        price_per_replica_hour=price,
    )


def _seconds(option: str, text: str) -> float:
    from raybench.scenario.units import seconds

    found = seconds(text.strip())
    if found is None:
        raise ValueError(f"{option} {text}: a time with its unit is right, such as 10s, 500ms or 1h30m")
    return found


def _window(text: str) -> tuple[float, float]:
    start, colon, end = text.partition(":")
    if not colon:
        raise ValueError(f"--window {text}: two times with a colon are right, such as 10s:50s, 5m: or :1h")
    return (
        _seconds("--window", start) if start.strip() else 0.0,
        _seconds("--window", end) if end.strip() else float("inf"),
    )


def _objective(text: str) -> Objective:
    from raybench.analysis import Objective
    from raybench.scenario.units import ratio

    name, equals, limit = text.partition("=")
    if not equals:
        raise ValueError(
            f"--objective {text}: NAME=LIMIT is right, such as ttft_p99=2s or success_rate=99.9%"
        )
    if name.strip() != "success_rate":
        return Objective.of(name.strip(), _seconds(f"--objective {name}", limit))
    found = ratio(limit.strip())
    if found is None or not 0 <= found <= 1:
        raise ValueError(f"--objective {text}: a percentage is right, such as success_rate=99.9%")
    return Objective.of(name.strip(), found)


def _by(text: str) -> str | float:
    from raybench.analysis.question import GROUPS
    from raybench.scenario.units import seconds

    if text in GROUPS:
        return text
    found = seconds(text)
    if not found:
        raise ValueError(f"--by {text}: {', '.join(GROUPS)} or a length such as 10s is right")
    return found

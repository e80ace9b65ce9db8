"""What `run` and `analyze` share: the report of a run directory, and the exit code it earns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from raybench.analysis import Question, Source, Summary
    from raybench.analysis.question import Capacity


def _finite(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a price; a number from 0 up is right, such as 2.5")
    return value


price_option = click.option(
    "--price-per-replica-hour",
    "price",
    type=click.FloatRange(min=0),
    callback=_finite,
    metavar="NUMBER",
    help="Bill the run with this price, in any currency: cost, per million output tokens, per good request.",
)


capacity_option = click.option(
    "--capacity",
    metavar="RUN-OR-RATE",
    help="What one replica sustains: a capacity run (raybench capacity), or a number of requests a second. "
    "The bill then says what was over- and under-provisioned.",
)
anyway_option = click.option(
    "--capacity-anyway",
    "anyway",
    is_flag=True,
    help="Take a capacity run of another engine, model, request or objective all the same.",
)


def capacity_of(text: str | None, scenario: Mapping[str, Any], *, anyway: bool = False) -> Capacity | None:
    """`--capacity` for a resolved scenario. Raises ValueError or RunError with what would be right."""
    if text is None:
        if anyway:
            raise ValueError("--capacity-anyway: goes with --capacity, which is not given")
        return None
    if not scenario.get("deployment"):
        raise ValueError("--capacity: needs a deployment; of a target nobody sees how many replicas it has")
    if (scenario.get("load") or {}).get("concurrency"):
        raise ValueError("--capacity: a closed loop plans no rate that it could be held against")
    from raybench.analysis.question import Capacity
    from raybench.analysis.same_replica import capacity
    from raybench.rundir import capacity as files
    from raybench.scenario.units import rate

    try:
        number = rate(text.strip())
        number = float(text) if number is None else number
    except ValueError:
        return capacity(files.read(text), text, scenario, anyway=anyway)
    try:
        return Capacity(number, "as told by --capacity")
    except ValueError as error:
        raise ValueError(f"--capacity {text}: {error}") from None


def page(source: Source, question: Question, summary: Summary) -> str:
    """The report as one HTML page, with its charts."""
    from raybench.analysis.series import series
    from raybench.report.html import render

    return render(summary, series(source, question, summary))


def report(path: Path, question: Question, format_: str | None) -> Summary:
    """Prints the report of the run at `path`, or nothing without a format, and keeps it there as text and as
    a page; returns its figures.
    """
    from raybench.analysis import summarise
    from raybench.report import render
    from raybench.rundir import open_run

    run = open_run(path)
    summary = summarise(run, question)
    if format_ is not None:
        click.echo(render(summary, format_))
    kept: dict[str, Callable[[], str]] = {
        "report.txt": lambda: render(summary, "text") + "\n",
        "report.html": lambda: page(run, question, summary),
    }
    for name, made in kept.items():
        try:
            (path / name).write_text(made(), encoding="utf-8")
        except OSError as error:
            click.echo(f"{path / name}: could not be written: {error.strerror or error}", err=True)
        except Exception as error:  # a picture that cannot be drawn must not cost the run its result
            click.echo(f"{path / name}: could not be made: {type(error).__name__}: {error}", err=True)
    return summary

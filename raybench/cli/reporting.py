"""What `run` and `analyze` share: the report of a run directory, and the exit code it earns."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raybench.schema.vocabulary import Exit

if TYPE_CHECKING:
    from raybench.analysis import Question, Source, Summary


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


def page(source: Source, question: Question, summary: Summary) -> str:
    """The report as one HTML page, with its charts."""
    from raybench.analysis.series import series
    from raybench.report.html import render

    return render(summary, series(source, question, summary))


def report(path: Path, format_: str, *, failed: bool = False, price: float | None = None) -> Exit:
    """Prints the report of the run at `path`, keeps it there as text and as a page; returns the exit code.
    `price`: of a replica for an hour; None for a bill without money.
    """
    from raybench.analysis import Question, summarise
    from raybench.report import render
    from raybench.rundir import open_run

    run, question = open_run(path), Question(price_per_replica_hour=price)
    summary = summarise(run, question)
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
    return Exit.FAILURE if failed else summary.exit_code

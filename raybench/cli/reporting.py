"""What `run` and `analyze` share: the report of a run directory, and the exit code it earns."""

from __future__ import annotations

import math
from pathlib import Path

import click

from raybench.schema.vocabulary import Exit


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


def report(path: Path, format_: str, *, failed: bool = False, price: float | None = None) -> Exit:
    """Prints the report of the run at `path`, keeps a copy of the text in it, and returns the exit code.
    `price`: of a replica for an hour; None for a bill without money.
    """
    from raybench.analysis import Question, summarise
    from raybench.report import render
    from raybench.rundir import open_run

    summary = summarise(open_run(path), Question(price_per_replica_hour=price))
    click.echo(render(summary, format_))
    try:
        (path / "report.txt").write_text(render(summary, "text") + "\n", encoding="utf-8")
    except OSError as error:
        click.echo(f"{path / 'report.txt'}: could not be written: {error.strerror or error}", err=True)
    return Exit.FAILURE if failed else summary.exit_code

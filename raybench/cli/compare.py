"""`raybench compare`: what changed between runs, and whether it is more than chance."""

from __future__ import annotations

import sys

import click

from raybench.cli.main import bad_input, fail


def _percent(context: click.Context, parameter: click.Parameter, value: str) -> float:
    from raybench.scenario.units import ratio

    found = ratio(value)
    if found is None:
        raise click.BadParameter(f"value {value!r}: a percentage is right, such as 5%", context, parameter)
    return found


@click.command()
@click.argument("base")
@click.argument("new")
@click.option("--base", "more_base", multiple=True, metavar="RUN",
              help="A repeat of BASE; once for each.")  # fmt: skip
@click.option("--new", "more_new", multiple=True, metavar="RUN",
              help="A repeat of NEW; once for each.")  # fmt: skip
@click.option("--threshold", callback=_percent, default="0%", show_default=True, metavar="PERCENT",
              help="A significant difference up to this is none. Not for the success rate.")  # fmt: skip
@click.option("--confidence", callback=_percent, default="95%", show_default=True, metavar="PERCENT",
              help="Of the intervals; false alarms are held to what is left of 100%.")  # fmt: skip
@click.option("--anchor", type=click.Choice(["scheduled", "sent"]),
              help="Count latencies from here.  [default: scheduled; sent in a closed loop]")  # fmt: skip
@click.option("--resamples", type=click.IntRange(100, 100_000), default=2000, show_default=True,
              help="Of the block bootstrap.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True,
              help="Of the resamples: the same seed gives the same figures.")  # fmt: skip
@click.option("--force", is_flag=True, help="Compare runs that did not measure the same thing.")
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "json"]), default="text",
              show_default=True)  # fmt: skip
def command(
    base: str,
    new: str,
    more_base: tuple[str, ...],
    more_new: tuple[str, ...],
    threshold: float,
    confidence: float,
    anchor: str | None,
    resamples: int,
    seed: int,
    force: bool,
    format_: str,
) -> None:
    """What NEW changes against BASE, with confidence intervals, for people and for CI.

    Runs of one schedule are compared request by request, others as wholes. Findings hold for all headline
    figures together: where nothing changed, a regression is reported at most 5 times in 100. How the
    intervals are made, and how often they are wrong: docs/comparing-runs.md.

    \b
    Examples:
        raybench compare outputs/before outputs/after
        raybench compare before after --threshold 5% --format markdown
        raybench compare b1 n1 --base b2 --base b3 --new n2 --new n3

    \b
    Exit codes: 0 no regression, 1 failure, 2 usage or not comparable, 4 invalid run, 5 incomplete or
    interrupted run, 6 regression.
    """
    from raybench.analysis import Anchor, Question
    from raybench.analysis.comparable import NotComparable
    from raybench.analysis.compare import Settings, compare
    from raybench.report.comparison import render
    from raybench.rundir import RunError, keep_freed_memory, open_run
    from raybench.rundir.remote import local

    keep_freed_memory()
    before, after = (base, *more_base), (new, *more_new)
    if repeated := {p for p in (*before, *after) if [*before, *after].count(p) > 1} - {base, new}:
        names = ", ".join(sorted(map(str, repeated)))
        fail(f"{names}: named more than once; a repeat has to be a run of its own", 2)
    try:
        found = compare(
            [open_run(local(run)) for run in before],
            [open_run(local(run)) for run in after],
            Question(anchor=Anchor(anchor) if anchor else None),
            Settings(confidence, threshold, resamples, seed, force),
        )
    except NotComparable as error:
        fail(f"{error}\nOnly like is compared with like; --force compares them all the same.", 2)
        return
    except (RunError, ValueError) as error:
        bad_input(error)
        return
    click.echo(render(found, [str(p) for p in before], [str(p) for p in after], format_))
    sys.exit(found.exit_code)

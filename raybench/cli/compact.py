"""`raybench compact`: one tidy file a table."""

from __future__ import annotations

from pathlib import Path

import click

from raybench.cli.main import bad_input, fail
from raybench.schema.vocabulary import Exit


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
def command(runs: tuple[Path, ...]) -> None:
    """One tidy file a table instead of many streams; every command reads both forms the same.

    The files are Arrow IPC files (Feather), which pandas, Polars and DuckDB read by themselves. A run that is
    still going is refused. Streams of which a part cannot be read stay beside the file.

    \b
    Example:
        raybench compact outputs/demo-20260131-235959

    \b
    Exit codes: 0 good, 1 failure, 2 usage.
    """
    from raybench.rundir import RunError, compact, open_run

    for path in runs:
        try:
            run = open_run(path)
        except RunError as error:
            bad_input(error)
            return
        try:
            rows = compact(run)
        except RunError as error:
            fail(str(error), Exit.FAILURE)
            return
        for problem in run.problems:
            click.echo(f"problem: {problem}", err=True)
        click.echo(f"{path}: " + ", ".join(f"{n:,} {name}" for name, n in rows.items() if n))

"""What `run` and `analyze` share: the report of a run directory, and the exit code it earns."""

from __future__ import annotations

from pathlib import Path

import click

from raybench.schema.vocabulary import Exit


def report(path: Path, format_: str, *, failed: bool = False) -> Exit:
    """Prints the report of the run at `path`, keeps a copy of the text in it, and returns the exit code."""
    from raybench.analysis import Question, summarise
    from raybench.report import render
    from raybench.rundir import open_run

    summary = summarise(open_run(path), Question())
    click.echo(render(summary, format_))
    try:
        (path / "report.txt").write_text(render(summary, "text") + "\n", encoding="utf-8")
    except OSError as error:
        click.echo(f"{path / 'report.txt'}: could not be written: {error.strerror or error}", err=True)
    return Exit.FAILURE if failed else summary.exit_code

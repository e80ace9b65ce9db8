"""`raybench schedule`: show, check and export the stimulus, without running anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from raybench.cli.main import bad_input, fail

FORMATS = (".arrow", ".parquet", ".csv", ".jsonl")


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option("--export", "target", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the schedule; the ending says how: .arrow, .parquet, .csv or .jsonl.")  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite the export's file if there is one.")
@click.option("--seed", type=click.IntRange(min=0), help="Instead of the scenario's seed.")
@click.option("--generators", type=click.IntRange(1, 1024), help="Show how many requests each would send.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    scenario: Path, target: Path | None, force: bool, seed: int | None, generators: int | None, form: str
) -> None:
    """Check SCENARIO and show every request it plans: counts, rates, gaps, hash.

    \b
        raybench schedule scenarios/demo.yaml
        raybench schedule scenarios/demo.yaml --seed 7 --export demo.parquet
    """
    from raybench.scenario import ScenarioError, load
    from raybench.schedule import build, part
    from raybench.schedule.summary import summarize
    from raybench.schedule.text import as_text
    from raybench.workload import DataFileError

    if target is not None:
        if target.suffix not in FORMATS:
            fail(f"--export: value {str(target)!r}: should end in {', '.join(FORMATS)}", 2)
        if target.exists() and not force:
            fail(f"--export: value {str(target)!r}: exists already; --force overwrites it", 2)
    try:
        loaded = load(scenario, {} if seed is None else {"seed": seed})
        table = build(loaded)
    except (ScenarioError, DataFileError) as error:
        return bad_input(error)
    wanted = loaded.load.generators if generators is None else generators
    parts = [part(table, g, wanted).num_rows for g in range(wanted)] if isinstance(wanted, int) else []
    summary = summarize(loaded, table)
    if form == "json":
        click.echo(json.dumps(summary.as_dict() | {"generator_rows": parts}, indent=2))
    else:
        click.echo(as_text(summary, parts))
    if target is not None:
        try:
            export(table, target)
        except OSError as error:
            fail(f"--export: value {str(target)!r}: {error.strerror or error}", 1)
        click.echo(f"written: {target}", err=form == "json")
    return None


def export(table: Any, target: Path) -> None:
    """One schedule as a file, by the file's ending."""
    if target.suffix == ".parquet":
        import pyarrow.parquet as parquet

        parquet.write_table(table, target)
    elif target.suffix == ".csv":
        import pyarrow.csv as csv

        csv.write_csv(table, target)
    elif target.suffix == ".arrow":
        import pyarrow as pa

        with pa.OSFile(str(target), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    else:
        with target.open("w", encoding="utf-8") as lines:
            for batch in table.to_batches(max_chunksize=65536):
                lines.writelines(json.dumps(row) + "\n" for row in batch.to_pylist())

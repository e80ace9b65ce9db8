"""`raybench calibrate`: the client's own floor on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raybench.cli.main import bad_input, fail
from raybench.schema.vocabulary import Exit

if TYPE_CHECKING:
    from raybench.fleet.calibration import Calibration


@click.command()
@click.option(
    "--scenario",
    type=click.Path(path_type=Path),
    help="Measure lateness at this scenario's rate, for the number of generators that it would take.",
)
@click.option(
    "--generators", type=click.IntRange(1, 64), help="So many at once.  [default: the scenario's, else 1]"
)
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--refresh", is_flag=True, help="Measure again although a calibration is kept.")
def command(scenario: Path | None, generators: int | None, format_: str, refresh: bool) -> None:
    """Measure what the client itself costs on this machine, and keep it.

    Generators send to null servers on this machine for some ten seconds: requests and chunks per second,
    CPU, lateness, and how far measured TTFT and inter-chunk latency are from the server's own record.
    Later runs here print it as their floor, judge themselves by it, and `generators: auto` counts on it.

    \b
    Examples:
        raybench calibrate
        raybench calibrate --scenario scenarios/demo.yaml
        raybench calibrate --generators 2 --refresh
    """
    from raybench.fleet import calibration as calibrations

    try:
        found = (
            _kept_or_measured(generators or 1, None, refresh)
            if scenario is None
            else _of_scenario(scenario, generators, refresh)
        )
    except calibrations.CalibrationError as error:
        fail(f"calibrate: {error}", Exit.FAILURE)
        return
    click.echo(json.dumps(found.as_dict(), indent=2) if format_ == "json" else as_text(found))


def _of_scenario(scenario: Path, generators: int | None, refresh: bool) -> Calibration:
    """For the scenario's number of generators, each at its part of the busiest second's rate."""
    from raybench.fleet import calibration as calibrations
    from raybench.fleet.crew import how_many
    from raybench.scenario import ScenarioError, load
    from raybench.schedule import build
    from raybench.workload import DataFileError

    try:
        loaded = load(scenario)
        plan = build(loaded)
    except (ScenarioError, DataFileError) as error:
        bad_input(error)
        raise AssertionError from error
    requests = calibrations.busiest_second(plan)[0] or None
    if generators is None and loaded.load.generators == "auto":
        one = _kept_or_measured(1, requests, refresh)  # `auto` counts on what one generator can do
        generators = how_many(loaded, plan)
        if generators == 1:
            return one
    generators = generators or how_many(loaded, plan)
    return _kept_or_measured(generators, requests and requests / generators, refresh)


def _kept_or_measured(generators: int, rate_per_s: float | None, refresh: bool) -> Calibration:
    """The kept one, if it is of the wanted rate."""
    from raybench.fleet import calibration as calibrations

    wanted = calibrations.tried_rate(rate_per_s or calibrations.DEFAULT_RATE_PER_S)
    kept = None if refresh else calibrations.cached(generators)
    if kept is not None and (rate_per_s is None or kept.floor.rate_per_s == wanted):
        return kept
    click.echo(
        f"calibrating {generators} generator{'s' * (generators > 1)}, some 10 to 20 seconds …", err=True
    )
    found = calibrations.measure(generators, wanted)
    try:
        click.echo(f"kept in {calibrations.keep(found)}", err=True)
    except OSError as error:
        where = calibrations.cache_directory()
        click.echo(f"{where}: not kept, so runs will not know it: {error.strerror or error}", err=True)
    return found


def as_text(found: Calibration) -> str:
    """A calibration for people."""
    import time

    from raybench.report.units import duration, number

    def off(p50_ns: int, p99_ns: int) -> str:
        return f"p50 {duration(p50_ns / 1e9)}, p99 {duration(p99_ns / 1e9)}"

    f = found.floor
    rows = (
        ("requests", f"{number(round(f.requests_per_s))}/s, {duration(f.cpu_s_per_request)} CPU each"),
        (
            "chunks",
            f"{number(round(f.chunks_per_s))}/s in bunches; CPU per 1,000: "
            f"{duration(f.cpu_s_per_1000_chunks)} in bunches, {duration(f.cpu_s_per_1000_lone_chunks)} alone",
        ),
        ("lateness", f"{off(f.lateness_p50_ns, f.lateness_p99_ns)} at {number(f.rate_per_s)} requests/s"),
        ("TTFT", f"off by {off(f.ttft_error_p50_ns, f.ttft_error_p99_ns)}"),
        ("inter-chunk", f"off by {off(f.gap_error_p50_ns, f.gap_error_p99_ns)}"),
    )
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found.measured_unix_s))
    many = "one generator" if found.generators == 1 else f"each of {found.generators} generators at once"
    head = f"{found.hostname}, {found.cores} cores, {when}: {many}"
    return "\n".join([head, *(f"  {name:<12} {text}" for name, text in rows)])

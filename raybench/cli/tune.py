"""`raybench tune`: the cheapest settings that meet the objectives."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raybench.cli.main import bad_input, fail
from raybench.cli.reporting import price_option
from raybench.cli.working import Bar, processes
from raybench.schema.vocabulary import Exit

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from raybench.scenario import Scenario


def _percent(context: click.Context, parameter: click.Parameter, value: str) -> float:
    from raybench.scenario.units import ratio

    found = ratio(value)
    if found is None:
        raise click.BadParameter(f"value {value!r}: a percentage is right, such as 95%", context, parameter)
    return found


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option("--vary", multiple=True, metavar="KEY=VALUE,VALUE,…",
              help="Try these values: of autoscaling, or of the policy's options. Once for each key.  "
              "[default: a few values around the scenario's own]")  # fmt: skip
@click.option("--policy", "policies", multiple=True, metavar="NAME",
              help="Search this policy (or your own, module:Class); repeat for several.  "
              "[default: the scenario's]")  # fmt: skip
@click.option("--objective", "objectives", multiple=True, metavar="NAME=LIMIT",
              help="Instead of the scenario's objectives, such as ttft_p99=2s; repeat for more.")  # fmt: skip
@click.option("--against", default="goodput", show_default=True, metavar="FIGURE",
              help="Weigh cost against this: goodput, or a latency such as ttft_p95.")  # fmt: skip
@click.option("--confidence", callback=_percent, default="95%", show_default=True, metavar="PERCENT",
              help="That the setting found is good enough.")  # fmt: skip
@click.option("--share", callback=_percent, default="90%", show_default=True, metavar="PERCENT",
              help="Good enough: at least this share of all runs meets every objective.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(1, 100_000), default=100, show_default=True,
              help="Fresh runs of each candidate, at most.")  # fmt: skip
@price_option
@click.option("--seed", type=click.IntRange(0), help="Use this seed instead of the scenario's.")
@click.option("--workers", type=click.IntRange(1, 1024),
              help="Processes that simulate. The result is the same.  [default: one a core]")  # fmt: skip
@click.option("--address", help="Simulate on this Ray cluster.  [default: $RAY_ADDRESS, else this machine]")
@click.option("--write", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Keep the scenario that would confirm the result live.")  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite the file of --write if there is one.")
@click.option("--all", "every", is_flag=True, help="Show every setting that is not worth it.")
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "json"]), default="text",
              show_default=True)  # fmt: skip
def command(
    scenario: Path,
    vary: tuple[str, ...],
    policies: tuple[str, ...],
    objectives: tuple[str, ...],
    against: str,
    confidence: float,
    share: float,
    repeats: int,
    price: float | None,
    seed: int | None,
    workers: int | None,
    address: str | None,
    write: Path | None,
    force: bool,
    every: bool,
    format_: str,
) -> None:
    """The cheapest way to scale the deployment of SCENARIO that meets its objectives, by simulation.

    Every combination of the values given is simulated under the same loads, the promising ones more often,
    and the cheapest are held against fresh loads until one passes. How that is done and what the figures
    mean: docs/tuning.md. Ctrl-C prints what is known so far.

    \b
    Examples:
        raybench tune scenarios/demo.yaml
        raybench tune scenarios/demo.yaml --objective ttft_p95=5s --against ttft_p95 --write tuned.yaml
        raybench tune scenarios/demo.yaml --vary scale_up_queue_depth=2,5,8 \\
            --vary autoscaling_window=10s,30s,60s --vary min_replicas=0,1 --policy queue_depth --policy hpa

    \b
    Exit codes: 0 found, 1 failure, 2 usage, 3 no setting meets the objectives, 5 interrupted.
    """
    from raybench.scenario import ScenarioError, load
    from raybench.scenario.yamltree import read

    overrides: dict[str, Any] = {} if seed is None else {"seed": seed}
    if objectives:
        overrides["objectives"] = _objectives(objectives)
    try:
        loaded = load(scenario, overrides)
        document = read(scenario.read_text(encoding="utf-8")).data | overrides
    except ScenarioError as error:
        bad_input(error)
        return
    _refuse(scenario, loaded)
    if write is not None and write.exists() and not force:
        fail(f"--write: value {str(write)!r}: exists already; --force overwrites it", 2)
    if write is not None and not write.parent.is_dir():
        fail(f"--write: value {str(write)!r}: there is no directory {write.parent}", 2)

    from raybench.analysis.question import scenario_objectives
    from raybench.report.tuned import Tuning, comment, render
    from raybench.tuning.scenario import confirming
    from raybench.tuning.search import Rules, Search, TuneError
    from raybench.tuning.settings import SettingsError, grid, read_vary
    from raybench.tuning.trial import Against, trial

    try:
        weighed = Against.of(against)
    except ValueError as error:
        fail(f"--against: {error}", 2)
        return
    try:
        rules = Rules(confidence, share, repeats)
        searched = grid(
            loaded, (document["deployment"] or {}).get("autoscaling") or {}, policies, read_vary(vary)
        )
    except (SettingsError, ValueError) as error:
        bad_input(error)
        return
    settings = [s.autoscaling for s in searched.settings]
    try:
        with Bar("runs", at_once=True) as bar, _executor(address, workers) as executor:
            search = Search(settings, partial(trial, loaded, weighed), executor, rules,
                            lower=not weighed.more_is_better, progress=bar)  # fmt: skip
            try:
                search.run()
            except KeyboardInterrupt:
                bar.say("interrupted")
    except TuneError as error:
        fail(f"{scenario}: {error}", Exit.FAILURE)
        return
    found = search.found()
    tuning = Tuning(
        scenario=loaded,
        objectives=scenario_objectives(loaded.model_dump(mode="json")),
        against=weighed,
        rules=rules,
        searched=searched,
        found=found,
        engine=_engine(loaded),
        price_per_replica_hour=price,
    )
    if found.chosen is not None:
        elsewhere = write is not None and write.resolve().parent != scenario.resolve().parent
        text = confirming(
            document, loaded, searched.settings[found.chosen], comment(tuning), elsewhere=elsewhere
        )
        tuning = tuning.confirmed_by(text, str(write) if write is not None else None)
        if write is not None:
            _write(write, text)
    elif write is not None:
        click.echo(f"{write}: not written, as there is nothing to confirm", err=True)
    click.echo(render(tuning, format_, every=every))
    sys.exit(found.exit_code)


def _objectives(texts: Sequence[str]) -> dict[str, str]:
    """As a scenario has them; the scenario's own check says what is wrong with a name or a limit."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, limit = (part.strip() for part in text.partition("="))
        if not equals or not limit:
            fail(f"--objective {text}: NAME=LIMIT is right, such as ttft_p99=2s or success_rate=99.9%", 2)
        found[name] = limit
    return found


def _refuse(path: Path, loaded: Scenario) -> None:
    """Scenarios in which there is nothing to tune."""
    if loaded.deployment is None:
        fail(
            f"{path}: target: cannot be tuned, as nobody can simulate a server that is not known; "
            "a deployment is right",
            2,
        )
    if not loaded.objectives.limits and loaded.objectives.success_rate is None:
        fail(
            f"{path}: objectives: value missing: without them the cheapest setting is to serve nobody; "
            "objectives: {ttft_p99: 2s, success_rate: 99%} is an example, or --objective ttft_p99=2s",
            2,
        )


def _engine(loaded: Scenario) -> str:
    assert loaded.deployment is not None
    stands_in = ", which stand in for vLLM" if loaded.deployment.engine == "vllm" else ""
    return f"the figures of {loaded.deployment.emulated.preset}{stands_in}"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"--write: value {str(path)!r}: {error.strerror or error}", Exit.FAILURE)


@contextmanager
def _executor(address: str | None, workers: int | None) -> Iterator[Executor]:
    """A Ray cluster where one is named, else processes here, else this process."""
    if address or os.environ.get("RAY_ADDRESS"):
        from raybench.fleet.cluster import ClusterError, attached
        from raybench.fleet.ray_executor import RayExecutor

        try:
            with attached(address), RayExecutor() as cluster:
                try:
                    yield cluster
                finally:
                    cluster.shutdown(cancel_futures=True)
        except ClusterError as error:
            fail(str(error), Exit.FAILURE)
        return
    many = workers or len(os.sched_getaffinity(0))
    if many == 1:
        from raybench.tuning.workers import Inline

        yield Inline()
        return
    with processes(many) as pool:
        yield pool

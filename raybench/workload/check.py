"""Reads every data file of a scenario once, to say what is wrong before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from raybench.scenario.arrivals import Trace
from raybench.scenario.distributions import Count, Empirical
from raybench.scenario.models import Scenario
from raybench.workload import files, lengths, traces

Place = tuple[str | int, ...]


def bad_files(scenario: Scenario) -> Iterator[tuple[Place, str, str]]:
    """The key, the value and what would be right, for each data file that cannot be used."""
    for place, name, read in _files(scenario):
        try:
            read()
        except files.DataFileError as error:
            yield place, name, str(error)


def _files(scenario: Scenario) -> Iterator[tuple[Place, str, Callable[[], object]]]:
    load = scenario.load
    request, at = load.request, ("load", "request")
    if request.prompts is not None:
        yield (*at, "prompts"), request.prompts, partial(_prompts, scenario)
    numbers: list[tuple[Place, Count | None]] = [
        ((*at, "input_tokens"), request.input_tokens),
        ((*at, "output_tokens"), request.output_tokens),
    ]
    if request.conversation is not None:
        numbers.append(((*at, "conversation", "turns"), request.conversation.turns))
    for place, count in numbers:
        if isinstance(count, Empirical) and count.file is not None:
            yield (*place, "file"), count.file, partial(lengths.observed, count)
    for number, stage in enumerate(load.stages):
        if isinstance(stage.arrival, Trace):
            trace = stage.arrival
            yield ("load", "stages", number, "arrival", "path"), trace.path, partial(traces.read, trace)


def _prompts(scenario: Scenario) -> None:
    load = scenario.load
    data = files.prompts(load.request, load.api == "raw")
    if load.request.conversation is not None and data.kind != files.MESSAGES:
        raise files.DataFileError("holds single prompts; a conversation needs messages in every row")

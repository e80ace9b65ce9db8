"""The planned load as a function of time: its stages with their rates, from the schedule's own rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from raybench.analysis.source import Source
from raybench.schema import LoadKind, Schedule

STEADY_PROCESSES = (None, "constant", "poisson", "gamma")
"""Arrival processes whose rate does not depend on time; None where the scenario does not say."""


@dataclass(frozen=True)
class Stage:
    """One stage of the plan over [start, end) ns, with the number of its rows that have an instant."""

    number: int
    start: int
    end: int
    rows: int
    process: str | None

    @property
    def steady(self) -> bool:
        return self.process in STEADY_PROCESSES

    @property
    def per_s(self) -> float:
        return self.rows / ((self.end - self.start) / 1e9) if self.end > self.start else 0.0


@dataclass(frozen=True)
class Plan:
    """`stages` in order of time, empty where no row has an instant; `unplaced`: rows without one."""

    stages: Sequence[Stage]
    unplaced: int


def plan(source: Source) -> Plan:
    """The stages of the schedule. A stage begins where the scenario says (the stages before it have a
    duration), else with its first row; it ends where the next one begins.
    """
    stated: list[dict[str, Any]] = (source.manifest.scenario.get("load") or {}).get("stages") or []
    rows: dict[int, tuple[int, int, int]] = {}  # stage -> rows, first, last
    unplaced = 0
    for batch in source.batches(Schedule, [Schedule.scheduled_ns, Schedule.stage]):
        unplaced += batch.column(0).null_count
        batch = batch.filter(pc.is_valid(batch.column(0)))
        at, stage = batch.column(0).to_numpy(), batch.column(1).to_numpy()
        for number in np.unique(stage).tolist():
            here = at[stage == number]
            n, first, last = rows.get(number, (0, int(here[0]), int(here[0])))
            rows[number] = (n + len(here), min(first, int(here.min())), max(last, int(here.max())))
    if source.manifest.load_kind is LoadKind.CLOSED or not rows:
        return Plan((), unplaced)
    numbers = sorted({*rows, *range(len(stated))})
    starts: dict[int, int] = {}
    begin: int | None = 0
    for number in numbers:
        duration = float(stated[number].get("duration") or 0) if number < len(stated) else 0.0
        starts[number] = begin if begin is not None else rows.get(number, (0, 0, 0))[1]
        begin = starts[number] + round(duration * 1e9) if duration else None
    last = numbers[-1]
    ends = [*(starts[n] for n in numbers[1:]), begin if begin is not None else rows[last][2]]
    return Plan(
        [
            Stage(n, starts[n], end, rows[n][0] if n in rows else 0, _process(stated, n))
            for n, end in zip(numbers, ends, strict=True)
        ],
        unplaced,
    )


def _process(stated: Sequence[dict[str, Any]], number: int) -> str | None:
    arrival = stated[number].get("arrival") if number < len(stated) else None
    return (arrival or {}).get("process")


def counts_between(source: Source, edges: Sequence[int]) -> NDArray[np.int64]:
    """Planned requests in each [edge, next edge), ns; the last row of the plan belongs to the last piece."""
    bounds = np.array(edges, np.int64)
    counts = np.zeros(len(bounds) - 1, np.int64)
    for batch in source.batches(Schedule, [Schedule.scheduled_ns]):
        at = batch.column(0).drop_null().to_numpy()
        piece = np.searchsorted(bounds, at, side="right") - 1
        piece[at == bounds[-1]] = len(counts) - 1
        counts += np.bincount(piece[(piece >= 0) & (piece < len(counts))], minlength=len(counts))
    return counts

"""What a schedule looks like: figures for people and for JSON, from the finished table alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raybench.scenario import Scenario
from raybench.schedule.build import duration_ns, load_kind
from raybench.schedule.processes import NS
from raybench.schedule.table import digest
from raybench.schema import LoadKind, Schedule

BINS = 60


@dataclass(frozen=True)
class Gaps:
    """Gaps between neighbouring requests of a stage, seconds. `cv` is standard deviation over mean."""

    mean_s: float
    cv: float
    min_s: float
    max_s: float


@dataclass(frozen=True)
class StageSummary:
    process: str
    start_s: float
    duration_s: float
    planned: int  # arrivals: requests, or conversations by their first turn
    expected: float | None  # by the process's definition; null where only the data can say
    rate_per_s: float | None  # of arrivals; null in a closed loop
    gaps: Gaps | None  # null below two requests


@dataclass(frozen=True)
class Summary:
    name: str
    kind: str
    seed: int
    sha256: str
    planned: int
    later_turns: int  # of the planned requests: those that wait for the answer before them
    duration_s: float
    rate_bins_per_s: list[float]  # mean rate of arrivals in equal parts of the duration
    stages: list[StageSummary]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarize(scenario: Scenario, table: pa.Table) -> Summary:
    """The figures of a schedule that was built from `scenario`."""
    total_ns = duration_ns(scenario)
    closed = load_kind(scenario) is LoadKind.CLOSED
    first_turns = pc.equal(table[Schedule.turn].fill_null(0), 0)
    arrivals = table.filter(first_turns)
    due = arrivals[Schedule.scheduled_ns].drop_null().to_numpy()
    stage_of = arrivals[Schedule.stage].to_numpy()
    # About four requests a bar at least, so that the bars show the rate and not the grid.
    bins = max(1, min(BINS, len(due) // 4))
    counts, _ = np.histogram(due, bins=bins, range=(0, total_ns))
    stages, start_s = [], 0.0
    for number, stage in enumerate(scenario.load.stages):
        planned = int((stage_of == number).sum())
        instants = due[stage_of == number] if not closed else due
        stages.append(
            StageSummary(
                process=stage.process,
                start_s=start_s,
                duration_s=stage.duration,
                planned=planned,
                expected=stage.expected(),
                rate_per_s=None if closed else planned / stage.duration,
                gaps=_gaps(instants),
            )
        )
        start_s += stage.duration
    return Summary(
        name=scenario.name,
        kind=str(load_kind(scenario)),
        seed=scenario.seed,
        sha256=digest(table),
        planned=table.num_rows,
        later_turns=table.num_rows - arrivals.num_rows,
        duration_s=total_ns / NS,
        rate_bins_per_s=[] if closed else (counts * bins / (total_ns / NS)).tolist(),
        stages=stages,
    )


def _gaps(instants: npt.NDArray[np.int64]) -> Gaps | None:
    gaps = np.diff(instants) / NS
    if not len(gaps):
        return None
    mean = float(gaps.mean())
    return Gaps(mean, float(gaps.std()) / mean if mean else 0.0, float(gaps.min()), float(gaps.max()))

"""What a schedule looks like: figures for people and for JSON, from the finished table alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raybench.scenario import Scenario
from raybench.schedule.build import duration_ns, load_kind
from raybench.schedule.processes import NS
from raybench.schedule.table import digest
from raybench.schema import Schedule

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
    planned: int
    expected: float | None  # by the process's definition; null where only the data can say
    rate_per_s: float
    gaps: Gaps | None  # null below two requests


@dataclass(frozen=True)
class Summary:
    name: str
    kind: str
    seed: int
    sha256: str
    planned: int
    duration_s: float
    rate_per_s: float
    rate_bins_per_s: list[float]  # mean rate in equal parts of the duration
    stages: list[StageSummary]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarize(scenario: Scenario, table: pa.Table) -> Summary:
    """The figures of a schedule that was built from `scenario`."""
    total_ns = duration_ns(scenario)
    due = table[Schedule.scheduled_ns].drop_null().to_numpy()
    stage_of = table[Schedule.stage].filter(table[Schedule.scheduled_ns].is_valid()).to_numpy()
    # About four requests a bar at least, so that the bars show the rate and not the grid.
    bins = max(1, min(BINS, len(due) // 4))
    counts, _ = np.histogram(due, bins=bins, range=(0, total_ns))
    stages, start_s = [], 0.0
    for number, stage in enumerate(scenario.load.stages):
        instants = due[stage_of == number]
        stages.append(
            StageSummary(
                process=stage.arrival.process,
                start_s=start_s,
                duration_s=stage.duration,
                planned=len(instants),
                expected=stage.arrival.expected(stage.duration),
                rate_per_s=len(instants) / stage.duration,
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
        duration_s=total_ns / NS,
        rate_per_s=table.num_rows / (total_ns / NS),
        rate_bins_per_s=(counts * bins / (total_ns / NS)).tolist(),
        stages=stages,
    )


def _gaps(instants: npt.NDArray[np.int64]) -> Gaps | None:
    gaps = np.diff(instants) / NS
    if not len(gaps):
        return None
    mean = float(gaps.mean())
    return Gaps(mean, float(gaps.std()) / mean if mean else 0.0, float(gaps.min()), float(gaps.max()))

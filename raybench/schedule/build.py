"""The whole schedule of a scenario: the stages' instants joined with the workload's prompts and lengths."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raybench.scenario import Scenario
from raybench.schedule.processes import NS, offsets_ns
from raybench.schema import LoadKind, Phase, Schedule
from raybench.workload import Workload

_PHASES = {phase: code for code, phase in enumerate(Phase)}


def load_kind(scenario: Scenario) -> LoadKind:
    """Open loop, capped client or closed loop: what the scenario's latencies may be measured from."""
    return LoadKind.OPEN


def duration_ns(scenario: Scenario) -> int:
    """From t0 to the end of the last stage, nanoseconds."""
    return sum(round(stage.duration * NS) for stage in scenario.load.stages)


def build(scenario: Scenario) -> pa.Table:
    """Every planned request, with exactly the columns of `Schedule`, in planned order.

    A pure function of the scenario (its data files included). Raises DataFileError where one of those
    cannot be used any more.
    """
    starts: list[npt.NDArray[np.int64]] = []
    begin_ns = 0
    for number, stage in enumerate(scenario.load.stages):
        starts.append(begin_ns + offsets_ns(stage.arrival, stage.duration, scenario.seed, number))
        begin_ns += round(stage.duration * NS)
    counts = [len(due) for due in starts]
    planned = sum(counts)
    work = Workload(scenario).plan(planned)
    columns = {
        Schedule.request_id: pa.array(np.arange(planned, dtype=np.int64)),
        Schedule.scheduled_ns: pa.array(np.concatenate(starts)),
        Schedule.stage: pa.array(np.repeat(np.arange(len(counts), dtype=np.int16), counts)),
        Schedule.prompt_id: work.prompt_id,
        Schedule.prompt_tokens: work.prompt_tokens,
        Schedule.max_tokens: work.max_tokens,
        Schedule.conversation: pa.nulls(planned, pa.int64()),
        Schedule.turn: pa.nulls(planned, pa.int32()),
        Schedule.think_ns: pa.nulls(planned, pa.int64()),
    }
    return pa.table([columns[name] for name in Schedule.columns], schema=Schedule.schema)


def phases(scenario: Scenario, scheduled_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """The phase of each instant, as codes of `Phase`. In a closed loop pass the instants of sending.

    Warm-up is [0, warmup), cool-down [duration - cooldown, ∞).
    """
    load = scenario.load
    codes = np.full(len(scheduled_ns), _PHASES[Phase.STEADY], dtype=np.int8)
    codes[scheduled_ns < round(load.warmup * NS)] = _PHASES[Phase.WARMUP]
    codes[scheduled_ns >= duration_ns(scenario) - round(load.cooldown * NS)] = _PHASES[Phase.COOLDOWN]
    return codes

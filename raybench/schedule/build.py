"""The whole schedule of a scenario: the stages' instants joined with the workload's prompts and lengths."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raybench.scenario import Scenario, ScenarioError
from raybench.scenario.arrivals import Trace
from raybench.scenario.models import MOST_PLANNED
from raybench.schedule.processes import NS, offsets_ns
from raybench.schema import LoadKind, Phase, Schedule
from raybench.workload import NONE, Plan, Workload, traces
from raybench.workload.draws import THINK, Draws, Ints
from raybench.workload.lengths import pauses_ns

_PHASES = {phase: code for code, phase in enumerate(Phase)}


def load_kind(scenario: Scenario) -> LoadKind:
    """Open loop, capped client or closed loop: what the scenario's latencies may be measured from."""
    if scenario.load.concurrency is not None:
        return LoadKind.CLOSED
    return LoadKind.CAPPED if scenario.load.max_in_flight is not None else LoadKind.OPEN


def duration_ns(scenario: Scenario) -> int:
    """From t0 to the end of the last stage, nanoseconds."""
    return sum(round(stage.duration * NS) for stage in scenario.load.stages)


def build(scenario: Scenario) -> pa.Table:
    """Every planned request, with exactly the columns of `Schedule`, in planned order.

    The turns of a conversation follow their first turn row by row. Only the first has an instant: a later
    one is due when the answer before it has ended and `think_ns` has passed. In a closed loop no row has
    one.

    A pure function of the scenario (its data files included). Raises DataFileError where one of those
    cannot be used any more, ScenarioError where conversations make the schedule too long.
    """
    due = _instants(scenario)
    work = Workload(scenario)
    stages = scenario.load.stages
    traced = [_traced(scenario, work, number, len(at)) for number, at in enumerate(due)]
    own = work.plan(sum(len(at) for at, plan in zip(due, traced, strict=True) if plan is None))
    plans, scheduled, taken = [], [], 0
    for at, plan in zip(due, traced, strict=True):
        if plan is None:
            plan, taken = own.cut(taken, taken + len(at)), taken + len(at)
        instants = np.full(len(plan.prompt_id), NONE, dtype=np.int64)
        instants[plan.begins[:-1]] = at
        plans.append(plan)
        scheduled.append(instants)
    rows = [len(instants) for instants in scheduled]
    planned = sum(rows)
    if planned > MOST_PLANNED:
        raise ScenarioError(
            f"load.request.conversation: {planned:,} requests are planned with all turns; at most "
            f"{MOST_PLANNED:,} fit one schedule: fewer turns or fewer conversations"
        )
    think = np.concatenate([plan.think_ns for plan in plans])
    if scenario.load.think_time is not None:
        pause = pauses_ns(scenario.load.think_time, Draws(scenario.seed, THINK, 0), planned)
        think = np.where(think == NONE, pause, think)
    columns: dict[str, Ints] = {
        Schedule.request_id: np.arange(planned, dtype=np.int64),
        Schedule.scheduled_ns: np.concatenate(scheduled),
        Schedule.stage: np.repeat(np.arange(len(stages), dtype=np.int64), rows),
        Schedule.prompt_id: np.concatenate([plan.prompt_id for plan in plans]),
        Schedule.prompt_tokens: np.concatenate([plan.prompt_tokens for plan in plans]),
        Schedule.max_tokens: np.concatenate([plan.max_tokens for plan in plans]),
        Schedule.conversation: np.concatenate([plan.conversation for plan in plans]),
        Schedule.turn: np.concatenate([plan.turn for plan in plans]),
        Schedule.think_ns: think,
    }
    arrays = []
    for name, column in Schedule.columns.items():
        values = columns[name]
        nulls = values == NONE if column.null else None
        arrays.append(pa.array(values, pa.int64(), mask=nulls).cast(column.type))
    return pa.table(arrays, schema=Schedule.schema)


def _instants(scenario: Scenario) -> list[Ints]:
    """When each arrival of each stage is due; `NONE` for each in a closed loop."""
    found, begin_ns = [], 0
    for number, stage in enumerate(scenario.load.stages):
        if stage.arrival is None:
            found.append(np.full(stage.requests or 0, NONE, dtype=np.int64))
        else:
            found.append(begin_ns + offsets_ns(stage.arrival, stage.duration, scenario.seed, number))
        begin_ns += round(stage.duration * NS)
    return found


def _traced(scenario: Scenario, work: Workload, number: int, n: int) -> Plan | None:
    """Prompts and lengths of a stage that replays a trace with its lengths."""
    stage = scenario.load.stages[number]
    if not isinstance(stage.arrival, Trace):
        return None
    return work.plan_trace(number, traces.replay(stage.arrival, stage.duration)[1], n)


def planned_ns(table: pa.Table) -> npt.NDArray[np.int64]:
    """When each row is planned to begin: its instant, for a later turn that of its conversation's first, 0
    in a closed loop. What phases are told by before anything was sent.
    """
    instants = table[Schedule.scheduled_ns]
    if not instants.null_count:
        return np.asarray(instants.to_numpy(), dtype=np.int64)
    known = instants.is_valid().to_numpy()
    values = instants.fill_null(0).to_numpy()
    last = np.maximum.accumulate(np.where(known, np.arange(len(values)), 0))
    return np.asarray(values[last], dtype=np.int64)


def phases(scenario: Scenario, scheduled_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """The phase of each instant, as codes of `Phase`. In a closed loop pass the instants of sending.

    Warm-up is [0, warmup), cool-down [duration - cooldown, ∞).
    """
    load = scenario.load
    codes = np.full(len(scheduled_ns), _PHASES[Phase.STEADY], dtype=np.int8)
    codes[scheduled_ns < round(load.warmup * NS)] = _PHASES[Phase.WARMUP]
    codes[scheduled_ns >= duration_ns(scenario) - round(load.cooldown * NS)] = _PHASES[Phase.COOLDOWN]
    return codes

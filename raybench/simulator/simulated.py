"""A simulated run as a source of tables: what `analysis` reads as it reads a run directory."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

import pyarrow as pa

import raybench
from raybench import schedule as scheduling
from raybench.scenario import Scenario, ScenarioError
from raybench.schema import LoadKind, Manifest, RunStatus, Table
from raybench.simulator.asked import engine_of, seed_of
from raybench.simulator.run import Finished, Run
from raybench.simulator.tables import Tables


class Simulated:
    """Implements `analysis.Source`: a manifest and the six tables, in memory."""

    def __init__(self, manifest: Manifest, tables: Tables) -> None:
        self._manifest, self._tables = manifest, tables

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    def batches(self, table: type[Table], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `analysis.Source`. Requests come in planned order."""
        return self._tables.batches(table, columns)


def simulate(
    scenario: Scenario,
    *,
    repeat: int = 0,
    progress: Callable[[float], None] | None = None,
    tick_all: bool = False,
) -> Simulated:
    """The run that the scenario describes, in virtual time.

    `repeat` 0 is the scenario's own seed; repeat k draws everything random anew from (seed, k). `progress` is
    told the share of the load that is done, about once a simulated second. `tick_all` asks the policy at
    every tick, which decides the same and takes longer.

    Raises ScenarioError for a scenario with a target, DataFileError where a data file cannot be used, and
    ValueError where policy or engine refuse their settings.
    """
    if scenario.deployment is None:
        raise ScenarioError(
            "target: only a deployment can be simulated, not a server that is already there; "
            "describe it as `deployment` with engine, slots and autoscaling"
        )
    if repeat:
        scenario = scenario.model_copy(update={"seed": seed_of(scenario.seed, repeat)})
    plan = scheduling.build(scenario)
    done = Run(scenario, plan, progress=progress, tick_all=tick_all).go()
    tables = Tables(scenario, done)
    return Simulated(_manifest(scenario, plan, done, tables, repeat), tables)


def _manifest(scenario: Scenario, plan: pa.Table, done: Finished, tables: Tables, repeat: int) -> Manifest:
    deployment = scenario.deployment
    assert deployment is not None
    measured: dict[str, Any] = {
        "simulated": True,
        "engine": deployment.engine,
        "model": deployment.model,
        "slots_per_replica": deployment.slots_per_replica,
        "replica": deployment.replica.model_dump(mode="json"),
        "autoscaling": deployment.autoscaling.model_dump(mode="json"),
        "engine_model": dataclasses.asdict(engine_of(deployment)),
        "preset": deployment.emulated.preset,
    }
    if deployment.engine == "vllm":
        measured["simulated_with"] = f"the engine model of emulated.preset {deployment.emulated.preset}"
    if repeat:
        measured["repeat"] = repeat
    now_ns = time.time_ns()
    problems = []
    if not done.settled:
        at_most = (done.end_ns - done.load_ns) / 1e9
        problems.append(
            f"the deployment was not back at {deployment.autoscaling.min_replicas} replicas "
            f"{at_most:g} s after the load ended (load.settle.at_most)"
        )
    return Manifest(
        name=scenario.name,
        load_kind=LoadKind(scheduling.load_kind(scenario)),
        scenario=scenario.model_dump(mode="json"),
        schedule_sha256=scheduling.digest(plan),
        planned=plan.num_rows,
        status=RunStatus.COMPLETE,
        created_unix_ns=now_ns,
        t0_unix_ns=now_ns,
        heartbeat_unix_ns=now_ns,
        load_total_s=done.load_ns / 1e9,
        ended_unix_ns=now_ns + done.end_ns,
        generators=1,
        versions=_versions(),
        measured=measured,
        counts=tables.outcomes,
        problems=problems,
    )


def _versions() -> dict[str, str]:
    found = {"raybench": raybench.__version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in ("numpy", "pyarrow")}

"""What a measurement of one replica's capacity found, and how. Data only; `rundir.capacity` does the I/O.

The directory of such a measurement holds `capacity.json`, one object with the keys of `CapacityRun`, and a
run directory for each probe. Keys are documented in docs/capacity.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from raybench.schema.vocabulary import RunStatus

CAPACITY_VERSION = 1


@dataclass
class CapacityProbe:
    """One run at one rate. Values of objectives are seconds, or a ratio for the success rate."""

    run: str  # its run directory, inside the measurement's
    rate_per_s: float
    judged: str  # sustained, missed or invalid (see analysis.probe), or interrupted
    reasons: list[str] = field(default_factory=list)  # why it was not sustained
    warmup_s: float = 0.0
    judged_s: float = 0.0
    enough: bool = True  # as many requests as the objectives want
    planned: int = 0
    stopped_early: bool = False  # its objectives could not be met any more; values are as of then
    objectives: dict[str, float | None] = field(default_factory=dict)  # as measured; null: not to be said
    beyond: list[str] = field(default_factory=list)  # of these the value is a bound: the true one is larger
    growth_per_s: float | None = None  # seconds of E2E gained in each second of load
    growth_error: float | None = None  # its standard error


@dataclass
class CapacityRun:
    """What one replica sustains within the objectives. Rates are requests a second, open loop."""

    name: str
    scenario: dict[str, Any]  # resolved: the one replica, the request, the objectives
    precision: float  # relative width of the bracket that was asked for
    arrival: dict[str, Any]  # arrival process of every probe, but for its rate
    status: RunStatus = RunStatus.RUNNING
    capacity_version: int = CAPACITY_VERSION
    created_unix_ns: int = 0
    ended_unix_ns: int | None = None
    requests_per_s: float | None = None  # the greatest rate that was sustained
    not_sustained_per_s: float | None = None  # the least rate above it that was not
    found: bool = False  # the bracket is as narrow as asked for
    why_ended: str = ""
    alone_s: float | None = None  # an answer's time while nothing else was asked, median
    measured: dict[str, Any] = field(default_factory=dict)  # engine, model, machine … as in a run's manifest
    versions: dict[str, str] = field(default_factory=dict)
    probes: list[CapacityProbe] = field(default_factory=list)  # in the order in which they were made
    problems: list[str] = field(default_factory=list)
    exit_code: int | None = None

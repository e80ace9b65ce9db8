"""The manifest: what a run was, where it ran and how it ended. Data only; `rundir.manifest` does the I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from raybench.schema.vocabulary import LoadKind, RunStatus

FORMAT_VERSION = 1


@dataclass
class ClockSample:
    """One estimate of a host's clock: its monotonic clock minus ours, and half the round trip."""

    t_ns: int
    offset_ns: int
    uncertainty_ns: int


@dataclass
class Host:
    """A process that wrote tables, and the clock it wrote them by."""

    role: str  # "generator" or "monitor"
    number: int
    hostname: str
    boot_id: str
    pid: int
    node: str | None = None
    clock: list[ClockSample] = field(default_factory=list)
    writer: str = ""  # the name of its segments, no other process's: hosts may share pids
    t0_offset_ns: int = 0  # by so much its t0 was moved to be an instant of its own clock


@dataclass
class Manifest:
    """Everything about a run that is not a table. Times named `_unix_ns` are wall clock."""

    name: str
    load_kind: LoadKind
    scenario: dict[str, Any]  # resolved: every default filled in, no secrets
    schedule_sha256: str
    planned: int
    status: RunStatus = RunStatus.RUNNING
    format_version: int = FORMAT_VERSION
    created_unix_ns: int = 0
    t0_unix_ns: int | None = None  # wall clock at t0; null until the load starts
    t0_monotonic_ns: int | None = None  # the coordinator's monotonic clock at t0
    boot_id: str = ""  # of the coordinator's host: what t0_monotonic_ns belongs to
    heartbeat_unix_ns: int = 0
    load_total_s: float | None = None  # t0 to the last request accounted for
    ended_unix_ns: int | None = None
    generators: int = 1
    hosts: list[Host] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)  # engine, model, device, url, placement …
    counts: dict[str, int] = field(default_factory=dict)  # outcome -> rows, as the coordinator counted
    problems: list[str] = field(default_factory=list)  # what went wrong, in words
    calibration: dict[str, Any] | None = None
    exit_code: int | None = None

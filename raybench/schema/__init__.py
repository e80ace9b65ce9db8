"""Every Arrow schema, event kind, outcome and exit code, declared once.

`tables` holds the columns, `vocabulary` the closed sets of words, `manifest` the run's metadata.
Docs are generated from here (`docs/tables.md`) and a test fails when they drift.
"""

from raybench.schema.manifest import FORMAT_VERSION, ClockSample, Host, Manifest
from raybench.schema.tables import (
    TABLES,
    Events,
    Generators,
    Replicas,
    Requests,
    Schedule,
    Table,
    Timeline,
)
from raybench.schema.vocabulary import EventKind, Exit, LoadKind, Outcome, Phase, ReplicaState, RunStatus

__all__ = [
    "FORMAT_VERSION",
    "TABLES",
    "ClockSample",
    "EventKind",
    "Events",
    "Exit",
    "Generators",
    "Host",
    "LoadKind",
    "Manifest",
    "Outcome",
    "Phase",
    "ReplicaState",
    "Replicas",
    "Requests",
    "RunStatus",
    "Schedule",
    "Table",
    "Timeline",
]

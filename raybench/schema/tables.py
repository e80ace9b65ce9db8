"""Every table's columns with type, unit and meaning. Column names live nowhere else.

A table is a class; reading a column from it gives the column's name, so that code says
`Requests.sent_ns` and a misspelling is an error:

    >>> Requests.sent_ns
    'sent_ns'
    >>> Requests.schema.field(Requests.sent_ns).type
    DataType(int64)

Instants (`_ns`) are integer nanoseconds since the run's t0 on the coordinator's clock, and null where
they never happened.
"""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa

from raybench.schema.vocabulary import Outcome, Phase

SCHEMA_VERSION = 1

_OUTCOME = pa.dictionary(pa.int8(), pa.utf8())
_PHASE = pa.dictionary(pa.int8(), pa.utf8())

OUTCOMES = pa.array([str(o) for o in Outcome], pa.utf8())
"""The dictionary of every `outcome` column: code i is the i-th member of `Outcome`."""
PHASES = pa.array([str(p) for p in Phase], pa.utf8())
"""The dictionary of every `phase` column: code i is the i-th member of `Phase`."""


class Column:
    """One column: its Arrow type, unit, meaning, and whether it may be null."""

    name: str

    def __init__(self, type: pa.DataType, unit: str, meaning: str, *, null: bool = False) -> None:
        self.type, self.unit, self.meaning, self.null = type, unit, meaning, null

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> str:
        return self.name

    def field(self) -> pa.Field:
        return pa.field(
            self.name, self.type, nullable=self.null, metadata={"unit": self.unit, "meaning": self.meaning}
        )


class Table:
    """A table of a run. Subclasses declare `Column`s; `schema` and `columns` follow from them."""

    name: ClassVar[str]
    columns: ClassVar[dict[str, Column]]
    schema: ClassVar[pa.Schema]

    def __init_subclass__(cls) -> None:
        cls.name = cls.__name__.lower()
        cls.columns = {k: v for k, v in vars(cls).items() if isinstance(v, Column)}
        cls.schema = pa.schema(
            [c.field() for c in cls.columns.values()],
            metadata={"table": cls.name, "version": str(SCHEMA_VERSION)},
        )


class Schedule(Table):
    """Every planned request, made before the run. One row a request, in order of request_id."""

    request_id = Column(pa.int64(), "", "0, 1, 2 … in planned order")
    scheduled_ns = Column(
        pa.int64(), "ns", "planned instant after t0; null in a closed loop and for later turns", null=True
    )
    stage = Column(pa.int16(), "", "index of the load stage")
    prompt_id = Column(pa.int32(), "", "which prompt of the workload")
    prompt_tokens = Column(
        pa.int32(), "tokens", "planned prompt length; null where the text decides", null=True
    )
    max_tokens = Column(pa.int32(), "tokens", "limit on the answer; null for the server's own", null=True)
    conversation = Column(pa.int64(), "", "conversation of this turn; null for single turns", null=True)
    turn = Column(pa.int32(), "", "turn within the conversation, from 0; null for single turns", null=True)
    think_ns = Column(pa.int64(), "ns", "pause after the answer before this turn; null where none", null=True)


class Requests(Table):
    """One row per planned request whatever became of it."""

    request_id = Column(pa.int64(), "", "row of the schedule")
    generator = Column(pa.int16(), "", "generator that had the request")
    stage = Column(pa.int16(), "", "index of the load stage")
    phase = Column(_PHASE, "", "warmup, steady or cooldown")
    anchor_ns = Column(
        pa.int64(), "ns", "scheduled, or the earlier answer plus think time; null in a closed loop", null=True
    )
    sent_ns = Column(pa.int64(), "ns", "the client starts on the row; the timeout runs from here", null=True)
    connected_ns = Column(pa.int64(), "ns", "a connection is ready to write to", null=True)
    headers_ns = Column(pa.int64(), "ns", "the response head is complete", null=True)
    first_token_ns = Column(pa.int64(), "ns", "first chunk that carries content", null=True)
    last_token_ns = Column(pa.int64(), "ns", "last chunk that carries content", null=True)
    done_ns = Column(pa.int64(), "ns", "the exchange ended, well or badly", null=True)
    outcome = Column(_OUTCOME, "", "ok or the kind of failure")
    http_status = Column(pa.int16(), "", "status code; null without a response head", null=True)
    error = Column(pa.utf8(), "", "reason of a failure", null=True)
    prompt_tokens = Column(pa.int32(), "tokens", "from the server's usage", null=True)
    output_tokens = Column(pa.int32(), "tokens", "from the server's usage", null=True)
    chunks = Column(pa.int32(), "", "events that carried a choice's content")
    bytes = Column(pa.int64(), "bytes", "response body received")
    finish_reason = Column(pa.utf8(), "", "stop, length … as the server said", null=True)
    replica = Column(pa.utf8(), "", "replica id from the response header", null=True)
    chunk_ns = Column(
        pa.list_(pa.int64()), "ns", "chunk instants as offsets from first_token_ns; optional", null=True
    )


class Timeline(Table):
    """The state of the deployment, sampled."""

    t_ns = Column(pa.int64(), "ns", "instant of the sample")
    waiting = Column(pa.float64(), "requests", "not yet given to a replica slot", null=True)
    serving = Column(pa.float64(), "requests", "in a replica slot", null=True)
    queue_depth = Column(pa.float64(), "requests per replica", "(waiting + serving) / available", null=True)
    replicas_target = Column(pa.int32(), "replicas", "asked for by the autoscaler", null=True)
    replicas_starting = Column(pa.int32(), "replicas", "started but not yet able to serve", null=True)
    replicas_available = Column(pa.int32(), "replicas", "able to serve", null=True)
    replicas_stopping = Column(pa.int32(), "replicas", "draining or stopping", null=True)
    nodes = Column(pa.int32(), "nodes", "alive in the Ray cluster", null=True)
    in_flight = Column(pa.int32(), "requests", "sent and not done, over all generators", null=True)


class Replicas(Table):
    """Each replica, sampled."""

    t_ns = Column(pa.int64(), "ns", "instant of the sample")
    replica = Column(pa.utf8(), "", "replica id")
    node = Column(pa.utf8(), "", "Ray node id", null=True)
    state = Column(pa.utf8(), "", "starting, running, stopping or stopped")
    engine_waiting = Column(pa.float64(), "requests", "waiting inside the engine", null=True)
    engine_running = Column(pa.float64(), "requests", "running inside the engine", null=True)
    kv_cache_usage = Column(pa.float64(), "ratio", "share of the KV cache in use, 0 to 1", null=True)


class Generators(Table):
    """Each generator, sampled once a second by itself."""

    t_ns = Column(pa.int64(), "ns", "end of the interval sampled")
    generator = Column(pa.int16(), "", "generator number")
    cpu_ratio = Column(pa.float64(), "ratio", "CPU time of the event-loop thread over wall time")
    rss_bytes = Column(pa.int64(), "bytes", "resident memory of the process")
    in_flight = Column(pa.int32(), "requests", "sent and not done")
    lateness_max_ns = Column(pa.int64(), "ns", "largest lateness in the interval", null=True)


class Events(Table):
    """Things that happened once."""

    t_ns = Column(pa.int64(), "ns", "when; negative before the load began")
    kind = Column(pa.utf8(), "", "one of EventKind")
    subject = Column(pa.utf8(), "", "what it happened to")
    detail = Column(pa.utf8(), "JSON", "keys as documented for the kind")


TABLES: tuple[type[Table], ...] = (Schedule, Requests, Timeline, Replicas, Generators, Events)

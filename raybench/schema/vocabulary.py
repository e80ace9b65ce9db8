"""The closed sets of words that columns, the manifest and the command line use.

The order of `Outcome` and `Phase` is part of the format: both are stored as the int8 code of a fixed
dictionary, so members are only ever appended.
"""

from enum import IntEnum, StrEnum


class Outcome(StrEnum):
    """What became of a planned request. The nine of them add up to the plan."""

    OK = "ok"  # 2xx status and a complete answer
    HTTP_ERROR = "http_error"  # any other status; redirects are not followed
    TIMEOUT = "timeout"  # no complete answer within the timeout, counted from sent
    CONNECT_ERROR = "connect_error"  # no connection, or a connection lost before the answer began
    STREAM_CUT = "stream_cut"  # an answer that began and broke off, or an error event inside it
    PROTOCOL_ERROR = "protocol_error"  # unparsable framing, a lying length, an empty answer
    CANCELLED = "cancelled"  # sent, then given up because the run was interrupted
    NOT_SENT = "not_sent"  # still waiting for its instant or a free place when the load ended
    LOST = "lost"  # planned, but no row survives: the process that had it died


class Phase(StrEnum):
    """Where in the load a request was planned. Warm-up and cool-down are marks, never deleted rows."""

    WARMUP = "warmup"
    STEADY = "steady"
    COOLDOWN = "cooldown"


class ReplicaState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


class LoadKind(StrEnum):
    """The three kinds of load, never mixed up."""

    OPEN = "open loop"
    CAPPED = "capped client"
    CLOSED = "closed loop"


class RunStatus(StrEnum):
    RUNNING = "running"
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    KILLED = "killed"  # never written: what `running` with a stale heartbeat reads as


class Exit(IntEnum):
    """Exit codes of the command line."""

    GOOD = 0
    FAILURE = 1
    USAGE = 2
    OBJECTIVES_MISSED = 3
    INVALID = 4
    INCOMPLETE = 5
    REGRESSION = 6

    @property
    def meaning(self) -> str:
        return _EXIT_MEANING[self]

    @classmethod
    def worst(cls, codes: "list[Exit]") -> "Exit":
        """The one to leave with where several apply: 1, 5, 4, 6, 3, then 0."""
        order = (cls.FAILURE, cls.INCOMPLETE, cls.INVALID, cls.REGRESSION, cls.OBJECTIVES_MISSED)
        return next((code for code in order if code in codes), cls.GOOD)


_EXIT_MEANING = {
    Exit.GOOD: "good",
    Exit.FAILURE: "failure",
    Exit.USAGE: "wrong usage or bad input",
    Exit.OBJECTIVES_MISSED: "objectives missed",
    Exit.INVALID: "invalid run",
    Exit.INCOMPLETE: "incomplete or interrupted run",
    Exit.REGRESSION: "regression",
}


class EventKind(StrEnum):
    """What can happen once. `detail_keys` documents the JSON object in the event's `detail` column."""

    RUN_STARTED = "run_started"
    LOAD_STARTED = "load_started"
    LOAD_ENDED = "load_ended"
    RUN_ENDED = "run_ended"
    DECISION = "decision"
    TARGET_CHANGED = "target_changed"
    REPLICA_STATE = "replica_state"
    GENERATOR_LOST = "generator_lost"
    WRITE_FAILED = "write_failed"
    NOTE = "note"

    @property
    def detail_keys(self) -> dict[str, str]:
        return _EVENT_DETAIL[self]

    @property
    def meaning(self) -> str:
        return _EVENT_MEANING[self]


_EVENT_MEANING = {
    EventKind.RUN_STARTED: "the run directory exists; deployment begins. subject: run name",
    EventKind.LOAD_STARTED: "t0, the instant that every scheduled_ns counts from. subject: run name",
    EventKind.LOAD_ENDED: "the last request is accounted for; settling begins. subject: run name",
    EventKind.RUN_ENDED: "observation stopped. subject: run name",
    EventKind.DECISION: "the policy asked for another number of replicas. subject: policy",
    EventKind.TARGET_CHANGED: "the host set another target without asking the policy. subject: deployment",
    EventKind.REPLICA_STATE: "a replica was seen in a new state. subject: replica id",
    EventKind.GENERATOR_LOST: "a generator died or stopped answering. subject: generator number",
    EventKind.WRITE_FAILED: "a table could not be appended to. subject: file",
    EventKind.NOTE: "anything else worth a line in the report. subject: component",
}

_EVENT_DETAIL = {
    EventKind.RUN_STARTED: {},
    EventKind.LOAD_STARTED: {"planned": "requests in the schedule"},
    EventKind.LOAD_ENDED: {},
    EventKind.RUN_ENDED: {"status": "how it ended"},
    EventKind.DECISION: {
        "from": "replicas targeted before",
        "to": "replicas targeted now",
        "reason": "the policy's own words",
        "queue_depth": "(waiting + serving) / available at the deciding sample; null when none was available",
        "waiting": "requests waiting at that sample",
        "serving": "requests being served at that sample",
        "available": "replicas available at that sample",
        "window_s": "the policy's own window behind it, seconds: through which it held or over which it is a "
        "mean; null where there is none",
    },
    EventKind.TARGET_CHANGED: {
        "from": "replicas targeted before",
        "to": "replicas targeted now",
        "reason": "`from_zero` where one waiting request brought up the first replica",
    },
    EventKind.REPLICA_STATE: {
        "state": "starting, running, stopping or stopped",
        "node": "node id where known",
        "previous": "state before; null when first seen",
    },
    EventKind.GENERATOR_LOST: {"reason": "what was seen"},
    EventKind.WRITE_FAILED: {"reason": "the error"},
    EventKind.NOTE: {"text": "the note"},
}

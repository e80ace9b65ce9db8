"""The figures of a run as plain values: everything a report may print, nothing that still needs work.

Durations are seconds, rates are per second, instants are seconds after t0. None means that it cannot be
said from what was recorded, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raybench.analysis.drifted import Drift
from raybench.analysis.quantiles import Distribution, Value
from raybench.analysis.question import Anchor, Capacity, Objective
from raybench.schema import Exit, LoadKind, RunStatus


@dataclass(frozen=True)
class Header:
    """What was measured, from the manifest."""

    name: str
    status: RunStatus
    load_kind: LoadKind
    schedule_sha256: str
    created_unix_s: float
    load_total_s: float | None
    generators: int
    hosts: tuple[str, ...]
    versions: dict[str, str]
    measured: dict[str, Any]
    scenario: dict[str, Any]
    calibration: dict[str, Any] | None
    clock_uncertainty_s: float | None  # largest of any host; None where all share the coordinator's clock
    problems: tuple[str, ...]  # from the manifest, then from reading


@dataclass(frozen=True)
class Selected:
    """Which rows the figures below are about."""

    window_s: tuple[float, float | None] | None  # None as its end: open
    phase: str | None  # None: all phases
    phase_is_default: bool
    rows: int
    span_s: float | None  # what rates are divided by
    span_meaning: str


@dataclass(frozen=True)
class Accounting:
    """planned = the nine outcomes (+ pending, in a run that is still going). Over the whole run."""

    planned: int
    outcomes: dict[str, int]
    pending: int
    sent: int
    duplicates: int
    unknown: int

    @property
    def balances(self) -> bool:
        total = sum(self.outcomes.values()) + self.pending
        return total == self.planned and not self.duplicates and not self.unknown


@dataclass(frozen=True)
class Reason:
    outcome: str
    error: str
    count: int


@dataclass(frozen=True)
class Latencies:
    """Of requests that ended well, with timeouts censored. None in a closed loop: it has no schedule."""

    ttft_scheduled: Distribution | None
    ttft_sent: Distribution
    e2e_scheduled: Distribution | None
    e2e_sent: Distribution
    tpot: Distribution
    inter_chunk: Distribution
    failed_left_out: int  # rows of other failures, which have no latency
    without_first_token: int  # ended well, but nothing says when the first token came
    without_tpot: int  # ended well, but without usage or token instants
    one_chunk_per_token: bool  # then an inter-chunk gap is an inter-token latency


@dataclass(frozen=True)
class Steady:
    """From when on the load was in a steady state, suggested from TTFT or E2E over time, over all rows."""

    metric: str
    from_s: float  # 0: no warm-up to be seen
    reached: bool  # False: it still changes in the second half of the load


@dataclass(frozen=True)
class Throughput:
    sent_per_s: float | None
    ok_per_s: float | None
    output_tokens: int
    tokens_per_s: float | None  # the system's: output tokens over wall
    user_tokens_per_s: Distribution  # of single requests: 1/TPOT
    without_usage: int  # ended well, no token count from the server


@dataclass(frozen=True)
class Goodput:
    good: int
    per_s: float | None
    share: float | None  # of the selected planned requests


@dataclass(frozen=True)
class ObjectiveResult:
    """`value` is None where nothing was measured. What is only known to be larger than a bound is not met."""

    objective: Objective
    value: Value | None
    met: bool


@dataclass(frozen=True)
class Group:
    """The same figures for a part of the selected rows."""

    name: str
    requests: int
    ok: int
    good: int
    output_tokens: int
    ttft: Distribution
    e2e: Distribution
    tpot: Distribution
    lateness: Distribution


@dataclass(frozen=True)
class Grouping:
    by: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Verdict:
    """`word` is VALID or INVALID. `unfinished` says why a run that did not end by itself is incomplete."""

    word: str
    reasons: tuple[str, ...]
    checks: tuple[str, ...]  # each bound with what was measured
    unfinished: str | None

    @property
    def valid(self) -> bool:
        return self.word == "VALID"


@dataclass(frozen=True)
class OhaFigures:
    """What oha's summary would hold. Times in seconds; NaN is None."""

    anchor: Anchor
    successes: int
    errors: dict[str, int]
    success_rate: float | None  # 0 to 1
    total_s: float | None
    slowest_s: float | None
    fastest_s: float | None
    average_s: float | None
    requests_per_s: float | None
    total_bytes: int
    size_per_request: int | None
    size_per_s: int | None
    histogram: tuple[tuple[float, int], ...]
    percentiles: tuple[tuple[float, float | None], ...]
    status_codes: tuple[tuple[int, int], ...]
    dialup_s: tuple[float, float, float] | None  # to a ready connection: average, fastest, slowest
    toks_per_s: tuple[float, float] | None  # p5 and p95 of the single requests' decode rates
    # Why its success rate is not ours: outcomes that it takes for a success, and those that it leaves out.
    counted_as_success: dict[str, int]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Step:
    """The target changed, by the policy's decision or by the host."""

    t_s: float
    from_replicas: int | None
    to_replicas: int | None
    reason: str
    by: str  # policy, or host
    queue_depth: float | None
    window_s: float | None
    busy: bool | None  # a step down: whether a replica that it stopped was serving; None if unknown


@dataclass(frozen=True)
class ReplicaChange:
    t_s: float
    replica: str
    state: str


@dataclass(frozen=True)
class Link:
    """One instant of a chain. None where it was not seen or does not apply, and the note says why."""

    name: str
    at_s: float | None
    took_s: float | None  # since the link before it that was seen
    not_before_s: float | None  # it is no earlier than this, where samples leave room for doubt
    note: str


@dataclass(frozen=True)
class LongWait:
    request_id: int
    wait_s: float


@dataclass(frozen=True)
class Waits:
    """Requests sent and without a first token within some time, and how much of it each waited."""

    requests: int
    total_s: float
    max_s: float
    longest: tuple[LongWait, ...]  # the ten longest


@dataclass(frozen=True)
class Chain:
    """One scaling event taken apart: from the load to relief, or to the replica's end."""

    step: int  # which of `Scaling.steps`
    up: bool
    replicas: tuple[str, ...]  # that it brought, or that it stopped
    links: tuple[Link, ...]
    total_s: float | None  # first link seen to last
    waited: Waits | None  # a step up: while its replica started, asked for to ready
    cold: Waits | None  # the part of it in which nothing else was available


@dataclass(frozen=True)
class Scaling:
    """None as a whole where nothing was observed of the deployment."""

    steps: tuple[Step, ...]
    changes: tuple[ReplicaChange, ...]
    available: tuple[tuple[float, int], ...]  # (from this instant, replicas able to serve): a step function
    observed_s: tuple[float, float]
    replica_seconds: float | None  # from start requested to stopped, start-up and drain included
    nothing_available_s: float | None  # while the load was going
    steps_down_busy: int
    steps_down_unknown: int
    chains: tuple[Chain, ...] = ()  # each step that changed the target, taken apart


@dataclass(frozen=True)
class Provisioning:
    """Replicas available against those that would have sufficed, t0 to the end of observation."""

    capacity: Capacity
    needed: tuple[tuple[float, int], ...]  # (from this instant, replicas): a step function
    over_s: float
    over_area: float  # replica-seconds
    under_s: float
    under_area: float


@dataclass(frozen=True)
class Bill:
    """Of the whole run, whatever rows were selected. None as a whole where no deployment was observed."""

    replica_seconds: float | None  # from start requested to stopped, start-up and drain included
    gpus_per_replica: float | None  # as the scenario states them
    gpu_hours: float | None
    price_per_replica_hour: float | None
    cost: float | None  # in the currency of the price
    output_tokens: int
    without_usage: int  # ended well, no token count from the server
    cost_per_million_output_tokens: float | None
    good: int
    cost_per_good_request: float | None
    oscillations: int  # up, down and up again
    oscillation_within_s: float  # first up to second
    queue_area: float | None  # request-seconds of waiting, from t0 on
    queue_unknown_s: float  # time in which nothing says how many waited
    provisioning: Provisioning | None  # None without a capacity


@dataclass(frozen=True)
class Summary:
    header: Header
    selected: Selected
    anchor: Anchor
    percentiles: tuple[float, ...]
    accounting: Accounting
    reasons: tuple[Reason, ...]
    lateness: Distribution | None
    latencies: Latencies
    steady: Steady | None  # of a load that does not change by itself; None too where there is too little
    throughput: Throughput
    goodput: Goodput
    objectives: tuple[ObjectiveResult, ...]
    stages: Grouping | None
    grouping: Grouping | None
    success_rate: float | None  # ok over planned, of the selected requests
    verdict: Verdict
    oha: tuple[OhaFigures, ...]  # from sent; and from the schedule, where that was asked for
    scaling: Scaling | None
    drift: Drift | None  # of a long run, or where it was asked for
    bill: Bill | None

    @property
    def exit_code(self) -> Exit:
        """What a command that shows this summary leaves with."""
        codes = [Exit.INCOMPLETE] * (self.verdict.unfinished is not None)
        codes += [Exit.INVALID] * (not self.verdict.valid)
        codes += [Exit.OBJECTIVES_MISSED] * any(not o.met for o in self.objectives)
        return Exit.worst(codes)

"""What the publisher could have had: the same requests on the same model under other settings.

Each setting is the published scenario of the profile (scenarios/llama3-8b-every-*.yaml: open loop, every
request at its instant) or the modelled experiment, with a few keys changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from published_model import ROOT, Parameters, scenario

from raybench.analysis import summarise
from raybench.analysis.source import Source
from raybench.scenario import Scenario
from raybench.scenario.load import load
from raybench.schema import Outcome as RequestOutcome
from raybench.schema import Requests
from raybench.simulator import simulate

REPEATS = 21
AUTOSCALING = "deployment.autoscaling."
SLOTS = "deployment.slots_per_replica"
WARM = {f"{AUTOSCALING}min_replicas": 1}
BATCHED = {SLOTS: 256}


@dataclass(frozen=True)
class Setting:
    name: str
    changes: Mapping[str, Any]
    as_done: bool = False  # with the publisher's client and gateway


SETTINGS = (
    Setting("as done: capped client, one at a time", {}, as_done=True),
    Setting("open loop, one at a time", {}),
    Setting("one at a time, min 1, depth 2, window 15 s", {
        **WARM, f"{AUTOSCALING}scale_up_queue_depth": 2, f"{AUTOSCALING}autoscaling_window": "15s"}),
    Setting("batching", BATCHED),
    Setting("batching, min 1", {**BATCHED, **WARM}),
    Setting("batching, min 1, window 15 s", {**BATCHED, **WARM, f"{AUTOSCALING}autoscaling_window": "15s"}),
    Setting("batching, min 1, depths 64 and 16", {
        **BATCHED, **WARM,
        f"{AUTOSCALING}scale_up_queue_depth": 64, f"{AUTOSCALING}scale_down_queue_depth": 16}),
    Setting("batching, cold start 60 s", {**BATCHED, "deployment.emulated.startup": "60s"}),
)  # fmt: skip


def of(profile: str, setting: Setting, fitted: Parameters) -> Scenario:
    """The setting on one profile, with the fitted engine: cold start and lengths of answers."""
    if setting.as_done:
        # Judged by the objectives of the open loop, and streamed as there, or nothing had a first token.
        limits = {"ttft_p99": "2s", "e2e_p95": "60s"}
        return scenario(profile, objectives=limits, load__request__stream=True)
    engine = {
        "deployment.engine": "emulated",
        "deployment.emulated": {
            "startup": f"{fitted.cold_start_s:g}s",
            "output_tokens": {"distribution": "exponential", "mean": fitted.mean_output_tokens},
        },
    }
    changed = {**engine, **setting.changes}
    return load(ROOT / "scenarios" / f"llama3-8b-{profile}.yaml", changed)


@dataclass(frozen=True)
class Outcome:
    """Of one run. Durations in seconds from the planned instant, over all planned requests: one that failed
    or was never sent counts as longer than any, so a percentile among those is infinite.
    """

    ttft_p50_s: float
    ttft_p95_s: float
    e2e_p50_s: float
    e2e_p95_s: float
    success: float
    good: float  # share of the planned requests that met every latency objective
    replica_s: float


COLUMNS = tuple(Outcome.__dataclass_fields__)


def percentile(sorted_s: NDArray[np.float64], planned: int, percent: float) -> float:
    """Nearest rank over `planned` requests, of which the missing ones are infinitely long."""
    rank = math.ceil(percent / 100 * planned) - 1
    return float(sorted_s[rank]) if rank < len(sorted_s) else math.inf


def outcome(source: Source) -> Outcome:
    summary = summarise(source)
    ttft: list[NDArray[np.float64]] = []
    e2e: list[NDArray[np.float64]] = []
    columns = (Requests.anchor_ns, Requests.first_token_ns, Requests.done_ns, Requests.outcome)
    for batch in source.batches(Requests, columns):
        anchor, first, done, how = (batch.column(i) for i in range(4))
        ended_well = pc.equal(how.cast("string"), RequestOutcome.OK)
        for found, instant in ((ttft, first), (e2e, done)):
            took = pc.subtract(instant, anchor).filter(ended_well)
            found.append(took.to_numpy(zero_copy_only=False) / 1e9)
    planned, scaling = summary.accounting.planned, summary.scaling
    assert scaling is not None and scaling.replica_seconds is not None
    first_s, done_s = np.sort(np.concatenate(ttft)), np.sort(np.concatenate(e2e))
    return Outcome(
        ttft_p50_s=percentile(first_s, planned, 50),
        ttft_p95_s=percentile(first_s, planned, 95),
        e2e_p50_s=percentile(done_s, planned, 50),
        e2e_p95_s=percentile(done_s, planned, 95),
        success=summary.success_rate or 0.0,
        good=summary.goodput.share or 0.0,
        replica_s=scaling.replica_seconds,
    )


def simulated(profile: str, setting: Setting, fitted: Parameters, repeats: int = REPEATS) -> Outcome:
    """The median of each figure over the repeats; an odd number of them, so that it is one of theirs."""
    built = of(profile, setting, fitted)
    found = [outcome(simulate(built, repeat=k)) for k in range(1, repeats + 1)]
    return Outcome(*(median(getattr(o, name) for o in found) for name in COLUMNS))

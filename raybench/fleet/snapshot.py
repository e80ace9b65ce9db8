"""A run at one moment, for people who watch it and for the metrics that it exports."""

from __future__ import annotations

from dataclasses import dataclass, field

from raybench.fleet.timekeeper import Now
from raybench.generator import Progress


@dataclass(frozen=True)
class Snapshot:
    """A run as of now, for people who watch. Rates are per second, latencies seconds from scheduled."""

    stage: str  # deploying, preparing, load, settling, ending
    t_s: float = 0.0
    left_s: float | None = None
    planned: int = 0
    offered: int = 0
    sent: int = 0
    counts: dict[str, int] | None = None
    in_flight: int = 0
    offered_per_s: float = 0.0
    sent_per_s: float = 0.0
    ttft_p50_s: float | None = None
    e2e_p50_s: float | None = None
    lateness_p99_s: float | None = None
    rss_bytes: int = 0  # of the largest generator
    now: Now | None = None
    counted: dict[str, tuple[int, ...]] = field(default_factory=dict)  # requests in buckets: see `metrics`
    problems: tuple[str, ...] = ()  # all so far


def snapshot_of(stage: str, progress: Progress, t_s: float, now: Now) -> Snapshot:
    def seconds(ns: float | None) -> float | None:
        return None if ns is None else ns / 1e9

    return Snapshot(
        stage,
        t_s=t_s,
        sent=progress.sent,
        counts=dict(progress.outcomes),
        in_flight=progress.in_flight,
        ttft_p50_s=seconds(progress.ttft_p50_ns),
        e2e_p50_s=seconds(progress.e2e_p50_ns),
        lateness_p99_s=seconds(progress.lateness_p99_ns),
        rss_bytes=progress.rss_bytes,
        now=now,
        counted=progress.counted,
    )

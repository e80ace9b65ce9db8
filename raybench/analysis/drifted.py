"""The figures of a run's drift, as plain values. Durations in seconds, instants in seconds after t0."""

from __future__ import annotations

from dataclasses import dataclass

from raybench.analysis.quantiles import Value


@dataclass(frozen=True)
class DriftWindow:
    """Requests planned from `from_s` up to `to_s`, and how they fared. None: there was nothing to tell by."""

    from_s: float
    to_s: float
    requests: int  # that have a row
    failed: int  # of them not ok, for whatever reason
    connect_errors: int
    ttft_p50: Value | None
    ttft_p99: Value | None
    e2e_p50: Value | None
    e2e_p99: Value | None
    lateness_p99: Value | None
    rss_bytes: int | None  # the most that any generator had


@dataclass(frozen=True)
class Trend:
    """Of one column over the windows: change per hour, and the interval that holds the true one."""

    metric: str
    unit: str  # s, bytes or requests, each per hour
    per_hour: float | None  # None: no two windows under the same load
    low: float | None  # None: too few windows for an interval
    high: float | None
    windows: int  # compared with at least one other

    @property
    def direction(self) -> str:
        """Rises or falls where the interval leaves 0 out; else no trend, or unknown without an interval."""
        if self.low is None or self.high is None:
            return "unknown"
        return "rises" if self.low > 0 else "falls" if self.high < 0 else "no trend"


@dataclass(frozen=True)
class Drift:
    """Over windows of `window_s` seconds; the last one may be longer or shorter by half."""

    window_s: float
    windows: tuple[DriftWindow, ...]
    trends: tuple[Trend, ...]
    confidence: float  # of each trend's interval
    same_load: bool  # every window is under the same arrivals

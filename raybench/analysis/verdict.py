"""VALID or INVALID, with reasons: whether the generators did what the schedule said, so that the figures
speak of the server. Bounds come from the scenario's `valid`, with the project's defaults behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raybench.analysis.capacity import busiest
from raybench.analysis.figures import Accounting, Verdict
from raybench.analysis.quantiles import Distribution, Value
from raybench.analysis.question import Objective
from raybench.analysis.source import Source
from raybench.schema import Generators, LoadKind, Manifest, Outcome, RunStatus

LATENESS_FLOOR_S = 0.010
LATENESS_SHARE_OF_TTFT = 0.01
DEFAULTS = {
    "sent_ratio": 0.99,
    "lost": 0,
    "clock_uncertainty": 0.005,
    "generator_cpu_ratio": 0.9,
    "generator_capacity": 0.8,
    "ttft_error": 0.05,
}
BUSY_SAMPLES = 5
"""A generator is busy when its mean over this many samples in a row (seconds) is: one is a hiccup."""

_UNFINISHED = {
    RunStatus.RUNNING: "the run is still going",
    RunStatus.INTERRUPTED: "the run was interrupted",
    RunStatus.FAILED: "the run failed",
    RunStatus.KILLED: "the run was killed: its manifest says running, its heartbeat is stale",
}


def lateness_bound_s(bounds: Mapping[str, Any], objectives: Sequence[Objective]) -> float:
    """As stated; else 10 ms, or 1% of the strictest TTFT objective where that is more."""
    stated = bounds.get("lateness_p99")
    if stated is not None:
        return float(stated)
    ttft = [o.limit for o in objectives if o.metric == "ttft"]
    return max(LATENESS_FLOOR_S, LATENESS_SHARE_OF_TTFT * min(ttft)) if ttft else LATENESS_FLOOR_S


def verdict(
    source: Source, accounting: Accounting, lateness: Distribution | None, objectives: Sequence[Objective]
) -> Verdict:
    """`lateness`: of every request that was sent, with its 99th percentile; None in a closed loop."""
    manifest = source.manifest
    bounds = {
        **DEFAULTS,
        **{k: v for k, v in (manifest.scenario.get("valid") or {}).items() if v is not None},
    }
    checks: list[tuple[bool, str]] = [
        _balance(accounting),
        _sent(accounting, bounds),
        _lost(accounting, bounds),
    ]
    checks += _lateness(manifest, lateness, bounds, objectives)
    checks += _clock(manifest, bounds)
    checks += _cpu(source, bounds)
    checks += _calibrated(source, bounds, objectives)
    reasons = tuple(text for good, text in checks if not good)
    return Verdict(
        word="INVALID" if reasons else "VALID",
        reasons=reasons,
        checks=tuple(text for _, text in checks),
        unfinished=_UNFINISHED.get(manifest.status),
    )


def _balance(a: Accounting) -> tuple[bool, str]:
    if a.planned == 0:
        return False, "nothing was planned"
    if a.balances:
        return True, f"accounting balances: {a.planned} planned"
    accounted = sum(a.outcomes.values()) + a.pending
    parts = [f"{a.planned} planned, {accounted} accounted for"]
    parts += [f"{a.duplicates} rows repeat a request"] * bool(a.duplicates)
    parts += [f"{a.unknown} rows are of requests that were never planned"] * bool(a.unknown)
    return False, "ACCOUNTING DOES NOT BALANCE: " + ", ".join(parts)


def _sent(a: Accounting, bounds: Mapping[str, Any]) -> tuple[bool, str]:
    least = float(bounds["sent_ratio"])
    ratio = a.sent / a.planned if a.planned else 0.0
    return ratio >= least, f"sent {a.sent} of {a.planned} planned ({ratio:.2%}; at least {least:.2%} wanted)"


def _lost(a: Accounting, bounds: Mapping[str, Any]) -> tuple[bool, str]:
    lost, most = a.outcomes[Outcome.LOST], int(bounds["lost"])
    return lost <= most, f"lost {lost} requests (at most {most} allowed)"


def _lateness(
    manifest: Manifest,
    lateness: Distribution | None,
    bounds: Mapping[str, Any],
    objectives: Sequence[Objective],
) -> list[tuple[bool, str]]:
    """A capped client's rows wait for a place by design, so its lateness is judged only where asked for."""
    if lateness is None or lateness.n == 0:
        return []
    if manifest.load_kind is LoadKind.CAPPED and bounds.get("lateness_p99") is None:
        return []
    bound = lateness_bound_s(bounds, objectives)
    value = lateness.at(99) or Value(0.0)
    return [
        (
            value.value <= bound,
            f"lateness p99 {value.value * 1e3:.3g} ms (at most {bound * 1e3:.3g} ms allowed)",
        )
    ]


def clock_uncertainty_s(manifest: Manifest) -> float | None:
    """The largest of any host whose clock had to be compared; None where all use the coordinator's."""
    found = [s.uncertainty_ns for h in manifest.hosts for s in h.clock if s.offset_ns or s.uncertainty_ns]
    return max(found) / 1e9 if found else None


def _clock(manifest: Manifest, bounds: Mapping[str, Any]) -> list[tuple[bool, str]]:
    uncertainty = clock_uncertainty_s(manifest)
    if uncertainty is None:
        return []
    most = float(bounds["clock_uncertainty"])
    text = f"clock uncertainty {uncertainty * 1e3:.3g} ms (at most {most * 1e3:.3g} ms allowed)"
    return [(uncertainty <= most, text)]


def _cpu(source: Source, bounds: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """The busiest stretch of each generator while the load was going."""
    columns = [Generators.t_ns, Generators.generator, Generators.cpu_ratio]
    samples: dict[int, list[tuple[int, float]]] = {}
    end_ns = (source.manifest.load_total_s or float("inf")) * 1e9
    for batch in source.batches(Generators, columns):
        for t, generator, cpu in zip(*(c.to_pylist() for c in batch.columns), strict=True):
            if 0 < t <= end_ns:
                samples.setdefault(generator, []).append((t, cpu))
    if not samples:
        return []
    busiest = {g: _busiest([cpu for _, cpu in sorted(of)]) for g, of in samples.items()}
    worst = max(busiest, key=lambda g: busiest[g])
    most = float(bounds["generator_cpu_ratio"])
    return [
        (
            busiest[worst] <= most,
            f"generator {worst} used {busiest[worst]:.0%} of a core in its busiest {BUSY_SAMPLES} s "
            f"(at most {most:.0%} allowed)",
        )
    ]


def _busiest(cpu: list[float]) -> float:
    width = min(BUSY_SAMPLES, len(cpu))
    return float(np.convolve(cpu, np.full(width, 1 / width), "valid").max())


def _calibrated(
    source: Source, bounds: Mapping[str, Any], objectives: Sequence[Objective]
) -> list[tuple[bool, str]]:
    """What the calibration says of this run; nothing without one, or where generators ran elsewhere too."""
    manifest = source.manifest
    calibration = manifest.calibration
    if not calibration or any(h.hostname != calibration.get("hostname") for h in manifest.hosts):
        return []
    checks = []
    found = busiest(source, calibration)
    if found is not None:
        most = float(bounds["generator_capacity"])
        text = (
            f"generator {found.generator} needed {found.share:.0%} of its calibrated capacity in its busiest "
            f"second: {found.requests:.0f} requests, {found.chunks:.0f} chunks (at most {most:.0%} allowed)"
        )
        checks.append((found.share <= most, text))
    limits = [o.limit for o in objectives if o.metric == "ttft"]
    error_ns = calibration.get("ttft_error_p99_ns")
    if limits and isinstance(error_ns, int | float):
        most_s = float(bounds["ttft_error"]) * min(limits)
        text = (
            f"calibrated error of TTFT, p99, {error_ns / 1e6:.3g} ms (at most {most_s * 1e3:.3g} ms allowed: "
            f"{float(bounds['ttft_error']):.0%} of the strictest objective)"
        )
        checks.append((error_ns / 1e9 <= most_s, text))
    return checks

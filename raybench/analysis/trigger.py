"""What made the autoscaler step: when the threshold was crossed and when its window had passed.

Known for the queue-depth policy, whose rule is a depth held through a window, and for the host's first
replica, which one waiting request brings up. Other policies decide by figures that no table holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raybench.analysis.answers import FirstSent
from raybench.analysis.observed import Event, Observed, Samples, real, replicas
from raybench.schema import EventKind, Manifest

QUEUE_DEPTH = "queue_depth"
LATE_NS = 1_500_000_000
"""A decision this much later than the end of its window was held up by something."""


@dataclass(frozen=True)
class Trigger:
    """Instants in ns; None where not visible, and the note says why. `not_before`: the last sample that was
    still on the other side of the threshold.
    """

    crossed: int | None
    crossed_note: str
    not_before: int | None
    elapsed: int | None
    elapsed_note: str


def trigger(
    manifest: Manifest, seen: Observed, step: Event, up: bool, before: Event | None, first: FirstSent | None
) -> Trigger:
    """Of one step; `before`: the step that moved the target last; `first`: from zero, the first request sent
    while nothing was available.
    """
    if step.kind == EventKind.TARGET_CHANGED:
        no_window = "no window: the host did not ask the policy"
        if first is None:
            return Trigger(None, "the host set the target without asking the policy", None, None, no_window)
        if first.at is None:
            return Trigger(None, "no request was sent before it", None, None, no_window)
        return Trigger(first.at, "a request was sent and nothing was available", None, None, no_window)
    if step.subject != QUEUE_DEPTH:
        note = f"policy {step.subject} does not decide by a threshold of depth"
        return Trigger(None, note, None, None, note)
    autoscaling = (manifest.scenario.get("deployment") or {}).get("autoscaling") or {}
    limit = real(autoscaling.get("scale_up_queue_depth" if up else "scale_down_queue_depth"))
    window_s = real(step.detail.get("window_s")) or real(autoscaling.get("autoscaling_window"))
    if limit is None or window_s is None:
        note = "the scenario does not state the threshold and the window"
        return Trigger(None, note, None, None, note)
    return _held(seen, step, up, before, limit, window_s, autoscaling)


def _held(
    seen: Observed,
    step: Event,
    up: bool,
    before: Event | None,
    limit: float,
    window_s: float,
    autoscaling: dict[str, Any],
) -> Trigger:
    strict = autoscaling.get("threshold") == "strict"
    depth, window = real(step.detail.get("queue_depth")), round(window_s * 1e9)
    if depth is not None and not _past(np.array([depth]), limit, up, strict)[0]:
        note = f"decided by something else: the depth was {depth:.3g}"
        return Trigger(None, note, None, None, note)
    idle = not up and replicas(step)[1] == 0
    crossed, not_before = _stretch(seen.samples, step.t_ns, limit, up, strict, idle)
    # A step begins the window anew. The policy looks more often than the timeline, and by its own words it
    # saw a whole window: so it is no later than a window before the decision.
    anew = before is not None and (crossed is None or before.t_ns > crossed)
    anew = anew and before is not None and before.t_ns + window <= step.t_ns + LATE_NS
    if crossed is None or (crossed + window > step.t_ns and not anew):
        crossed = step.t_ns - window
        not_before = not_before if not_before is not None and not_before < crossed else None
    sign = (">" if up else "<") + ("" if strict else "=")
    note = f"queue depth {sign} {limit:g}" + (", nothing waiting or being served" if idle else "")
    start = before.t_ns if anew and before is not None and before.t_ns > crossed else crossed
    elapsed = min(start + window, step.t_ns)
    said = f"{window_s:g} s" + (" from the step before, which began it anew" if start != crossed else "")
    if step.t_ns - elapsed > LATE_NS:
        starting = any(
            life.requested < step.t_ns and (life.running is None or life.running > elapsed)
            for life in seen.lives
            if life.step is not None and seen.steps[life.step].t_ns < step.t_ns
        )
        waited = "the step then waited for a replica that was starting"
        dipped = "then held up, or begun anew between two samples"
        said += f"; {waited if up and starting else dipped}"
    return Trigger(crossed, note, not_before, elapsed, said)


def _stretch(
    samples: Samples, t: int, limit: float, up: bool, strict: bool, idle: bool
) -> tuple[int | None, int | None]:
    """(first sample of the unbroken stretch past the threshold up to `t`, last sample before it). Samples
    that do not know the depth tell nothing, unless nothing was available: then there was none.
    """
    known = (samples.t <= t) & (~np.isnan(samples.depth) | (samples.available == 0))
    past = samples.at(known)
    right = _past(past.depth, limit, up, strict)
    if idle:
        right &= (past.waiting == 0) & (past.serving == 0)
    if not len(right) or not right[-1]:
        return None, int(past.t[-1]) if len(right) else None
    wrong = np.flatnonzero(~right)
    start = int(wrong[-1]) + 1 if len(wrong) else 0
    return int(past.t[start]), int(past.t[start - 1]) if start else None


def _past(depth: NDArray[np.float64], limit: float, up: bool, strict: bool) -> NDArray[np.bool_]:
    """NaN is on neither side."""
    if up:
        return np.asarray(depth > limit if strict else depth >= limit, np.bool_)
    return np.asarray(depth < limit if strict else depth <= limit, np.bool_)

"""What a search for settings found, as plain values. The fields are described in docs/tuning.md."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from raybench.tuning.confidence import least_share
from raybench.tuning.found import Confirmation, Saving

if TYPE_CHECKING:
    from raybench.report.tuned import Tuning

VERSION = 1


def to_object(t: Tuning) -> dict[str, Any]:
    """Dicts, lists and numbers; null is what cannot be said."""
    f = t.found
    return {
        "tuning_version": VERSION,
        "exit_code": int(f.exit_code),
        "scenario": t.scenario.name,
        "objectives": {o.name: o.limit for o in t.objectives},
        "against": t.against.name,
        "confidence": t.rules.confidence,
        "share": t.rules.share,
        "repeats": t.rules.runs,
        "random": f.random,
        "interrupted": f.interrupted,
        "simulated_runs": f.simulated,
        "left_out": t.searched.left_out,
        "price_per_replica_hour": t.price_per_replica_hour,
        "chosen": f.chosen,
        "nearest": f.nearest,
        "saving": None if f.saving is None else _saving(f.saving),
        "frontier": list(f.frontier),
        "confirmations": [_confirmation(c) for c in f.confirmations],
        "settings": [_setting(t, i) for i in range(len(f.standings))],
        "confirming_scenario": t.confirming,
    }


def _saving(s: Saving) -> dict[str, Any]:
    return {
        "runs": s.runs,
        "replica_seconds": s.replica_seconds,
        "half_interval": s.half,
        "share": s.share,
        "own_met": s.own_met,
    }


def _confirmation(c: Confirmation) -> dict[str, Any]:
    return {
        "setting": c.setting,
        "runs": c.runs,
        "met": c.met,
        "misses_allowed": c.allowed,
        "error": c.error,
        "least_share": least_share(c.met, c.runs, c.error),
        "passed": c.passed,
    }


def _setting(t: Tuning, i: int) -> dict[str, Any]:
    s, setting = t.found.standings[i], t.searched.settings[i]
    return {
        "number": i,
        "policy": setting.policy,
        "values": dict(setting.values),
        "autoscaling": setting.written,
        "fate": str(s.fate),
        "by": s.by,
        "runs": s.runs,
        "met": s.met,
        "invalid": s.invalid,
        "replica_seconds": s.replica_seconds,
        "half_interval": s.replica_seconds_half,
        "cost": t.cost(s.replica_seconds),
        "goodput_per_s": s.goodput_per_s,
        "against": _finite(s.against),
        "objectives": {
            o.name: {"value": _finite(value), "missed": missed}
            for o, value, missed in zip(t.objectives, s.values, s.missed, strict=bool(s.values))
        },
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

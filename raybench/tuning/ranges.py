"""Where to look when nobody says: a few values around the scenario's own, for each policy.

    thresholds, targets     half, the same, twice
    windows and delays      a quarter, half, the same, twice (of several delays: fewer values each)
    minimum                 0, the scenario's own and 1
    maximum                 from 1 to the scenario's own: it says how many replicas there can be

For a policy that is not the scenario's, targets are around the slots of a replica and delays around the
scenario's window.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from raybench.policies import parameters
from raybench.scenario import Autoscaling
from raybench.scenario.units import seconds

Ranges = dict[str, list[Any]]
"""Key -> values as a scenario writes them."""

BOUNDS = ("min_replicas", "max_replicas")
MOST_MAXIMA = 4

HALVES = (0.5, 1, 2)
QUARTERS = (0.25, 0.5, 1, 2)
DELAYS = (0.5, 1, 4)

_TARGETS: dict[str, dict[str, Sequence[float]]] = {
    "target_ongoing": {"target_ongoing_requests": HALVES},
    "hpa": {"target_average_value": HALVES},
    "knative": {"target_concurrency": HALVES},
}
"""Requests a replica: factors of the slots, or of the scenario's own value."""

_DELAYS: dict[str, dict[str, Sequence[float]]] = {
    "target_ongoing": {"upscale_delay": (0.25, 0.5, 1), "downscale_delay": DELAYS},
    "hpa": {"sync_period": (0.25, 1), "scale_down_stabilization": DELAYS, "cooldown_period": DELAYS},
    "knative": {"stable_window": QUARTERS, "scale_to_zero_grace_period": (0.5, 1)},
}
"""Factors of the scenario's window, or of its own value."""


def default_ranges(policy: str, own: Autoscaling, slots: int) -> Ranges:
    """The values to search for `policy`; only the bounds for one that raybench does not know."""
    most = own.max_replicas
    if policy == "fixed":
        return {"replicas": maxima(most)}
    found: Ranges = {}
    if policy == "queue_depth":
        down = own.scale_down_queue_depth
        found["scale_up_queue_depth"] = _times(own.scale_up_queue_depth, HALVES)
        found["scale_down_queue_depth"] = _times(down, (0, 1, 2)) if down else [0, 1]
        found["autoscaling_window"] = _times(own.autoscaling_window, QUARTERS, "s")
    else:
        options = own.policy_options if policy == own.policy else {}
        known = parameters(policy, Autoscaling).options
        for key, factors in _TARGETS.get(policy, {}).items():
            found[key] = _times(_stated(key, options, known) if policy == own.policy else slots, factors)
        for key, factors in _DELAYS.get(policy, {}).items():
            base = _stated(key, options, known) if policy == own.policy else own.autoscaling_window
            found[key] = _times(base, factors, "s")
    found["min_replicas"] = sorted({0, own.min_replicas, min(1, most)})
    found["max_replicas"] = maxima(most)
    return found


def maxima(most: int) -> list[int]:
    """1 to `most`, or a few of them."""
    if most <= MOST_MAXIMA:
        return list(range(1, most + 1))
    return sorted({max(1, round(most * (i + 1) / MOST_MAXIMA)) for i in range(MOST_MAXIMA)})


def written_value(key: str, value: Any) -> Any:
    """A value of a model or a constructor as a scenario writes it: a duration with its unit."""
    if value is inspect.Parameter.empty or isinstance(value, bool) or not isinstance(value, int | float):
        return None if value is inspect.Parameter.empty else value
    is_duration = key.endswith("_s") or key == "autoscaling_window"
    return f"{value:g}s" if is_duration else _whole(value)


def _stated(key: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> float:
    value = options.get(key, known[key])
    read = seconds(value.strip()) if isinstance(value, str) else value
    return float(read or 0)


def _times(base: float, factors: Sequence[float], unit: str = "") -> list[Any]:
    values = dict.fromkeys(base * factor for factor in factors)
    return [f"{value:g}{unit}" if unit else _whole(value) for value in values]


def _whole(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value

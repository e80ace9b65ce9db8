"""Autoscaling policies: observation in, decision out. The same objects decide in Serve and in the simulator.

To add one: a class that implements `base.Policy` in a module of its own (standard library only), and a line
in `POLICIES`; or, without touching raybench, `policy: your_module:YourClass` in the scenario.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any, cast

from raybench.policies.base import Decision, Observation, Policy
from raybench.policies.fixed import Fixed
from raybench.policies.hpa import Hpa
from raybench.policies.knative import Knative
from raybench.policies.queue_depth import QueueDepth
from raybench.policies.target_ongoing import TargetOngoing

if TYPE_CHECKING:
    from raybench.scenario.models import Autoscaling

__all__ = [
    "POLICIES",
    "Decision",
    "Fixed",
    "Hpa",
    "Knative",
    "Observation",
    "Policy",
    "QueueDepth",
    "TargetOngoing",
    "make",
]

POLICIES: dict[str, type[Any]] = {
    QueueDepth.name: QueueDepth,
    TargetOngoing.name: TargetOngoing,
    Hpa.name: Hpa,
    Knative.name: Knative,
    Fixed.name: Fixed,
}


def make(name: str, autoscaling: Autoscaling) -> Policy:
    """The policy called `name` (a key of `POLICIES`, or `module:Class`), set up from the scenario.

    The class is given those of the scenario's autoscaling settings that its constructor names; a duration
    comes in seconds under its name with `_s`. Raises ValueError when there is no such policy, when it asks
    for a setting that does not exist, or when it refuses the values.
    """
    found = _find(name)
    settings: dict[str, Any] = {key: getattr(autoscaling, key) for key in type(autoscaling).model_fields}
    settings["autoscaling_window_s"] = settings.pop("autoscaling_window")
    wanted = inspect.signature(found).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in wanted):
        unknown = [
            p.name
            for p in wanted
            if p.default is p.empty and p.name not in settings and p.kind != p.VAR_POSITIONAL
        ]
        if unknown:
            raise ValueError(
                f"policy {name!r} asks for {', '.join(unknown)}; there is {', '.join(sorted(settings))}"
            )
        settings = {p.name: settings[p.name] for p in wanted if p.name in settings}
    return cast(Policy, found(**settings))


def _find(name: str) -> type[Any]:
    module, colon, attribute = name.partition(":")
    if not colon:
        if name in POLICIES:
            return POLICIES[name]
        raise ValueError(
            f"no policy {name!r}; there is {', '.join(sorted(POLICIES))}, or `module:Class` for your own"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"policy {name!r} cannot be imported: {error}") from error
    if not (inspect.isclass(found) and callable(getattr(found, "decide", None))):
        raise ValueError(f"policy {name!r} is not a class with a method decide(seen)")
    return found

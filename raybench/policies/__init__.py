"""Autoscaling policies: observation in, decision out. The same objects decide in Serve and in the simulator.

To add one: a class that implements `base.Policy` in a module of its own (standard library only), and a line
in `POLICIES`; or, without touching raybench, `policy: your_module:YourClass` in the scenario.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

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
    "NoSuchPolicyError",
    "Observation",
    "OptionError",
    "Parameters",
    "Policy",
    "QueueDepth",
    "TargetOngoing",
    "make",
    "parameters",
]

POLICIES: dict[str, type[Any]] = {
    QueueDepth.name: QueueDepth,
    TargetOngoing.name: TargetOngoing,
    Hpa.name: Hpa,
    Knative.name: Knative,
    Fixed.name: Fixed,
}


class NoSuchPolicyError(ValueError):
    """No policy has this name, or its class cannot be had from here."""


class OptionError(ValueError):
    """An entry of `policy_options` that the policy does not have or cannot read, and what is `right`."""

    def __init__(self, option: str, right: str) -> None:
        super().__init__(f"policy_options.{option}: {right}")
        self.option, self.right = option, right


class Parameters(NamedTuple):
    """What a policy's constructor takes, by the names of a scenario: durations without their `_s`."""

    settings: frozenset[str]  # of the scenario's autoscaling
    options: dict[str, Any]  # of `policy_options`, with the constructor's own value or `Parameter.empty`
    any_option: bool


def parameters(name: str, autoscaling: type[Autoscaling]) -> Parameters:
    """The parameters of the policy called `name`. Raises ValueError where there is no such policy."""
    found = inspect.signature(_find(name)).parameters.values()
    fields = set(autoscaling.model_fields) - {"policy_options"}
    named = {p.name.removesuffix("_s"): p for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in found)
    return Parameters(
        settings=frozenset(fields if takes_any else fields & named.keys()),
        options={key: p.default for key, p in named.items() if key not in fields},
        any_option=takes_any,
    )


def make(name: str, autoscaling: Autoscaling) -> Policy:
    """The policy called `name` (a key of `POLICIES`, or `module:Class`), set up from the scenario.

    The class is given those of the scenario's autoscaling settings that its constructor names, and whatever
    `policy_options` has for it; a duration comes in seconds under its name with `_s`. Raises ValueError when
    there is no such policy, when it asks for a setting that does not exist, when an option is not one of its
    own, or when it refuses the values.
    """
    found = _find(name)
    settings: dict[str, Any] = {key: getattr(autoscaling, key) for key in type(autoscaling).model_fields}
    given = settings.pop("policy_options")
    settings["autoscaling_window_s"] = settings.pop("autoscaling_window")
    parameters = inspect.signature(found).parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    options = _options(given, named, takes_any, reserved={*settings, "autoscaling_window"})
    needed = {p.name for p in parameters if p.default is p.empty and p.name in named}
    if unknown := sorted(needed - {*settings, *options}):
        raise ValueError(
            f"policy {name!r} asks for {', '.join(unknown)}; there is {', '.join(sorted(settings))}, "
            "and whatever policy_options says"
        )
    if not takes_any:
        settings = {key: value for key, value in settings.items() if key in named}
    try:
        return cast(Policy, found(**settings, **options))
    except TypeError as error:  # a word where a number belongs, say
        raise ValueError(f"policy {name!r} cannot be made of these values: {error}") from error


def _options(
    given: Mapping[str, Any], named: Collection[str], takes_any: bool, reserved: Collection[str]
) -> dict[str, Any]:
    """Options as arguments. `x` where the constructor has `x_s` is a duration with its unit, such as 60s."""
    from raybench.scenario.units import seconds  # the scenario knows policies by name; so not before now

    made: dict[str, Any] = {}
    for key, value in given.items():
        if key in reserved:
            raise OptionError(key, f"belongs to autoscaling itself: deployment.autoscaling.{key}")
        if key in named:
            made[key] = value
        elif f"{key}_s" in named:
            found = seconds(value.strip()) if isinstance(value, str) else None
            if found is None and (value != 0 or isinstance(value, bool)):
                raise OptionError(key, "should be a duration with its unit, such as 500ms, 60s or 1h30m")
            made[f"{key}_s"] = found or 0.0
        elif takes_any:
            made[key] = value
        else:
            known = sorted({n.removesuffix("_s") for n in named} - {*reserved})
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
            there = ", ".join(known) or "none"
            hint = f"did you mean {near[0]}?" if near else f"there is {there}"
            raise OptionError(key, f"the policy has no such option; {hint}")
    return made


def _find(name: str) -> type[Any]:
    module, colon, attribute = name.partition(":")
    if not colon:
        if name in POLICIES:
            return POLICIES[name]
        raise NoSuchPolicyError(
            f"no policy {name!r}; there is {', '.join(sorted(POLICIES))}, or `module:Class` for your own"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise NoSuchPolicyError(f"policy {name!r} cannot be imported: {error}") from error
    if not (inspect.isclass(found) and callable(getattr(found, "decide", None))):
        raise ValueError(f"policy {name!r} is not a class with a method decide(seen)")
    return found

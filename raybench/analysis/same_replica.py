"""Whether a capacity that was measured somewhere is that of a run's replicas: same engine, model, slots,
request and objectives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from raybench.analysis.question import Capacity
from raybench.schema.capacity import CapacityRun
from raybench.schema.vocabulary import RunStatus

_REPLICA = ("engine", "model", "slots_per_replica", "max_queued_requests", "engine_args", "sampling")
_RESOURCES = ("gpus", "accelerator")
_EMULATED_ELSEWHERE = ("startup", "faults")
"""Of the emulated engine, what does not change how fast it serves."""
_NOT_ASKED = ("timeout",)
"""Of the request, what the server is not told."""


def differences(measured: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """Of two resolved scenarios, what makes one replica of theirs differ in what it sustains, a text each:
    `deployment.slots_per_replica: 4 there, 8 here`.
    """
    there, here = dict(_facts(measured)), dict(_facts(wanted))
    keys = [*there, *(key for key in here if key not in there)]
    return tuple(
        f"{key}: {_shown(there.get(key))} there, {_shown(here.get(key))} here"
        for key in keys
        if there.get(key) != here.get(key)
    )


def capacity(run: CapacityRun, path: str, wanted: Mapping[str, Any], *, anyway: bool = False) -> Capacity:
    """The capacity that the run at `path` found, for a scenario. Raises ValueError, in one line, where it
    found none or, but for `anyway`, where it is of another replica; its source then says so.
    """
    if run.requests_per_s is None:
        raise ValueError(f"--capacity {path}: no rate was sustained in it ({run.why_ended or run.status})")
    others = differences(run.scenario, wanted)
    if others and not anyway:
        raise ValueError(
            f"--capacity {path}: measured on something else ({'; '.join(others)}); "
            "--capacity-anyway takes it all the same"
        )
    source = f"measured: {path}"
    if run.measured.get("engine") == "emulated":
        source += ", emulated engine"
    if not run.found:
        rest = "not finished" if run.status is RunStatus.RUNNING else str(run.status)
        below = f" and below {run.not_sustained_per_s:.4g}/s" if run.not_sustained_per_s else ""
        source += f", at least that{below} ({rest})"
    if others:
        source += f", on something else: {'; '.join(others)}"
    return Capacity(run.requests_per_s, source)


def _facts(scenario: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    deployment, target = scenario.get("deployment") or {}, scenario.get("target") or {}
    for key in _REPLICA:
        yield from _flat(deployment.get(key), f"deployment.{key}")
    for key in _RESOURCES:
        yield from _flat((deployment.get("replica") or {}).get(key), f"deployment.replica.{key}")
    if deployment.get("engine") == "emulated":
        emulated = deployment.get("emulated") or {}
        own = {k: v for k, v in emulated.items() if k not in _EMULATED_ELSEWHERE}
        yield from _flat(own, "deployment.emulated")
    yield from _flat(target.get("model"), "target.model")
    load = scenario.get("load") or {}
    yield from _flat(load.get("api"), "load.api")
    request = {k: v for k, v in (load.get("request") or {}).items() if k not in _NOT_ASKED}
    if isinstance(request.get("prompts"), str):
        request["prompts"] = PurePath(request["prompts"]).name  # a copy elsewhere is the same file
    yield from _flat(request, "load.request")
    yield from _flat(scenario.get("objectives"), "objectives")


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Mappings are opened, lists are values; nothing and null are the same."""
    if isinstance(value, Mapping):
        for k, v in value.items():
            yield from _flat(v, f"{key}.{k}")
    elif value is not None:
        yield key, value


def _shown(value: Any) -> str:
    text = "none" if value is None else f"{value}"
    return text if len(text) <= 40 else text[:37] + "…"

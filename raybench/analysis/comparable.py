"""What differs between runs, and whether they may be compared at all.

What was asked must be the same: the model, the prompts, the load and the objectives. What answered may
differ, that is what comparisons are for: engine, replicas, autoscaling, versions, machine. It is listed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from raybench.schema import Manifest


@dataclass(frozen=True)
class Difference:
    """A key of the scenario or the manifest whose value is not the same in all runs, as JSON text by side."""

    key: str
    base: tuple[str, ...]
    new: tuple[str, ...]
    matters: bool  # then the runs are not comparable

    def __str__(self) -> str:
        return f"{self.key}: {', '.join(self.base)} against {', '.join(self.new)}"


class NotComparable(Exception):
    """The runs answer different questions; `differences` says in what."""

    def __init__(self, differences: Sequence[Difference]) -> None:
        self.differences = tuple(differences)
        lines = "\n".join(f"  {d}" for d in self.differences)
        super().__init__(f"these runs did not measure the same thing:\n{lines}")


def differences(base: Sequence[Manifest], new: Sequence[Manifest]) -> tuple[Difference, ...]:
    """Every key that is not the same in all runs, what matters first."""
    facts = [_facts(m) for m in (*base, *new)]
    keys = sorted({key for fact in facts for key in fact}, key=lambda k: (not _matters(k), k))
    found = []
    for key in keys:
        values = [_text(fact.get(key)) for fact in facts]
        if len(set(values)) > 1:
            before, after = values[: len(base)], values[len(base) :]
            found.append(
                Difference(key, tuple(dict.fromkeys(before)), tuple(dict.fromkeys(after)), _matters(key))
            )
    return tuple(found)


_MUST_MATCH = (
    "kind of load",
    "model",
    "load.api",
    "load.stages",
    "load.request.",
    "load.warmup",
    "load.cooldown",
    "load.max_in_flight",
    "load.concurrency",
    "load.think_time",
    "objectives.",
)
_UNINTERESTING = {"name", "description", "load.record_chunks"}


def _matters(key: str) -> bool:
    return key.startswith(_MUST_MATCH)


def _facts(manifest: Manifest) -> dict[str, Any]:
    """Flat: dotted keys of the scenario, and what the manifest itself says. A data file counts by its name,
    so that a run copied from another machine compares.
    """
    scenario = manifest.scenario
    facts = {k: v for k, v in _flat(scenario, "") if k not in _UNINTERESTING}
    for key in ("deployment.model", "target.model"):
        if key in facts:
            facts["model"] = facts.pop(key)
    prompts = facts.get("load.request.prompts")
    if isinstance(prompts, str):
        facts["load.request.prompts"] = PurePath(prompts).name
    facts["kind of load"] = str(manifest.load_kind)
    facts["schedule hash"] = manifest.schedule_sha256[:12]
    facts["generators used"] = manifest.generators
    facts |= {f"version of {k}": v for k, v in manifest.versions.items()}
    if manifest.measured.get("simulated"):
        facts["simulated"] = True
    machine = manifest.measured.get("machine")
    facts |= {f"machine.{k}": v for k, v in machine.items()} if isinstance(machine, Mapping) else {}
    return facts


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Mappings are opened, lists are values; nothing and null are the same."""
    if isinstance(value, Mapping):
        for k, v in value.items():
            yield from _flat(v, f"{key}.{k}" if key else str(k))
    elif value is not None:
        yield key, value


def _text(value: Any) -> str:
    return "(none)" if value is None else json.dumps(value, ensure_ascii=False, default=str)

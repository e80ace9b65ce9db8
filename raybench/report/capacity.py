"""What one replica sustains, in words: the finding, how it was made, and every probe."""

from __future__ import annotations

import dataclasses
import json as plain_json
from typing import Any

from raybench.analysis.question import SUCCESS_RATE, Objective, scenario_objectives
from raybench.report import markdown, text
from raybench.report.blocks import Grid, Lines, Pairs, Section
from raybench.report.units import NOTHING, bound, duration, number, percent
from raybench.schema.capacity import CapacityProbe, CapacityRun

FORMATS = ("text", "markdown", "json")


def render(found: CapacityRun, format: str = "text") -> str:
    """As JSON, what `capacity.json` holds. Raises ValueError for a format there is not."""
    if format == "json":
        return plain_json.dumps(dataclasses.asdict(found), indent=1, ensure_ascii=False, allow_nan=False)
    if format not in FORMATS:
        raise ValueError(f"format {format!r}: one of {', '.join(FORMATS)} is right")
    document = {"text": text.document, "markdown": markdown.document}[format]
    return document(sections(found))


def sections(found: CapacityRun) -> list[Section]:
    objectives = scenario_objectives(found.scenario)
    measured = found.measured
    rows = [
        ("one replica", verdict(found)),
        ("within", ", ".join(map(_objective, objectives))),
        ("ended", f"{found.status}: {found.why_ended}" if found.why_ended else str(found.status)),
        ("alone", f"{duration(found.alone_s)} an answer" if found.alone_s else ""),
        ("arrivals", ", ".join(str(v) if k == "process" else f"{k} {v}" for k, v in found.arrival.items())),
        ("engine", str(measured.get("engine") or NOTHING)),
        ("model", str(measured.get("model") or NOTHING)),
        ("slots", number(measured["slots_per_replica"]) if measured.get("slots_per_replica") else ""),
    ]
    blocks = [Pairs(tuple((k, v) for k, v in rows if v))]
    warning = [Lines(("*** EMULATED ENGINE: its speed is a model's, not a GPU's. ***",))]
    problems = [Lines(tuple(f"problem: {p}" for p in found.problems))] * bool(found.problems)
    emulated = measured.get("engine") == "emulated"
    first = Section(f"Capacity: {found.name}", (*(warning * emulated), *blocks, *problems))
    return [first, _probes(found, objectives)] if found.probes else [first]


def verdict(found: CapacityRun) -> str:
    """The finding in one line."""
    low, high = found.requests_per_s, found.not_sustained_per_s
    if low is None:
        if high is None:
            return "nothing is known of what it sustains"
        return f"does not sustain {rate(high)}; nothing lower was sustained"
    if high is None:
        return f"sustains {rate(low)}; how much more is not known"
    wide = (high - low) / low
    asked = f"{wide:.1%} apart, {found.precision:.0%} asked for" if not found.found else f"{wide:.1%} apart"
    return f"sustains {rate(low)}, not {rate(high)} ({asked})"


def rate(per_s: float) -> str:
    return f"{per_s:.4g} requests/s"


def _objective(o: Objective) -> str:
    return f"{o.name} {percent(o.limit)}" if o.metric == SUCCESS_RATE else f"{o.name} {duration(o.limit)}"


def _probes(found: CapacityRun, objectives: tuple[Objective, ...]) -> Section:
    names = [o.name for o in objectives]
    head = ("probe", "rate", "judged over", "requests", *names, "growth", "judged")
    rows = tuple(_row(p, objectives) for p in found.probes)
    notes = [f"{p.run}: {'; '.join(p.reasons)}" for p in found.probes if p.reasons]
    notes.append("growth: seconds by which E2E gets longer in each second of load, ± its standard error.")
    if any(not p.enough for p in found.probes):
        notes.append("* fewer requests than its objectives want; a longer --probe-at-most gives it more.")
    grid = Grid(head, rows, left=(0, len(head) - 1))
    return Section("Probes", (grid, Lines(tuple(notes))))


def _row(p: CapacityProbe, objectives: tuple[Objective, ...]) -> tuple[str, ...]:
    grown = NOTHING
    if p.growth_per_s is not None and p.growth_error is not None:
        grown = f"{p.growth_per_s:+.3f} ± {p.growth_error:.3f}"
    return (
        p.run,
        f"{p.rate_per_s:.4g}/s",
        duration(p.judged_s),
        number(p.planned) + ("" if p.enough else "*"),
        *(_value(p, o) for o in objectives),
        grown,
        p.judged + (" (stopped early)" if p.stopped_early else ""),
    )


def _value(p: CapacityProbe, o: Objective) -> str:
    value: Any = p.objectives.get(o.name)
    if value is None:
        return NOTHING
    if o.metric == SUCCESS_RATE:
        return percent(value)
    return bound(value) if o.name in p.beyond else duration(value)

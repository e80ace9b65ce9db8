"""The repeats of a simulation as a section of its report, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from raybench.report.blocks import Grid, Lines, Section
from raybench.report.units import NOTHING, duration, number

if TYPE_CHECKING:
    from raybench.simulator.bands import Band, Bands


def section(bands: Bands) -> Section:
    """Each headline figure of this run beside its band over the repeats."""
    done = f"{bands.repeats} of {bands.wanted}" if bands.repeats < bands.wanted else f"{bands.repeats}"
    rows = tuple(
        (
            _words(band.name),
            _shown(band, band.first),
            *(_shown(band, v) for v in (band.p5, band.p50, band.p95)),
        )
        for band in bands.figures
    )
    lines = [f"{done} repeats, each with its own arrivals and answers; this run is the first of them."]
    fewer = [band for band in bands.figures if band.repeats < bands.repeats]
    lines += [f"{_words(b.name)}: {bands.repeats - b.repeats} repeats cannot say it." for b in fewer]
    return Section("Repeats", (Grid(("figure", "this run", "p5", "p50", "p95"), rows), Lines(tuple(lines))))


def to_object(bands: Bands) -> dict[str, Any]:
    """Plain dicts and numbers; a latency among the timeouts is null."""
    found = {}
    for band in bands.figures:
        values = dataclasses.asdict(band)
        name = values.pop("name")
        found[name] = {k: v if v is None or math.isfinite(v) else None for k, v in values.items()}
    return {"repeats": bands.repeats, "wanted": bands.wanted, "figures": found}


def _shown(band: Band, value: float | None) -> str:
    if value is None:
        return NOTHING
    if math.isinf(value):
        return "> timeout"
    if band.name.endswith("_share"):
        return f"{value:.2%}"
    if band.name.endswith("_per_s"):
        return f"{number(value)}/s"
    return duration(value) if band.name.endswith("_s") else number(value)


def _words(name: str) -> str:
    plain = name.removesuffix("_share").removesuffix("_per_s").removesuffix("_s").replace("_", " ")
    return plain.replace("ttft", "TTFT").replace("e2e", "E2E").replace("tpot", "TPOT")

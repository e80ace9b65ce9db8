"""A comparison as a table that is understood at a glance, as Markdown, or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from raybench.analysis.compare import Comparison, Figure, Finding
from raybench.analysis.figures import Summary
from raybench.analysis.quantiles import Value
from raybench.report import markdown, text
from raybench.report.blocks import Grid, Lines, Pairs, Section
from raybench.report.units import NOTHING, bound, duration, number, percent

VERSION = 1
FORMATS = ("text", "markdown", "json")
MOST_CHANGES = 12
"""Changed settings that are listed in text; JSON has them all."""


def render(found: Comparison, base: Sequence[str], new: Sequence[str], format: str = "text") -> str:
    """`base` and `new`: what to call each side's runs. Raises ValueError for a format there is not."""
    if format not in FORMATS:
        raise ValueError(f"format {format!r}: one of {', '.join(FORMATS)} is right")
    if format == "json":
        return json.dumps(to_object(found, base, new), indent=1, ensure_ascii=False, allow_nan=False)
    parts = _sections(found, base, new)
    return markdown.document(parts) if format == "markdown" else text.document(parts)


def to_object(found: Comparison, base: Sequence[str], new: Sequence[str]) -> dict[str, Any]:
    """Plain dicts, lists and numbers. Units as in `Figure`; null is what cannot be said."""
    s = found.settings
    return {
        "comparison_version": VERSION,
        "exit_code": int(found.exit_code),
        "verdict": str(found.verdict),
        "paired": found.paired,
        "anchor": found.anchor,
        "settings": {
            "confidence": s.confidence,
            "threshold": s.threshold,
            "resamples": s.resamples,
            "seed": s.seed,
            "forced": s.force,
        },
        "base": _runs(base, found.base),
        "new": _runs(new, found.new),
        "figures": [_figure_object(f) for f in found.figures],
        "differences": [
            {"key": d.key, "base": list(d.base), "new": list(d.new), "matters": d.matters}
            for d in found.differences
        ],
    }


def _runs(names: Sequence[str], summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    return [
        {
            "run": name,
            "verdict": s.verdict.word,
            "unfinished": s.verdict.unfinished,
            "reasons": list(s.verdict.reasons),
            "schedule_sha256": s.header.schedule_sha256,
        }
        for name, s in zip(names, summaries, strict=True)
    ]


def _figure_object(f: Figure) -> dict[str, Any]:
    return {
        "name": f.name,
        "unit": f.unit,
        "better": f.better,
        "headline": f.headline,
        "base": _value_object(f.base),
        "new": _value_object(f.new),
        "difference": f.difference,
        "interval": None if f.interval is None else list(f.interval),
        "ratio": f.ratio,
        "ratio_interval": None if f.ratio_interval is None else list(f.ratio_interval),
        "p": f.p,
        "p_adjusted": f.p_adjusted,
        "finding": str(f.finding),
        "note": f.note,
        "block_rows": f.block_rows,
        "blocks": f.blocks,
    }


def _value_object(v: Value | None) -> dict[str, Any] | None:
    return None if v is None or not math.isfinite(v.value) else {"value": v.value, "censored": v.censored}


# --- for people -------------------------------------------------------------------------------------


def _sections(found: Comparison, base: Sequence[str], new: Sequence[str]) -> list[Section]:
    parts = [Section("Comparison", (Lines((headline(found),)), Pairs(_facts(found, base, new))))]
    head = ("", "base", "new", "difference", f"{found.settings.confidence:.0%} interval", "finding")
    tested = tuple(_row(f, found) for f in found.figures if f.headline)
    also = tuple(_row(f, found)[:-1] for f in found.figures if not f.headline)
    parts.append(Section("Headline figures", (Grid(head, tested, left=(0, 5)), Lines(tuple(_notes(found))))))
    if also:
        parts.append(Section("Beside them, no part of the verdict", (Grid(head[:-1], also),)))
    if found.differences:
        parts.append(Section("What differs between the runs", (Lines(_changes(found)),)))
    return parts


def headline(found: Comparison) -> str:
    """One line: what came out, and of which figures."""
    verdict = found.verdict
    named = ", ".join(map(_named, found.of(verdict)))
    untold = found.of(Finding.UNDECIDED)
    words = {
        Finding.REGRESSION: f"REGRESSION: {named}",
        Finding.IMPROVEMENT: f"IMPROVEMENT, and nothing worse: {named}",
        Finding.WITHIN_THRESHOLD: f"NOTHING BEYOND {_plain_percent(found.settings.threshold)}: {named}",
        Finding.NO_DIFFERENCE: "NO SIGNIFICANT DIFFERENCE",
        Finding.UNDECIDED: "CANNOT TELL: too little was measured for any headline figure",
    }[verdict]
    if better := found.of(Finding.IMPROVEMENT) if verdict is Finding.REGRESSION else ():
        words += f"; better: {', '.join(_title(f.name) for f in better)}"
    if untold and verdict is not Finding.UNDECIDED:
        words += (
            f" ({len(untold)} of {sum(f.headline for f in found.figures)} headline figures cannot be told)"
        )
    return words


def _named(f: Figure) -> str:
    if f.new is not None and f.new.censored:
        return f"{_title(f.name)} {_value(f, f.new)}"
    return _title(f.name) if f.ratio is None else f"{_title(f.name)} {_signed_percent(f.ratio)}"


def _facts(found: Comparison, base: Sequence[str], new: Sequence[str]) -> tuple[tuple[str, str], ...]:
    first = found.base[0].header
    repeats = len(base) > 1 or len(new) > 1
    pairing = (
        "same schedule: request by request"
        if found.paired
        else "different schedules: each run resampled by itself, so only large differences can be found"
    )
    judged = f"block bootstrap, {found.settings.resamples} resamples, seed {found.settings.seed}"
    judged += ", and the differences between repeats" if repeats else ""
    return (
        *(("base", _run(name, s)) for name, s in zip(base, found.base, strict=True)),
        *(("new", _run(name, s)) for name, s in zip(new, found.new, strict=True)),
        ("load", f"{first.load_kind}, latencies from {found.anchor}"),
        ("paired", pairing),
        ("judged by", judged),
    )


def _run(name: str, s: Summary) -> str:
    state = s.verdict.unfinished or s.verdict.word
    reasons = "" if s.verdict.valid else f": {'; '.join(s.verdict.reasons)}"
    return f"{name}  ({state}{reasons})"


def _row(f: Figure, found: Comparison) -> tuple[str, ...]:
    finding = "" if f.finding is Finding.NOT_TESTED else str(f.finding)
    if f.finding in (Finding.REGRESSION, Finding.IMPROVEMENT):
        finding = finding.upper()
    if f.note:
        finding = f"{finding}: {f.note}" if finding else f.note
    difference, interval = NOTHING, NOTHING
    if f.difference is not None:
        difference = _difference(f)
        interval = _interval(f)
    return _title(f.name), _value(f, f.base), _value(f, f.new), difference, interval, finding


def _difference(f: Figure) -> str:
    """`+10.0 ms  +5.6%`; where timeouts hide one side, only a bound."""
    assert f.difference is not None
    sign = ""
    if f.new is not None and f.new.censored:
        sign = "?" if f.base is not None and f.base.censored else "> "
    elif f.base is not None and f.base.censored:
        sign = "< "
    if sign == "?":
        return NOTHING
    both = _signed(f, f.difference)
    return sign + (both if f.ratio is None or f.unit == "ratio" else f"{both}  {_signed_percent(f.ratio)}")


def _interval(f: Figure) -> str:
    """In proportion where there is a ratio, else in the figure's unit; an open end is `…`."""
    if f.interval is None or f.interval == (f.difference, f.difference):
        return NOTHING  # nothing varied, so nothing can be said of chance
    if f.ratio_interval is not None and f.unit != "ratio":
        ends = ["…" if end is None else _signed_percent(end) for end in f.ratio_interval]
    else:
        ends = ["…" if end is None else _signed(f, end) for end in f.interval]
    return f"{ends[0]} to {ends[1]}"


def _value(f: Figure, v: Value | None) -> str:
    if v is None or not math.isfinite(v.value):
        return NOTHING
    if f.unit == "s":
        return bound(v.value) if v.censored else duration(v.value)
    if f.unit == "ratio":
        return percent(v.value)
    return f"{number(v.value)}{_suffix(f.unit)}"


def _signed(f: Figure, x: float) -> str:
    sign = "+" if x > 0 else ""
    if f.unit == "s":
        return sign + duration(x)
    if f.unit == "ratio":
        return f"{sign}{x * 100:.3g} pp"
    return f"{sign}{number(x)}{_suffix(f.unit)}"


def _signed_percent(ratio: float) -> str:
    if ratio == 0:
        return "0%"
    if ratio >= 9:
        return f"x{1 + ratio:.3g}"
    size = abs(ratio) * 100
    digits = 2 if size < 1 else 1 if size < 100 else 0
    return f"{'+' if ratio > 0 else '-'}{size:.{digits}f}%"


def _plain_percent(ratio: float) -> str:
    return f"{ratio * 100:.4g}%"


def _suffix(unit: str) -> str:
    return {"1/s": "/s", "tokens/s": "/s"}.get(unit, "")


def _title(name: str) -> str:
    titles = {
        "success_rate": "success rate",
        "goodput": "goodput",
        "completed": "completed requests",
        "output_tokens": "output tokens",
        "output_tokens_mean": "output tokens an answer",
        "replica_seconds": "replica-seconds",
    }
    metric, _, figure = name.partition("_")
    return titles.get(name) or f"{metric.upper()} {figure}"


def _notes(found: Comparison) -> list[str]:
    s = found.settings
    tested = sum(f.p_adjusted is not None for f in found.figures)
    notes = [
        f"A finding needs p ≤ {1 - s.confidence:.3g} after Holm's correction for the {tested} figures tested"
        + (f", and more than {_plain_percent(s.threshold)} (the success rate: any)." if s.threshold else ".")
        + " Intervals are of each figure alone."
    ]
    if len(found.base) == 1 and len(found.new) == 1:
        notes.append(
            "One run a side: this covers chance within the runs, not what another start of the same system "
            "would change. Repeats (--base, --new) cover that."
        )
    if any(f.name == "goodput" for f in found.figures):
        notes.append(
            "Rates here are over the planned time, so that one slow last answer does not move them; "
            "raybench analyze divides by the time to the last answer."
        )
    if any(v is not None and v.censored for f in found.figures for v in (f.base, f.new)):
        notes.append(
            "A percentile shown as > lies among the timeouts: it is larger, and so the interval is open."
        )
    return notes


def _changes(found: Comparison) -> tuple[str, ...]:
    lines = [f"{d}{'  <- NOT COMPARABLE, forced' if d.matters else ''}" for d in found.differences]
    if len(lines) > MOST_CHANGES:
        lines = [*lines[:MOST_CHANGES], f"and {len(lines) - MOST_CHANGES} more (--format json has all)"]
    return tuple(lines)

"""The summary of a schedule as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from raybench.schedule.summary import Summary

_BARS = " ▁▂▃▄▅▆▇█"


def as_text(summary: Summary, parts: list[int]) -> str:
    """A screen about a schedule. `parts` are the rows of each generator."""
    return "\n".join(_lines(summary, parts))


def sparkline(values: list[float]) -> str:
    """Values as bars from nothing to the largest; a value above 0 always shows."""
    top = max(values, default=0.0)
    if top <= 0:
        return " " * len(values)
    return "".join(_BARS[0 if v <= 0 else max(1, round(v / top * 8))] for v in values)


def _lines(summary: Summary, parts: list[int]) -> Iterator[str]:
    turns = f", {summary.later_turns:,} of them later turns of conversations" if summary.later_turns else ""
    length = duration(summary.duration_s)
    yield f"{summary.name}: {summary.planned:,} requests in {length}, {summary.kind}{turns}"
    yield f"schedule {summary.sha256}, seed {summary.seed}"
    yield ""
    yield (
        f"{'stage':>5}  {'process':<12}{'start':>8}{'length':>8}{'planned':>9}{'expected':>10}"
        f"{'rate':>10}{'gap mean':>11}{'CV':>6}{'min':>10}{'max':>10}"
    )
    for number, stage in enumerate(summary.stages):
        gaps = stage.gaps
        shown = (
            f"{duration(gaps.mean_s):>11}{gaps.cv:>6.2f}{duration(gaps.min_s):>10}{duration(gaps.max_s):>10}"
            if gaps
            else f"{'–':>11}{'–':>6}{'–':>10}{'–':>10}"
        )
        per_s = "–" if stage.rate_per_s is None else rate(stage.rate_per_s)
        expected = "–" if stage.expected is None else f"{stage.expected:,.1f}"
        yield (
            f"{number:>5}  {stage.process:<12}{duration(stage.start_s):>8}{duration(stage.duration_s):>8}"
            f"{stage.planned:>9,}{expected:>10}{per_s:>10}{shown}"
        )
    if summary.rate_bins_per_s:
        top = max(summary.rate_bins_per_s)
        yield ""
        yield f"rate over time, 0 to {rate(top)}:"
        yield f"  |{sparkline(summary.rate_bins_per_s)}| {duration(summary.duration_s)}"
    if len(parts) > 1:
        yield ""
        yield f"{len(parts)} generators: {', '.join(f'{rows:,}' for rows in parts)} requests"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them, three or four digits."""
    if seconds == 0:
        return "0s"
    for unit, size in (("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        # Minutes and hours only where they come out even: 90 s is clearer than 1.5 m.
        if seconds >= size and (size <= 1 or seconds % size == 0):
            return f"{seconds / size:.4g}{unit}"
    return f"{seconds * 1e9:.3g}ns"


def rate(per_s: float) -> str:
    """Requests per second, or per minute below one a second."""
    return f"{per_s:.3g}/s" if per_s >= 1 or per_s == 0 else f"{per_s * 60:.3g}/min"

"""The scaling section: what the autoscaler did, when and why, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence

from raybench.analysis.figures import Chain, Link, Scaling, Step, Summary, Waits
from raybench.report.blocks import Block, Grid, Lines, Pairs, Section
from raybench.report.units import NOTHING, duration, instant, number

WIDTH = 60
"""Characters of the line that draws replicas over time."""


def section(summary: Summary) -> Section | None:
    s = summary.scaling
    if s is None:
        return None
    blocks: list[Block] = []
    if s.steps:
        head = ("time", "replicas", "by", "queue depth", "window", "reason")
        blocks.append(Grid(head, tuple(_step(step) for step in s.steps), left=(1, 2, 5)))
    elif s.changes:
        blocks.append(Lines(("The target never changed.",)))
    else:  # a target's metrics page
        blocks.append(Lines(("Replicas are counted from samples; who asked for them was not seen.",)))
    if s.changes:
        rows = tuple((instant(c.t_s), c.state, c.replica) for c in s.changes)
        blocks.append(Grid(("time", "replica is", "which"), rows, left=(1, 2)))
    blocks.append(Pairs(_pairs(s)))
    return Section("Scaling", tuple(blocks))


MOST_CHAINS = 12
"""Scaling events that the text takes apart; the JSON has all of them."""


def chains(summary: Summary) -> Section | None:
    """Each scaling event taken apart."""
    s = summary.scaling
    if s is None or not s.chains:
        return None
    blocks: list[Block] = []
    for chain in s.chains[:MOST_CHAINS]:
        blocks.append(Grid(_chain_head(s, chain), tuple(map(_link, chain.links)), left=(0, 3)))
        blocks.append(Lines(tuple(_chain_notes(s, chain))))
    if len(s.chains) > MOST_CHAINS:
        blocks.append(Lines((f"{len(s.chains) - MOST_CHAINS} more are in the report as JSON.",)))
    return Section("Scaling events taken apart", tuple(blocks))


def _chain_head(s: Scaling, chain: Chain) -> tuple[str, ...]:
    step = s.steps[chain.step]
    return (f"{_count(step.from_replicas)} → {_count(step.to_replicas)}", "at", "took", "")


def _link(link: Link) -> tuple[str, ...]:
    note = link.note
    if link.not_before_s is not None:
        note = f"{note}; after {instant(link.not_before_s)}"
    at = NOTHING if link.at_s is None else instant(link.at_s)
    return (link.name, at, duration(link.took_s), note)


def _chain_notes(s: Scaling, chain: Chain) -> list[str]:
    known = [link.name for link in chain.links if link.at_s is not None]
    which = f" ({', '.join(chain.replicas)})" if chain.replicas else ""
    notes = [f"{known[0]} to {known[-1]}: {duration(chain.total_s)}{which}."]
    if chain.waited and chain.waited.requests:
        notes.append(f"Without a first token while it started: {_waits(chain.waited)}.")
    if chain.cold and chain.cold.requests:
        notes.append(f"Cold start, while nothing else was available: {_waits(chain.cold)}.")
    if s.steps[chain.step].busy:
        notes.append("It hit a busy replica.")
    return notes


def _waits(w: Waits) -> str:
    if w.requests == 1:
        return f"1 request, {duration(w.total_s)}"
    return f"{number(w.requests)} requests, {duration(w.total_s)} together, {duration(w.max_s)} at most"


def _step(step: Step) -> tuple[str, ...]:
    reason = step.reason or NOTHING
    if step.busy:
        reason += " [hit a busy replica]"
    return (
        instant(step.t_s),
        f"{_count(step.from_replicas)} → {_count(step.to_replicas)}",
        step.by,
        NOTHING if step.queue_depth is None else f"{step.queue_depth:.2f}",
        duration(step.window_s),
        reason,
    )


def _count(n: int | None) -> str:
    return "?" if n is None else str(n)


def _pairs(s: Scaling) -> tuple[tuple[str, str], ...]:
    start, end = s.observed_s
    rows = [
        ("available", ", ".join(f"{n} from {instant(t)}" for t, n in s.available) or NOTHING),
        ("over time", f"|{strip(s.available, start, end)}| {start:.0f} s to {end:.0f} s"),
        ("replica-seconds", f"{number(s.replica_seconds)} (from start requested to stopped)"),
    ]
    if s.nothing_available_s is not None:
        rows.append(("nothing available", f"{duration(s.nothing_available_s)} of the load"))
    if s.steps_down_busy:
        rows.append(("busy when stopped", f"{_steps_down(s.steps_down_busy)} hit a busy replica"))
    if s.steps_down_unknown:
        rows.append(("busy when stopped", f"unknown for {_steps_down(s.steps_down_unknown)}"))
    return tuple(rows)


def _steps_down(n: int) -> str:
    return "1 step down" if n == 1 else f"{n} steps down"


def strip(steps: Sequence[tuple[float, int]], start_s: float, end_s: float, width: int = WIDTH) -> str:
    """The step function as one digit a moment: `00011122221110`; `+` above nine, a space before anything
    is known. Each character shows the value in the middle of its moment.
    """
    text = []
    for i in range(width):
        t = start_s + (i + 0.5) * (end_s - start_s) / width
        now = [n for at, n in steps if at <= t]
        text.append(" " if not now else str(now[-1]) if now[-1] <= 9 else "+")
    return "".join(text)

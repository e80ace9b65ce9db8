"""Progress for people: one table that renews itself in a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

import click

from raybench.fleet.conductor import Snapshot
from raybench.generator.drive import rss_bytes

LINE_PERIOD_S = 5.0
LONG_S, LONG_LINE_PERIOD_S = 3600.0, 60.0
"""A load with so much left has a line a minute, or a day's log would be nothing else."""
SUMMARIES = 24
"""Of a run: a day's come hourly; none more often than each `SUMMARY_LEAST_S`."""
SUMMARY_LEAST_S = 60.0


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value:.2f} s"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}".removesuffix(".0")


def _failures(s: Snapshot) -> int:
    return sum(n for outcome, n in (s.counts or {}).items() if outcome != "ok")


def _replicas(s: Snapshot) -> str:
    if s.now is None or s.now.target is None:
        return "-"
    n = s.now
    extra = [
        f"{count} {word}" for count, word in ((n.starting, "starting"), (n.stopping, "stopping")) if count
    ]
    return f"{n.available} of {n.target}" + (f" ({', '.join(extra)})" if extra else "")


def facts(s: Snapshot) -> list[tuple[str, str]]:
    """What a watcher wants to know, as words."""
    done = sum((s.counts or {}).values())
    return [
        ("stage", s.stage),
        ("time", f"{s.t_s:.0f} s" + (f", {s.left_s:.0f} s left" if s.left_s else "")),
        ("offered", f"{s.offered} of {s.planned} ({s.offered_per_s:.1f}/s)"),
        ("sent", f"{s.sent} ({s.sent_per_s:.1f}/s)"),
        ("done", f"{done}, {_failures(s)} failed"),
        ("in flight", str(s.in_flight)),
        ("waiting", _number(s.now.waiting if s.now else None)),
        ("replicas", _replicas(s)),
        ("TTFT p50", _seconds(s.ttft_p50_s)),
        ("E2E p50", _seconds(s.e2e_p50_s)),
        ("lateness p99", _seconds(s.lateness_p99_s)),
    ]


def line(s: Snapshot) -> str:
    """One line for a log."""
    if s.stage in ("deploying", "preparing", "ending"):
        return f"{s.stage} …"
    shown = (
        facts(s)[1:]
        if s.stage == "load"
        else [f for f in facts(s)[1:] if f[0] in ("time", "waiting", "replicas")]
    )
    return f"{s.stage}: " + " | ".join(f"{name} {value}" for name, value in shown)


class Summaries:
    """A line for each 24th of a long run, about that stretch alone: what a log of a day should say."""

    def __init__(self) -> None:
        self._last = Snapshot("load")
        self._period_s: float | None = None

    def __call__(self, s: Snapshot) -> str | None:
        """The line, where one is due."""
        if s.stage != "load":
            return None
        if self._period_s is None:
            self._period_s = max(SUMMARY_LEAST_S, (s.t_s + (s.left_s or 0.0)) / SUMMARIES)
        if s.t_s - self._last.t_s < self._period_s:
            return None
        before, self._last = self._last, s
        failed = _failures(s) - _failures(before)
        words = [
            f"offered {s.offered - before.offered}",
            f"sent {s.sent - before.sent}",
            f"failed {failed}",
            f"in flight {s.in_flight}",
            f"TTFT p50 {_seconds(s.ttft_p50_s)} now",
            f"lateness p99 {_seconds(s.lateness_p99_s)} since the start",
            f"memory of a generator {s.rss_bytes / 2**20:.0f} MiB at most",
            f"of this process {rss_bytes() / 2**20:.0f} MiB",
        ]
        return f"summary of {_clock(before.t_s)} to {_clock(s.t_s)}: " + " | ".join(words)


def _clock(t_s: float) -> str:
    hours, rest = divmod(round(t_s), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


class Live:
    """`with Live() as live: live(snapshot)`."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last: tuple[str, float] = ("", 0.0)
        self._problems = 0  # shown so far
        self._summaries = Summaries()
        self._display: Any = None

    def __enter__(self) -> Live:
        if self._terminal:
            from rich.console import Console
            from rich.live import Live as Display

            self._display = Display(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()

    def __call__(self, s: Snapshot) -> None:
        for problem in s.problems[self._problems :]:
            self._say(f"problem: {problem}")
        self._problems = len(s.problems)
        if (summary := self._summaries(s)) is not None:
            self._say(summary)
        if self._display is not None:
            self._display.update(self._table(s), refresh=True)
            return
        stage, at = self._last
        period_s = LONG_LINE_PERIOD_S if (s.left_s or 0.0) > LONG_S else LINE_PERIOD_S
        if s.stage != stage or time.monotonic() - at >= period_s:
            self._last = (s.stage, time.monotonic())
            click.echo(line(s), err=True)

    def _say(self, text: str) -> None:
        """A line that stays, in a terminal above the table."""
        if self._display is not None:
            self._display.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text, err=True)

    def _table(self, s: Snapshot) -> Any:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for name, value in facts(s):
            table.add_row(f"[bold]{name}[/]", value)
        return table

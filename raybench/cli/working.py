"""Long work on the command line: processes that leave Ctrl-C to the command, and how far it is."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from concurrent.futures import Executor

LINE_PERIOD_S = 5.0


@contextmanager
def processes(many: int) -> Iterator[Executor]:
    """So many worker processes; those still busy at the end are stopped, since nobody waits for them."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    pool = ProcessPoolExecutor(many, multiprocessing.get_context("spawn"), initializer=_ignore_interrupt)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


def _ignore_interrupt() -> None:
    """Ctrl-C goes to every process of the terminal; the command alone decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Bar:
    """How far the work is: a bar in a terminal, now and then a line in a pipe. On standard error.

    `at_once`: in a pipe, each stage has a line when it begins, not only once it takes long.
    """

    def __init__(self, unit: str = "", *, at_once: bool = False) -> None:
        self._unit, self._at_once = unit, at_once
        self._shown: Any = None
        self._task: Any = None
        self._what, self._at_s = "", time.monotonic()

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            text = TextColumn("{task.description}", markup=False)
            columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._shown = Progress(*columns, console=Console(stderr=True), transient=True)
            self._shown.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown is not None:
            self._shown.stop()

    def __call__(self, what: str, done: int, of: int) -> None:
        """So many `of` the stage `what` are done; with `of` 0 nobody knows how many there will be."""
        if self._shown is not None:
            if what != self._what:
                if self._task is not None:
                    self._shown.remove_task(self._task)
                self._task, self._what = self._shown.add_task(what, total=of), what
            self._shown.update(self._task, completed=done, total=of)
            return
        begins = self._at_once and what != self._what
        if of and (begins or time.monotonic() - self._at_s >= LINE_PERIOD_S):
            self._what, self._at_s = what, time.monotonic()
            self.say(f"{what}: {done} of {of}{self._unit and ' '}{self._unit}")

    def share(self, what: str) -> Callable[[float], None]:
        """Takes shares from 0 to 1; quick to call."""
        percent = -1

        def tell(share: float) -> None:
            nonlocal percent
            if int(share * 100) > percent:
                percent = int(share * 100)
                self(what, percent, 100)

        return tell

    def say(self, text: str) -> None:
        click.echo(text, err=True)

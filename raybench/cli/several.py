"""What commands that make several runs share: one display after another, and Ctrl-C for the whole."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Protocol

import click

from raybench.cli.live import Live
from raybench.fleet.conductor import Conductor, Snapshot


class Interruptible(Protocol):
    """A run or a series of them. While `deploying`, only an exception ends the wait."""

    @property
    def deploying(self) -> bool: ...

    def interrupt(self) -> None: ...


class Series:
    """Runs one after another: an interruption ends the one that goes, and no other begins."""

    def __init__(self) -> None:
        self.stopped = False
        self._now: Conductor | None = None

    @property
    def deploying(self) -> bool:
        return self._now is not None and self._now.deploying

    def interrupt(self) -> None:
        self.stopped = True
        if self._now is not None:
            self._now.interrupt()

    def run(self, conductor: Conductor) -> None:
        """Raises what the run raises."""
        self._now = conductor
        if self.stopped:
            conductor.interrupt()
        try:
            conductor.run()
        finally:
            self._now = None


class Display:
    """`with Display() as display`: lines that stay (`tell`), and how the run of the moment stands."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def tell(self, text: str) -> None:
        self._close()
        click.echo(text, err=True)

    def __call__(self, snapshot: Snapshot) -> None:
        if self._live is None:
            self._live = Live().__enter__()
        self._live(snapshot)

    def _close(self) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None


def on_signals(job: Interruptible, what: str = "the run") -> None:
    """Once: end early and cleanly. Twice: stop at once. Set after ray.init, which sets its own."""
    seen = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            os.write(2, b"\nstopped at once; what was written stays readable\n")
            os._exit(5)
        os.write(2, f"\nending {what}; once more to stop at once\n".encode())
        job.interrupt()
        if job.deploying:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)

"""Rows of a generator on another host: batches travel to the monitor, which writes them into the run."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from raybench.schema import Table

OUTSTANDING = 4
TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 60.0


@dataclass
class _Underway:
    table: str
    batch: pa.RecordBatch
    to: Any  # the monitor that was asked
    ref: Any


class ShippedSink:
    """At most `OUTSTANDING` batches are under way; beyond that `write` waits for the oldest.

    A batch under way is kept until it is known to be written. When the monitor dies, they wait for the one
    that takes its place (`report_to`) and travel again, marked: it looks whether the one before had written
    them already. So a batch is neither lost nor doubled.
    """

    def __init__(self, monitor: Any, writer: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._monitor, self._writer, self._timeout_s = monitor, writer, timeout_s
        self._underway: deque[_Underway] = deque()
        self._changed = threading.Condition()

    def report_to(self, monitor: Any) -> None:
        """From any thread: the monitor that batches go to from now on."""
        with self._changed:
            self._monitor = monitor
            self._changed.notify_all()

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None:
        """Sends the batch on its way. Raises OSError when it was not taken: it may be written again."""
        self._settle(OUTSTANDING - 1, self._timeout_s)
        self._underway.append(self._sent(table.name, batch))

    def close(self) -> None:
        self._settle(0, max(self._timeout_s, CLOSE_TIMEOUT_S))
        ray.get(self._monitor.close_writer.remote(self._writer), timeout=self._timeout_s)

    def _sent(self, table: str, batch: pa.RecordBatch, again: bool = False) -> _Underway:
        to = self._monitor
        return _Underway(table, batch, to, to.append.remote(self._writer, table, batch, again))

    def _settle(self, most: int, timeout_s: float) -> None:
        """Waits until at most so many are under way."""
        deadline = time.monotonic() + timeout_s
        while len(self._underway) > most:
            oldest = self._underway[0]
            try:
                ray.get(oldest.ref, timeout=max(0.0, deadline - time.monotonic()))
            except ray.exceptions.GetTimeoutError as error:
                raise TimeoutError("the coordinator's host takes no more rows") from error
            except ray.exceptions.RayTaskError as error:
                if not isinstance(error.cause, OSError):
                    self._underway.popleft()
                    raise
                self._underway[0] = self._sent(oldest.table, oldest.batch, again=True)
                raise OSError(f"on the coordinator's host: {error.cause}") from error
            except ray.exceptions.RayActorError as error:
                self._await_other_than(oldest.to, deadline, error)
                for i, one in enumerate(self._underway):
                    if one.to is not self._monitor:
                        self._underway[i] = self._sent(one.table, one.batch, again=True)
                continue
            self._underway.popleft()

    def _await_other_than(self, gone: Any, deadline: float, why: Exception) -> None:
        with self._changed:
            left_s = max(0.0, deadline - time.monotonic())
            if not self._changed.wait_for(lambda: self._monitor is not gone, left_s):
                raise OSError("the monitor is gone and none has taken its place") from why

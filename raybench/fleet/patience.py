"""Keeping rows while they cannot be written: a full disk is often somebody else's, and for minutes only.

A batch that a sink refuses stays in memory, in order, and is tried again with the next one, so about once a
second. Beyond `MOST_BYTES` the oldest go; every row that is given up is counted in words.
"""

from __future__ import annotations

import time
from collections import deque

import pyarrow as pa

from raybench.generator import Sink
from raybench.schema import Table

REFUSED = "could not be written"
"""What each text about a refused write says; `is_refusal` looks for it."""
MOST_BYTES = 64 * 2**20
CLOSE_S = 1.5
"""How long `close` goes on trying. Whoever ends a run early waits for little more than that."""
_MOST_PROBLEMS = 20


def is_refusal(text: str) -> bool:
    """Whether a text about a sink or a store says that something is not written, or that it is again."""
    return REFUSED in text


class Patient:
    """A sink in front of another. OSErrors of that one end here: in `problems`, each spell said once."""

    def __init__(
        self, sink: Sink, who: str, *, most_bytes: int = MOST_BYTES, close_s: float = CLOSE_S
    ) -> None:
        """`who` begins every text."""
        self.sink = sink
        self.problems: list[str] = []
        self._who, self._most_bytes, self._close_s = who, most_bytes, close_s
        self._waiting: deque[tuple[type[Table], pa.RecordBatch]] = deque()
        self._bytes = 0
        self._failing = False
        self._lost = 0

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None:
        """Writes it, or keeps it. Raises what the sink raises other than OSError; that batch is gone."""
        self._waiting.append((table, batch))
        self._bytes += batch.nbytes
        self._try()
        while self._bytes > self._most_bytes:
            self._drop()

    def close(self) -> None:
        """Tries for a while to write what is left. Closing the sink may raise OSError."""
        deadline = time.monotonic() + self._close_s
        while not self._try() and time.monotonic() < deadline:
            time.sleep(min(0.3, self._close_s))
        while self._waiting:
            self._drop()
        if self._lost:
            self._say(f"{self._who}: {self._lost} rows were given up because they {REFUSED}")
        self.sink.close()

    def _try(self) -> bool:
        """Whether nothing waits any more."""
        while self._waiting:
            table, batch = self._waiting[0]
            try:
                self.sink.write(table, batch)
            except OSError as error:
                if not self._failing:
                    self._say(
                        f"{self._who}: {table.name} {REFUSED}; rows are kept and tried again: "
                        f"{str(error) or type(error).__name__}"
                    )
                self._failing = True
                return False
            except BaseException:
                self._forget()
                raise
            self._forget()
        if self._failing:
            self._failing = False
            lost = f", {self._lost} rows were given up" if self._lost else ", no row was given up"
            self._say(f"{self._who}: what {REFUSED} is written now{lost}")
        return True

    def _forget(self) -> None:
        self._bytes -= self._waiting.popleft()[1].nbytes

    def _drop(self) -> None:
        self._lost += self._waiting[0][1].num_rows
        self._forget()

    def _say(self, text: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(text)

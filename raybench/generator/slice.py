"""What a generator is given to do, and where it puts what it saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raybench.client import Endpoint
from raybench.schema import LoadKind, Schedule, Table

Bodies = Callable[[int, int | None], bytes]
"""Renders a request body from (prompt_id, max_tokens). Called ahead of the request's instant, on
another thread, once per distinct pair as long as the pairs are few."""


_LOOK = 2**16  # rows looked at together


def values_of(schedule: pa.Table, name: str, missing: int) -> np.ndarray:
    """A column of the schedule with `missing` for null. Its own memory, which may be mapped from a file, if
    nothing is null, and none if everything is."""
    column = schedule.column(name)
    if not column.null_count:
        values: np.ndarray = column.to_numpy()
    elif column.null_count == len(column):
        values = np.broadcast_to(np.array(missing, column.type.to_pandas_dtype()), len(column))
    else:
        values = column.fill_null(missing).to_numpy()
    return values


@dataclass(frozen=True)
class Slice:
    """One generator's rows of the schedule and everything needed to send them."""

    generator: int
    schedule: pa.Table  # `Schedule.schema`, in order of request_id (and so of scheduled_ns)
    phases: np.ndarray  # int8 code of `Phase`, one per row
    bodies: Bodies
    endpoints: Sequence[Endpoint]
    timeout_s: float
    load_kind: LoadKind
    max_in_flight: int | None = None  # capped client: requests of this generator at once
    concurrency: int | None = None  # closed loop: callers of this generator
    load_end_ns: int | None = None  # after t0; rows still waiting for a place then are not sent
    record_chunks: bool = True
    run_prefix: str = ""  # put before the request_id in the x-request-id header
    sample_period_s: float = 1.0
    passed: Callable[[int], None] = lambda row: None
    """Told now and then that the rows before this one were sent: `schedule` may be on disk."""

    def __post_init__(self) -> None:
        rows = self.schedule.num_rows
        if len(self.phases) != rows:
            raise ValueError(f"phases: {len(self.phases)} for {rows} rows of schedule")
        if self.load_kind is LoadKind.CAPPED and not (self.max_in_flight or 0) > 0:
            raise ValueError(f"max_in_flight {self.max_in_flight!r}: a capped client needs a number above 0")
        if self.load_kind is LoadKind.CLOSED and not (self.concurrency or 0) > 0:
            raise ValueError(f"concurrency {self.concurrency!r}: a closed loop needs a number above 0")
        if self.load_kind is not LoadKind.CLOSED:
            instants = self.schedule.column(Schedule.scheduled_ns)
            turns = self.schedule.column(Schedule.turn)
            if turns.null_count < rows:
                # Later turns of a conversation have no instant: the answer before them gives it.
                instants = instants.filter(pc.less_equal(pc.fill_null(turns, 0), 0))
            if instants.null_count:
                raise ValueError(
                    f"{Schedule.scheduled_ns}: null in {instants.null_count} rows of an {self.load_kind}"
                )
            order = instants.to_numpy()
            for begin in range(0, rows, _LOOK):
                if np.any(np.diff(order[begin : begin + _LOOK + 1]) < 0):
                    raise ValueError(f"{Schedule.scheduled_ns}: must not go back from one row to the next")


class Sink(Protocol):
    """Takes finished batches. Called from one writer thread, at most one batch per table a period.

    What it raises is remembered among the problems, and the generator goes on.
    """

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...

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

    def __post_init__(self) -> None:
        rows = self.schedule.num_rows
        if len(self.phases) != rows:
            raise ValueError(f"phases: {len(self.phases)} for {rows} rows of schedule")
        if self.load_kind is LoadKind.CAPPED and not (self.max_in_flight or 0) > 0:
            raise ValueError(f"max_in_flight {self.max_in_flight!r}: a capped client needs a number above 0")
        if self.load_kind is LoadKind.CLOSED and not (self.concurrency or 0) > 0:
            raise ValueError(f"concurrency {self.concurrency!r}: a closed loop needs a number above 0")
        if self.load_kind is not LoadKind.CLOSED:
            # Later turns of a conversation have no instant: the answer before them gives it.
            first = pc.less_equal(pc.fill_null(self.schedule.column(Schedule.turn), 0), 0)
            instants = self.schedule.column(Schedule.scheduled_ns).filter(first)
            if instants.null_count:
                raise ValueError(
                    f"{Schedule.scheduled_ns}: null in {instants.null_count} rows of an {self.load_kind}"
                )
            order = instants.to_numpy()
            if rows and bool(np.any(np.diff(order) < 0)):
                raise ValueError(f"{Schedule.scheduled_ns}: must not go back from one row to the next")


class Sink(Protocol):
    """Takes finished batches. Called from one writer thread, at most one batch per table a period.

    What it raises is remembered among the problems, and the generator goes on.
    """

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...

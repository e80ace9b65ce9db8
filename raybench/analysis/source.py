"""Where analysis gets its columns from. `rundir` implements it for files, `simulator` in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from raybench.schema import Manifest, Table


class Source(Protocol):
    """A run's tables and manifest, whatever holds them."""

    @property
    def manifest(self) -> Manifest: ...

    def batches(self, table: type[Table], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Record batches of one table with just these columns, in the order of `columns`.

        Rows come in no particular order; a table that was never written yields nothing. Clock offsets
        are already applied. `Requests` holds written rows only: what is missing against `Schedule`
        is counted by the analysis: pending while the run is going, not_sent where no load began, else lost.
        """
        ...

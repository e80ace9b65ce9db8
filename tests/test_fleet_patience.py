"""Rows that a sink refuses are kept, in order, and every one that is given up is counted."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest
import runs
from hypothesis import given
from hypothesis import strategies as st

from raybench.fleet.patience import Patient, is_refusal
from raybench.schema import Generators, Requests, Table


class Disk:
    """Refuses the writes that `full` says, and keeps the others' request ids."""

    def __init__(self, full: Sequence[bool] = (), for_ever: bool = False) -> None:
        self.full, self.for_ever = list(full), for_ever
        self.ids: list[int] = []
        self.closed = False

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None:
        if self.for_ever or (self.full and self.full.pop(0)):
            raise OSError(28, "No space left on device")
        self.ids += batch.column(Requests.request_id).to_pylist()

    def close(self) -> None:
        self.closed = True


def rows(first: int, n: int = 2) -> pa.RecordBatch:
    return runs.batch(Requests, [runs.ok(first + i, anchor_s=0, done_s=1) for i in range(n)])


def test_a_disk_that_is_full_for_a_while_costs_nothing_and_is_said_once() -> None:
    disk = Disk([False, True, True, True])
    patient = Patient(disk, "generator 3", close_s=0)
    for first in (0, 2, 4, 6):
        patient.write(Requests, rows(first))
    assert disk.ids == [0, 1] and len(patient.problems) == 1
    assert patient.problems[0].startswith("generator 3: requests could not be written")
    assert "No space left" in patient.problems[0]
    patient.write(Requests, rows(8))
    assert disk.ids == list(range(10)), "in order, each once"
    assert len(patient.problems) == 2 and "no row was given up" in patient.problems[1]
    assert all(map(is_refusal, patient.problems))
    patient.close()
    assert disk.closed and len(patient.problems) == 2


def test_the_oldest_rows_go_where_too_many_wait_and_they_are_counted() -> None:
    disk = Disk(for_ever=True)
    patient = Patient(disk, "monitor", most_bytes=2 * rows(0).nbytes, close_s=0)
    for first in (0, 2, 4, 6):
        patient.write(Requests, rows(first))
    disk.for_ever = False
    patient.write(Requests, rows(8))
    assert disk.ids == [4, 5, 6, 7, 8, 9]
    assert "4 rows were given up" in patient.problems[-1]


def test_a_disk_that_stays_full_is_given_up_at_the_end() -> None:
    patient = Patient(Disk(for_ever=True), "monitor", close_s=0)
    for first in (0, 2):
        patient.write(Requests, rows(first))
    patient.close()
    assert "4 rows were given up" in patient.problems[-1]


def test_another_error_is_raised_and_its_batch_is_not_tried_again() -> None:
    disk = Disk()
    patient = Patient(disk, "monitor", close_s=0)
    with pytest.raises(KeyError):
        patient.write(Generators, runs.batch(Generators, [{Generators.t_ns: 0}]))
    patient.write(Requests, rows(0))
    assert disk.ids == [0, 1] and patient.problems == []


@given(st.lists(st.booleans(), max_size=60))
def test_whatever_is_refused_when_each_row_arrives_once_and_in_order(full: list[bool]) -> None:
    disk = Disk(full)
    patient = Patient(disk, "monitor", close_s=0)
    for first in range(20):
        patient.write(Requests, rows(first, 1))
    disk.full = []
    patient.close()
    assert disk.ids == list(range(20))

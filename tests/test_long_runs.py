"""What a day of load rests on: small rows, and slices that never need the whole schedule at once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
import runs
import slices
from hypothesis import given
from hypothesis import strategies as st

from raybench import schedule
from raybench.client.null_server import Answer
from raybench.rundir import LocalSink, create, is_written
from raybench.schema import Requests, Schedule

SECOND_ROWS = 100
"""Rows of a batch at 100 requests a second."""


def test_a_row_takes_no_more_than_a_hundred_bytes(tmp_path: Path) -> None:
    """Real answers and real instants, written in the batches that 100 requests a second make."""
    with slices.null_server(Answer(tokens=8, first_s=0.005, gap_s=0.001)) as url:
        planned = [i * 2 * slices.MS for i in range(5 * SECOND_ROWS)]
        made = slices.make_slice(url, slices.schedule(planned), record_chunks=False)
        _, memory = slices.drive(made)
    rows = pa.Table.from_batches(memory.batches[Requests]).combine_chunks().to_batches()[0]
    with LocalSink(create(tmp_path / "run", runs.manifest()).path, "g000") as sink:
        for first in range(0, rows.num_rows, SECOND_ROWS):
            sink.write(Requests, rows.slice(first, SECOND_ROWS))
    (stream,) = (tmp_path / "run" / "requests").iterdir()
    assert rows.num_rows == 5 * SECOND_ROWS
    assert 20 < stream.stat().st_size / rows.num_rows <= 100


@given(
    turns=st.lists(st.integers(1, 4), min_size=1, max_size=30),
    cuts=st.lists(st.integers(0, 120), max_size=8),
    generators=st.integers(1, 4),
)
def test_a_slice_is_the_same_from_pieces_of_any_size(
    turns: list[int], cuts: list[int], generators: int
) -> None:
    """Conversations of so many turns, the plan cut anywhere, within a conversation too."""
    numbers = [turn for n in turns for turn in range(n)]
    talks = [talk for talk, n in enumerate(turns) for _ in range(n)]
    table = slices.schedule(None, rows=len(numbers), **{Schedule.turn: numbers, Schedule.conversation: talks})
    edges = sorted({0, len(numbers), *(c for c in cuts if c < len(numbers))})
    pieces = [table.slice(a, b - a).to_batches()[0] for a, b in pairwise(edges)]
    seen: list[int] = []
    for generator in range(generators):
        found = pa.Table.from_batches(schedule.part_of(pieces, generator, generators))
        assert found.equals(schedule.part(table, generator, generators))
        talked = set(found.column(Schedule.conversation).to_pylist())
        assert all(talk % generators == generator for talk in talked), "a conversation goes whole to one"
        seen += found.column(Schedule.request_id).to_pylist()
    assert sorted(seen) == list(range(len(numbers)))


def test_a_batch_is_known_again_in_a_torn_stream_and_no_other_is(tmp_path: Path) -> None:
    path = create(tmp_path / "run", runs.manifest()).path
    batches = [runs.batch(Requests, [runs.ok(i, anchor_s=i)]) for i in range(3)]
    assert not is_written(path, "g000", Requests, batches[0])
    sink = LocalSink(path, "g000")
    sink.write(Requests, batches[0])
    sink.write(Requests, batches[1])
    (stream,) = (path / "requests").iterdir()
    whole = stream.read_bytes()
    stream.write_bytes(whole[:-10])  # the process died in the middle of the second
    assert is_written(path, "g000", Requests, batches[0])
    assert not is_written(path, "g000", Requests, batches[1])
    assert not is_written(path, "g001", Requests, batches[0])


@pytest.mark.parametrize(("generator", "generators"), [(2, 2), (-1, 2)])
def test_a_slice_that_cannot_be_is_refused(generator: int, generators: int) -> None:
    with pytest.raises(ValueError, match="should be 0 to 1"):
        schedule.part_of([], generator, generators)

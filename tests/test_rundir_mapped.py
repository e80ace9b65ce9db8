"""A plan mapped from disk is the plan: the same values, whatever was given back in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import slices
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.fleet import actor
from raybench.generator import dispatch
from raybench.generator.bodies import Keys
from raybench.generator.slice import values_of
from raybench.rundir import mapped
from raybench.rundir.mapped import STRETCH
from raybench.schema import Schedule

NULLABLE = [name for name, column in Schedule.columns.items() if column.null]


@st.composite
def plans(draw: st.DrawFn) -> pa.Table:
    """Any plan: each nullable column full, empty or with gaps."""
    rows = draw(st.integers(0, 60))
    columns = {}
    for name, column in Schedule.columns.items():
        values: st.SearchStrategy[int | None] = st.integers(0, 2**15 - 1)
        if column.null:
            values = draw(st.sampled_from([values, st.none(), st.none() | values]))
        columns[name] = pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), column.type)
    return pa.table(columns, schema=Schedule.schema)


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(1, 20))
def test_a_mapped_plan_equals_what_it_was_made_of(plan: pa.Table, piece: int) -> None:
    found = mapped(plan.to_batches(max_chunksize=piece), Schedule.schema).table
    found.validate(full=True)
    assert found.equals(plan)
    assert all(column.num_chunks <= 1 for column in found.columns)


def long_plan(rows: int = 5 * STRETCH) -> pa.Table:
    return slices.schedule(np.arange(rows) * 1000, prompt_id=np.arange(rows) % 7)


def test_rows_passed_can_still_be_read() -> None:
    plan = long_plan()
    found = mapped(plan.to_batches(max_chunksize=10_000), Schedule.schema)
    for row in range(0, plan.num_rows + STRETCH, STRETCH // 3):
        found.passed(row)
        found.passed(row // 2)
    assert found.table.equals(plan)


def test_values_take_no_memory_of_arrows_and_leave_no_file_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plan = long_plan()
    before = pa.total_allocated_bytes()
    found = mapped(plan.to_batches(), Schedule.schema).table
    assert pa.total_allocated_bytes() - before < 10_000
    assert not list(tmp_path.iterdir())
    ids = found.column(Schedule.request_id).to_numpy()
    assert values_of(found, Schedule.request_id, -1) is not None
    assert np.shares_memory(values_of(found, Schedule.request_id, -1), ids)
    rows = dispatch.Rows(found, 0, None)
    assert np.shares_memory(
        np.frombuffer(rows.due_ns, np.int64), found.column(Schedule.scheduled_ns).to_numpy()
    )


def test_a_directory_without_room_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(OSError):
        mapped(long_plan(10).to_batches(), Schedule.schema)


@given(plans().filter(lambda plan: plan.num_rows > 0))
def test_missing_values_stand_in_for_nulls(plan: pa.Table) -> None:
    for name in NULLABLE:
        expected = [-7 if value is None else value for value in plan.column(name).to_pylist()]
        assert values_of(plan, name, -7).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 40), st.none() | st.integers(0, 3)), max_size=80))
def test_distinct_bodies_are_those_of_a_set(pairs: list[tuple[int, int | None]]) -> None:
    prompts, limits = [p for p, _ in pairs], [m for _, m in pairs]
    keys = Keys(slices.schedule([0] * len(pairs), prompt_id=prompts, max_tokens=limits))
    expected = {(p, -1 if m is None else m) for p, m in pairs}
    found = keys.few()
    assert found is not None
    assert (len(found), set(found)) == (len(expected), expected)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50).map(sorted))
def test_rows_of_a_plan_without_turns_are_those_of_one_with_first_turns_only(due: list[int]) -> None:
    n = len(due)
    plain = dispatch.Rows(slices.schedule(due), 5, None)
    turned = dispatch.Rows(slices.schedule(due, turn=[0] * n, conversation=range(n)), 5, None)
    for rows in (plain, turned):
        assert list(rows.firsts) == list(range(n))
        assert list(rows.due_ns) == due
        assert not any(rows.later)
        assert len(rows.later) == n + 1
        assert (rows.has_turns, len(rows.orphans)) == (False, 0)
        assert [rows.think_ns[row] for row in range(n)] == [0] * n


def test_a_generator_without_room_on_disk_keeps_its_slice_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = long_plan(10)
    assert actor.on_disk(plan.to_batches)._files
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    found = actor.on_disk(plan.to_batches)
    assert not found._files
    assert found.table.equals(plan)

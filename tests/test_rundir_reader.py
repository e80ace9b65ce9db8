"""Opening a run in every state it can be in, and clocks that differ."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import runs
from hypothesis import given
from hypothesis import strategies as st

from raybench.rundir import LocalSink, RunError, create, fresh_path, open_run
from raybench.rundir import manifest as manifests
from raybench.rundir.clocks import Correction
from raybench.schema import ClockSample, Generators, Host, Manifest, Requests, RunStatus, Schedule, Timeline


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    m = runs.manifest(
        scenario={"load": {"stages": []}},
        hosts=[Host("generator", 0, "h", "b", 1, None, [ClockSample(1, 2, 3)])],
        versions={"ray": "2"},
        counts={"ok": 1},
        problems=["x"],
    )
    run = create(tmp_path / "r", m)
    assert open_run(run.path).manifest == m
    m.status = RunStatus.INTERRUPTED
    run.save(m)
    assert open_run(run.path).manifest == m
    assert open_run(run.path / "manifest.json").manifest == m
    assert sorted(p.name for p in run.path.iterdir()) == ["manifest.json"]


@pytest.mark.parametrize(
    ("age_s", "status"), [(0, RunStatus.RUNNING), (14, RunStatus.RUNNING), (16, RunStatus.KILLED)]
)
def test_a_stale_heartbeat_reads_as_killed(tmp_path: Path, age_s: int, status: RunStatus) -> None:
    now = time.time_ns()
    create(
        tmp_path / "r",
        runs.manifest(status=RunStatus.RUNNING, created_unix_ns=0, heartbeat_unix_ns=now - age_s * 10**9),
    )
    assert manifests.read(tmp_path / "r", now_unix_ns=now).status is status


def test_a_finished_run_is_never_killed(tmp_path: Path) -> None:
    create(tmp_path / "r", runs.manifest(heartbeat_unix_ns=0, created_unix_ns=0))
    assert open_run(tmp_path / "r").status is RunStatus.COMPLETE


def test_errors_say_what_would_be_right(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nothing: no such directory"):
        open_run(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"file: not a directory"):
        open_run(tmp_path / "file")
    runs.write(tmp_path / "runs" / "one")
    with pytest.raises(RunError, match=r"not a run directory; it holds runs, name one of them: one"):
        open_run(tmp_path / "runs")
    path = tmp_path / "runs" / "one" / "manifest.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "format_version": 99, "versions": {"raybench": "7.1"}}))
    with pytest.raises(RunError, match=r"format_version 99 is newer than 1.*7\.1"):
        open_run(path.parent)
    path.write_text("{")
    with pytest.raises(RunError, match=r"corrupt, not JSON"):
        open_run(path.parent)
    path.write_text("[]")
    with pytest.raises(RunError, match=r"corrupt, a JSON object"):
        open_run(path.parent)
    path.write_text(json.dumps({k: v for k, v in data.items() if k not in ("planned", "load_kind")}))
    with pytest.raises(RunError, match=r"missing: load_kind, planned"):
        open_run(path.parent)
    path.write_text(json.dumps({**data, "load_kind": "sideways"}))
    with pytest.raises(RunError, match=r"corrupt: 'sideways'"):
        open_run(path.parent)


def test_a_later_manifest_may_have_more_keys(tmp_path: Path) -> None:
    path = runs.write(tmp_path / "r") / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "blue"}))
    assert isinstance(open_run(path.parent).manifest, Manifest)


def test_create_refuses_what_is_not_new(tmp_path: Path) -> None:
    runs.write(tmp_path / "r")
    with pytest.raises(RunError, match=r"already holds a run.*for instance"):
        create(tmp_path / "r", runs.manifest())
    (tmp_path / "d").mkdir()
    create(tmp_path / "d", runs.manifest())
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "x").write_text("")
    with pytest.raises(RunError, match=r"not empty"):
        create(tmp_path / "e", runs.manifest())
    with pytest.raises(RunError, match=r"is a file"):
        create(tmp_path / "e" / "x", runs.manifest())
    with pytest.raises(RunError, match=r"cannot be written"):
        create(tmp_path / "e" / "x" / "y", runs.manifest())


def test_fresh_paths_differ(tmp_path: Path) -> None:
    first = fresh_path(tmp_path, "demo")
    first.mkdir()
    assert fresh_path(tmp_path, "demo") != first


def test_a_table_never_written_yields_nothing(tmp_path: Path) -> None:
    run = open_run(runs.write(tmp_path / "r"))
    assert list(run.batches(Timeline, [Timeline.t_ns])) == []
    with pytest.raises(KeyError, match="no column sent"):
        list(run.batches(Requests, ["sent"]))


def test_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    run = open_run(runs.write(tmp_path / "r", [runs.ok(3, anchor_s=1, done_s=2)]))
    (batch,) = run.batches(Requests, [Requests.done_ns, Requests.request_id, Requests.anchor_ns])
    assert batch.to_pylist() == [{"done_ns": 2 * 10**9, "request_id": 3, "anchor_ns": 10**9}]


def test_garbage_in_a_segment_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    path = runs.write(tmp_path / "r", [runs.ok(i, anchor_s=i, done_s=i + 1) for i in range(5)])
    (path / "requests" / "g001-1-0000.arrows").write_bytes(b"\x07" * 3000)
    (path / "requests" / "g002-1-0000.arrows").write_bytes(b"")
    run = open_run(path)
    assert sum(b.num_rows for b in run.batches(Requests, [Requests.request_id])) == 5
    (problem,) = run.problems
    assert "g001-1-0000.arrows" in problem


# --- clocks -----------------------------------------------------------------------------------------


@given(
    offset=st.integers(-(10**15), 10**15),
    drift_ppm=st.floats(-100, 100),
    true_ns=st.lists(st.integers(0, 86400 * 10**9), min_size=1, max_size=20),
)
def test_a_drifting_clock_is_undone_to_a_microsecond(
    offset: int, drift_ppm: float, true_ns: list[int]
) -> None:
    import numpy as np

    def local(t: int) -> int:
        return t + offset + round(t * drift_ppm * 1e-6)

    samples = [ClockSample(t, local(t) - t, 1000) for t in range(0, 86401 * 10**9, 3600 * 10**9)]
    fixed = Correction(samples)(np.array([local(t) for t in true_ns], np.int64))
    assert np.abs(fixed - np.array(true_ns)).max() <= 1000


def test_rows_of_another_host_are_corrected_and_plans_are_not(tmp_path: Path) -> None:
    """Generator 1's clock runs two seconds ahead. Its plain row keeps its planned anchor; its second turn,
    anchored at an answer it timed itself, moves with the clock."""
    far = Host("generator", 1, "far", "b2", 1, None, [ClockSample(0, 2 * 10**9, 1000)])
    near = Host("generator", 0, "near", "b1", 1, None, [ClockSample(0, 0, 0)])
    rows = [
        runs.ok(0, anchor_s=1, sent_s=1, done_s=2, generator=0),
        runs.ok(1, anchor_s=5, sent_s=7.001, first_s=8, done_s=9, generator=1),
        runs.ok(2, anchor_s=10, sent_s=10.002, done_s=12, generator=1),
        runs.failed(3, "not_sent", anchor_s=20, **{Requests.sent_ns: None}, generator=1),
    ]
    plan = runs.schedule_of(rows)
    plan[2][Schedule.scheduled_ns] = None
    path = runs.write(tmp_path / "r", rows, schedule=plan, hosts=[near, far])
    with LocalSink(path, "g001") as sink:
        sink.write(
            Generators, runs.batch(Generators, [{Generators.t_ns: 5 * 10**9, Generators.generator: 1}])
        )
    run = open_run(path)
    names = [Requests.request_id, Requests.anchor_ns, Requests.sent_ns, Requests.first_token_ns]
    found = {r["request_id"]: r for b in run.batches(Requests, names) for r in b.to_pylist()}
    s = 10**9
    assert found[0] == {"request_id": 0, "anchor_ns": s, "sent_ns": s, "first_token_ns": None}
    assert found[1] == {
        "request_id": 1,
        "anchor_ns": 5 * s,
        "sent_ns": 5001 * s // 1000,
        "first_token_ns": 6 * s,
    }
    assert found[2] == {
        "request_id": 2,
        "anchor_ns": 8 * s,
        "sent_ns": 8002 * s // 1000,
        "first_token_ns": None,
    }
    assert found[3] == {"request_id": 3, "anchor_ns": 20 * s, "sent_ns": None, "first_token_ns": None}
    (batch,) = run.batches(Generators, [Generators.t_ns])
    assert batch.column(0).to_pylist() == [3 * s]

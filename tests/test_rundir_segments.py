"""What a writer leaves behind: whole batches, rolled streams, and nothing behind a torn write."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pytest
import runs
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.rundir import LocalSink, create, open_run, segments
from raybench.schema import Events, Generators, Requests, RunStatus, Timeline


def rows(n: int, first: int = 0) -> pa.RecordBatch:
    return runs.batch(Requests, [runs.ok(first + i, anchor_s=i, done_s=i + 1) for i in range(n)])


def ids(path: Path) -> list[int]:
    run = open_run(path)
    return sorted(i for b in run.batches(Requests, [Requests.request_id]) for i in b.column(0).to_pylist())


def test_a_batch_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    run = create(tmp_path / "r", runs.manifest(status=RunStatus.RUNNING))
    sink = run.sink("g000")
    for i in range(5):
        sink.write(Requests, rows(3, 3 * i))
        assert ids(run.path) == list(range(3 * i + 3))


def test_every_value_comes_back(tmp_path: Path) -> None:
    row = runs.ok(
        7,
        anchor_s=1.5,
        sent_s=1.6,
        first_s=2,
        done_s=3,
        tokens=5,
        error="x",
        replica="abc",
        finish_reason="stop",
        chunk_ns=[0, 5, 9],
    )
    path = runs.write(tmp_path / "r", [row])
    (batch,) = open_run(path).batches(Requests, Requests.schema.names)
    assert batch.equals(runs.batch(Requests, [row]))


def test_streams_roll_by_size_and_by_age(tmp_path: Path) -> None:
    now = [0.0]
    sink = LocalSink(
        create(tmp_path / "r", runs.manifest()).path, "g000", roll_bytes=10_000, clock_s=lambda: now[0]
    )
    sink.write(Requests, rows(1))
    now[0] = 599.0
    sink.write(Requests, rows(1, 1))
    assert len(list(tmp_path.glob("r/requests/*"))) == 1
    now[0] = 600.0
    sink.write(Requests, rows(1, 2))
    assert len(list(tmp_path.glob("r/requests/*"))) == 2
    sink.write(Requests, rows(2000, 3))
    sink.write(Requests, rows(1, 2003))
    assert len(list(tmp_path.glob("r/requests/*"))) == 3
    sink.close()
    assert ids(tmp_path / "r") == list(range(2004))
    for file in tmp_path.glob("r/requests/*"):
        assert pa.ipc.open_stream(file.read_bytes()).read_all().num_rows


def test_a_restarted_writer_never_appends(tmp_path: Path) -> None:
    run = create(tmp_path / "r", runs.manifest())
    for i in range(3):
        with run.sink("g000") as sink:
            sink.write(Requests, rows(2, 2 * i))
    assert len(list(tmp_path.glob("r/requests/*"))) == 3
    assert ids(run.path) == list(range(6))


def test_tables_of_one_sink_do_not_mix(tmp_path: Path) -> None:
    run = create(tmp_path / "r", runs.manifest())
    with run.sink("monitor") as sink:
        sink.write(Timeline, runs.batch(Timeline, [{Timeline.t_ns: 1}]))
        sink.write(Events, runs.batch(Events, [runs.event(0, "note", text="x")]))
        sink.write(Generators, runs.batch(Generators, [{Generators.t_ns: 1}]))
    for table in (Timeline, Events, Generators):
        assert sum(b.num_rows for b in open_run(run.path).batches(table, table.schema.names)) == 1


def test_other_columns_are_refused_with_the_difference(tmp_path: Path) -> None:
    sink = create(tmp_path / "r", runs.manifest()).sink("g000")
    with pytest.raises(ValueError, match=r"sent_ns: int64 is right, found nothing"):
        sink.write(Requests, rows(1).drop_columns([Requests.sent_ns]))


def test_a_writer_needs_a_plain_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without '-'"):
        LocalSink(tmp_path, "g-0")


@pytest.mark.parametrize("kept", [0, 1, 100, 1500])
def test_full_disk_mid_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """The torn stream stays as it is, the batch can be written again, and readers see every whole batch."""
    run = create(tmp_path / "r", runs.manifest())
    sink = run.sink("g000")
    sink.write(Requests, rows(10))
    with monkeypatch.context() as m:

        def full(file: object, data: memoryview) -> int:
            file.write(data[:kept])  # type: ignore[attr-defined]
            raise OSError(errno.ENOSPC, "No space left on device")

        m.setattr(segments, "write_some", full)
        with pytest.raises(OSError, match="No space left"):
            sink.write(Requests, rows(10, 10))
    sink.write(Requests, rows(10, 10))
    sink.write(Requests, rows(10, 20))
    sink.close()
    assert len(list(tmp_path.glob("r/requests/*"))) == 2
    opened = open_run(run.path)
    found = [i for b in opened.batches(Requests, [Requests.request_id]) for i in b.column(0).to_pylist()]
    assert sorted(found) == list(range(30))
    assert len(opened.problems) == (1 if kept else 0)


def test_a_directory_that_cannot_be_written_to_for_a_while(tmp_path: Path) -> None:
    """Found when a stream is rolled: an OSError, the batch can be written again, and nothing else is lost."""
    run = create(tmp_path / "r", runs.manifest())
    sink = LocalSink(run.path, "g000", roll_bytes=1)
    sink.write(Requests, rows(10))
    place, aside = run.path / Requests.name, tmp_path / "aside"
    place.rename(aside)
    place.write_text("in the way")  # permissions do not stop root, who runs tests in containers; this does
    for _ in range(2):
        with pytest.raises(OSError, match="requests"):
            sink.write(Requests, rows(10, 10))
    place.unlink()
    aside.rename(place)
    sink.write(Requests, rows(10, 10))
    sink.close()
    opened = open_run(run.path)
    found = [i for b in opened.batches(Requests, [Requests.request_id]) for i in b.column(0).to_pylist()]
    assert sorted(found) == list(range(20)) and not opened.problems


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "write_some", lambda file, data: file.write(data[:7]))
    run = create(tmp_path / "r", runs.manifest())
    with run.sink("g000") as sink:
        sink.write(Requests, rows(50))
    assert ids(run.path) == list(range(50))


@given(cut=st.floats(0, 1), batches=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_a_stream_cut_anywhere_gives_a_prefix_of_whole_batches(
    tmp_path_factory: pytest.TempPathFactory, cut: float, batches: int
) -> None:
    run = create(tmp_path_factory.mktemp("cut") / "r", runs.manifest())
    sink = run.sink("g000")
    ends = []
    for i in range(batches):
        sink.write(Requests, rows(4, 4 * i))
        (file,) = run.path.glob("requests/*")
        ends.append(file.stat().st_size)
    size = int(cut * ends[-1])
    os.truncate(file, size)
    whole = sum(end <= size for end in ends)
    assert ids(run.path) == list(range(4 * whole))


def test_kill_minus_nine_at_any_time_keeps_every_whole_batch(tmp_path: Path) -> None:
    """A process that says after each batch that it is written is killed; what it said is there."""
    code = textwrap.dedent("""
        import sys; sys.path.insert(0, sys.argv[2])
        import runs
        from raybench.rundir import LocalSink
        from raybench.schema import Requests
        sink = LocalSink(sys.argv[1], "g000", roll_bytes=20_000)
        batches = [runs.batch(Requests, [runs.ok(i * 20 + j, anchor_s=j, done_s=j + 1) for j in range(20)])
                   for i in range(100)]
        print("ready", flush=True)
        for i, b in enumerate(batches * 100):
            sink.write(Requests, b)
            print(i + 1, flush=True)
    """)
    chance = random.Random(5)
    for attempt in range(4):
        run = create(
            tmp_path / f"r{attempt}",
            runs.manifest(status=RunStatus.RUNNING, created_unix_ns=0, heartbeat_unix_ns=0),
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(run.path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.1))
        child.send_signal(signal.SIGKILL)
        said = child.stdout.read().split()
        child.wait()
        opened = open_run(run.path)
        assert opened.status is RunStatus.KILLED
        n = sum(b.num_rows for b in opened.batches(Requests, Requests.schema.names))
        written = int(said[-1]) if said else 0
        assert n in (20 * written, 20 * (written + 1))

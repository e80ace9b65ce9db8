"""Compacting: the same rows, readable by others, and at no instant an unreadable run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.dataset as ds
import pytest
import runs
from click.testing import CliRunner

from raybench.analysis import summarise
from raybench.cli.main import main
from raybench.report import render
from raybench.rundir import RunError, compact, compaction, open_run
from raybench.schema import TABLES, ClockSample, EventKind, Host, Outcome, Requests, RunStatus, Timeline


def made(path: Path, **more: Any) -> Path:
    rows: list[dict[str, Any]] = [
        runs.ok(
            i,
            anchor_s=i,
            first_s=i + 0.1,
            done_s=i + 1,
            tokens=9,
            generator=i % 3,
            chunk_ns=[0, 5],
            replica="a",
        )
        for i in range(50)
    ]
    rows.append(runs.failed(50, Outcome.HTTP_ERROR, "503", anchor_s=50, done_s=51, http_status=503))
    return runs.write(
        path,
        rows,
        timeline=[{Timeline.t_ns: i, Timeline.replicas_available: 1} for i in range(5)],
        events=[runs.event(1, EventKind.NOTE, "x", text="y")],
        batch_rows=7,
        **more,
    )


def every_row(path: Path) -> dict[str, list[dict[str, Any]]]:
    run = open_run(path)
    rows = {t.name: [r for b in run.batches(t, t.schema.names) for r in b.to_pylist()] for t in TABLES}
    return {name: sorted(of, key=lambda r: json.dumps(r, sort_keys=True)) for name, of in rows.items()}


def test_both_forms_read_the_same(tmp_path: Path) -> None:
    path = made(tmp_path / "r")
    before, report = every_row(path), render(summarise(open_run(path)), "json")
    counts = compact(open_run(path))
    assert counts["requests"] == 51
    assert sorted(p.name for p in path.iterdir()) == sorted(
        ["manifest.json", *(f"{t.name}.arrow" for t in TABLES)]
    )
    assert every_row(path) == before
    assert render(summarise(open_run(path)), "json") == report
    assert compact(open_run(path)) == counts


def test_batches_are_regrouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "ROWS", 20)
    path = made(tmp_path / "r")
    compact(open_run(path))
    sizes = [b.num_rows for b in open_run(path).batches(Requests, [Requests.request_id])]
    assert sizes == [20, 20, 11]


def test_others_read_the_tables_without_us(tmp_path: Path) -> None:
    """As docs/tables-elsewhere.md shows."""
    path = made(tmp_path / "r")
    compact(open_run(path))
    requests = ds.dataset(path / "requests.arrow", format="ipc")
    assert requests.count_rows() == 51
    frame = pd.read_feather(path / "requests.arrow")
    assert frame.groupby("outcome", observed=True).size().to_dict() == {"ok": 50, "http_error": 1}
    answer = duckdb.sql("select outcome, count(*) from requests group by all order by all").fetchall()
    assert sorted(answer) == [("http_error", 1), ("ok", 50)]


def test_corrected_clocks_are_not_corrected_twice(tmp_path: Path) -> None:
    hosts = [Host("generator", 1, "far", "b", 1, None, [ClockSample(0, 10**9, 1000)])]
    path = made(tmp_path / "r", hosts=hosts)
    before = every_row(path)
    compact(open_run(path))
    assert every_row(path) == before


def test_a_run_that_is_going_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "r", status=RunStatus.RUNNING)
    with pytest.raises(RunError, match="still going"):
        compact(open_run(path))


def test_streams_that_cannot_be_read_whole_stay(tmp_path: Path) -> None:
    path = made(tmp_path / "r")
    victim = sorted((path / "requests").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:-200])
    before = every_row(path)["requests"]
    run = open_run(path)
    compact(run)
    assert every_row(path)["requests"] == before
    assert run.problems
    assert victim.exists()
    assert not (path / "timeline").exists()


def test_a_kill_between_the_file_and_the_streams_removal_changes_nothing(tmp_path: Path) -> None:
    path = made(tmp_path / "r")
    before = every_row(path)
    kept = shutil.copytree(path / "requests", tmp_path / "kept")
    compact(open_run(path))
    shutil.copytree(kept, path / "requests")
    assert every_row(path) == before
    compact(open_run(path))
    assert every_row(path) == before
    assert not (path / "requests").exists()


def test_a_full_disk_leaves_the_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "r")
    before = every_row(path)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compaction.os, "fsync", full)
    with pytest.raises(
        RunError, match=r"cannot be written: No space left on device; the streams are as they were"
    ):
        compact(open_run(path))
    assert every_row(path) == before
    assert not list(path.glob(".*")) and not list(path.glob("*.arrow"))


def test_the_command(tmp_path: Path) -> None:
    path = made(tmp_path / "r")
    result = CliRunner().invoke(main, ["compact", str(path)])
    assert (result.exit_code, result.output) == (
        0,
        f"{path}: 51 schedule, 51 requests, 5 timeline, 1 events\n",
    )
    assert CliRunner().invoke(main, ["compact", str(tmp_path)]).exit_code == 2

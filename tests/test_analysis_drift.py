"""The drift of long runs: windows against DuckDB over the raw tables, and trends that are there or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import runs
from click.testing import CliRunner

from raybench.analysis import Question, Summary, summarise
from raybench.analysis.drifted import Drift
from raybench.cli.main import main
from raybench.report import render
from raybench.rundir import open_run
from raybench.schema import Generators, Outcome, Requests

STEADY = {"process": "poisson", "rate": 1.0}


def scenario(*stages: tuple[float, dict[str, Any]], **load: Any) -> dict[str, Any]:
    return {
        "load": {
            "stages": [{"duration": d, "arrival": a} for d, a in stages],
            "request": {"timeout": 30.0},
            **load,
        }
    }


def made(
    path: Path,
    length_s: float,
    *,
    rise: float = 0.0,
    stages: list[tuple[float, dict[str, Any]]] | None = None,
    every_s: float = 5.0,
    slow: Any = lambda t: 1.0,
    **more: Any,
) -> Summary:
    """A request each `every_s`, of random latency about 100 ms that rises by `rise` times as much over the
    run; a few fail to connect or time out. Memory rises by 1 MiB an hour."""
    rng = np.random.default_rng(7)
    rows = []
    for i in range(int(length_s / every_s)):
        t = i * every_s
        ttft = 0.1 * (1 + rise * t / length_s) * slow(t) * rng.lognormal(0, 0.2)
        fate = rng.random()
        sent = t + rng.exponential(0.001)
        if fate < 0.02:
            rows.append(runs.failed(i, Outcome.CONNECT_ERROR, "refused", anchor_s=t, sent_s=sent))
        elif fate < 0.025:
            rows.append(runs.failed(i, Outcome.TIMEOUT, "late", anchor_s=t, sent_s=sent, done_s=sent + 30))
        else:
            rows.append(
                runs.ok(i, anchor_s=t, sent_s=sent, first_s=sent + ttft, done_s=sent + 3 * ttft, tokens=3)
            )
    memory = [
        {Generators.t_ns: runs.ns(t), Generators.rss_bytes: 10**8 + int(t / 3600 * 2**20)}
        for t in range(0, int(length_s), 60)
    ]
    runs.write(
        path,
        rows,
        generators=memory,
        scenario=scenario(*(stages or [(length_s, STEADY)])),
        load_total_s=length_s + 1,
        t0_unix_ns=1,
        **more,
    )
    return summarise(open_run(path), Question(drift=True))


def the(summary: Summary) -> Drift:
    assert summary.drift is not None
    return summary.drift


def direction(d: Drift, metric: str) -> str:
    return next(t.direction for t in d.trends if t.metric == metric)


@pytest.mark.parametrize(("length_s", "width_s", "count"), [(3600, 300, 12), (13 * 3600, 3600, 13)])
def test_each_window_is_what_duckdb_makes_of_the_rows(
    tmp_path: Path, length_s: float, width_s: float, count: int
) -> None:
    found = the(made(tmp_path / "run", length_s, every_s=5 if length_s < 4000 else 40))
    requests = pa.Table.from_batches(
        list(open_run(tmp_path / "run").batches(Requests, Requests.schema.names))
    )
    assert requests.num_rows and found.window_s == width_s and len(found.windows) == count
    # Timeouts count as longer than all: so they are made, for DuckDB to sort them to the end.
    rows = duckdb.sql(f"""
        select anchor_ns // {int(width_s * 1e9)} as w, count(*), count(*) filter (outcome != 'ok'),
               count(*) filter (outcome = 'connect_error'),
               quantile_disc(case outcome when 'ok' then first_token_ns - anchor_ns
                                          when 'timeout' then 9e18::bigint end, [0.5]),
               quantile_disc(case outcome when 'ok' then done_ns - anchor_ns
                                          when 'timeout' then 9e18::bigint end, [0.5]),
               quantile_disc(sent_ns - anchor_ns, [0.99])
        from requests group by w order by w""").fetchall()
    for window, (w, n, failed, connect, ttft, e2e, late) in zip(found.windows, rows, strict=True):
        assert window.from_s == w * width_s
        assert (window.requests, window.failed, window.connect_errors) == (n, failed, connect)
        assert window.ttft_p50 and window.e2e_p50 and window.lateness_p99
        assert window.ttft_p50.value == pytest.approx(ttft[0] / 1e9)
        assert window.e2e_p50.value == pytest.approx(e2e[0] / 1e9)
        assert window.lateness_p99.value == pytest.approx(late[0] / 1e9)
    most = max(t for t in range(0, int(width_s), 60))
    assert found.windows[0].rss_bytes == 10**8 + int(most / 3600 * 2**20)
    assert sum(w.requests for w in found.windows) == requests.num_rows


def test_a_rise_is_seen_and_a_run_that_stays_the_same_has_none(tmp_path: Path) -> None:
    rising = the(made(tmp_path / "a", 3600, rise=1.0))
    assert direction(rising, "TTFT p50") == direction(rising, "E2E p50") == "rises"
    (slope,) = [t.per_hour for t in rising.trends if t.metric == "TTFT p50"]
    assert slope == pytest.approx(0.1, rel=0.25), "from 100 ms to 200 ms in an hour"
    still = the(made(tmp_path / "b", 3600))
    assert direction(still, "TTFT p50") == direction(still, "lateness p99") == "no trend"
    assert direction(still, "memory") == "rises"
    (slope,) = [t.per_hour for t in still.trends if t.metric == "memory"]
    assert slope == pytest.approx(2**20, rel=0.01)


def test_only_hours_under_the_same_load_are_compared(tmp_path: Path) -> None:
    """Ever heavier stages look like a trend until they come round again."""
    busy = {"process": "gamma", "rate": 2.0, "burstiness": 0.5}
    stages = [(300.0, STEADY), (300.0, busy)] * 6
    found = the(made(tmp_path / "a", 3600, stages=stages, slow=lambda t: 3.0 if t // 300 % 2 else 1.0))
    assert not found.same_load and direction(found, "TTFT p50") == "no trend"
    ever_more = [(300.0, {"process": "poisson", "rate": 1.0 + i}) for i in range(12)]
    found = the(made(tmp_path / "b", 3600, stages=ever_more, rise=5.0))
    assert direction(found, "TTFT p50") == "unknown"
    ramp = [(900.0, {"process": "ramp", "start": 0.0, "end": 2.0})] * 4
    found = the(made(tmp_path / "c", 3600, stages=ramp, slow=lambda t: 1 + t % 900 / 300))
    assert direction(found, "TTFT p50") == "no trend", "compared at the same place of each ramp"


def test_short_runs_have_no_such_section_unless_asked(tmp_path: Path) -> None:
    made(tmp_path / "a", 480)
    assert summarise(open_run(tmp_path / "a"), Question()).drift is None
    made(tmp_path / "b", 900)
    assert summarise(open_run(tmp_path / "b"), Question()).drift is not None
    assert summarise(open_run(tmp_path / "b"), Question(drift=False)).drift is None
    runs.write(tmp_path / "c", [])
    assert summarise(open_run(tmp_path / "c"), Question(drift=True)).drift is None


def test_the_report_shows_it(tmp_path: Path) -> None:
    summary = made(tmp_path / "a", 3600, rise=1.0)
    text = render(summary, "text")
    section = text[text.index("Drift (every 300 s)") :]
    assert "TTFT p50" in section and "rises" in section and "0:55:00" in section
    assert json.loads(render(summary, "json"))["drift"]["windows"][0]["requests"] == 60
    answer = CliRunner().invoke(main, ["analyze", str(tmp_path / "a"), "--no-drift"])
    assert "Drift (" not in answer.output


def test_the_window_and_the_phase_of_the_question_are_the_run(tmp_path: Path) -> None:
    made(tmp_path / "a", 3600)
    asked = Question(window=(1200.0, 2400.0), drift=True)
    found = the(summarise(open_run(tmp_path / "a"), asked))
    assert (found.windows[0].from_s, found.windows[-1].to_s, found.window_s) == (1200.0, 2400.0, 100.0)
    assert sum(w.requests for w in found.windows) == 240

"""A target's metrics page: read where it is good, survived where it is not, and what a run makes of it."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from servers.hostile import HostileServer
from servers.metrics_page import PageServer, vllm

from raybench.analysis import Question, summarise
from raybench.analysis.series import series
from raybench.fleet import scrape
from raybench.fleet.conductor import Conductor, Snapshot
from raybench.fleet.output import Output
from raybench.fleet.scrape import Engine, Page, PageError, Scraper, engines, page_url
from raybench.fleet.timekeeper import FRESH_NS, Timekeeper
from raybench.rundir import Run, open_run
from raybench.scenario import load
from raybench.schema import EventKind, Events, Replicas, RunStatus, Table, Timeline

ONE = {"running": 3.0, "waiting": 2.0, "kv": 0.25}


# --- one page --------------------------------------------------------------------------------------------


def test_the_three_gauges_of_each_engine_are_read_and_nothing_else() -> None:
    page = vllm(ONE, {"running": 1.0, "waiting": 0.0, "kv": 0.5})
    assert engines(page, "m") == (Engine("engine=0", 2.0, 3.0, 0.25), Engine("engine=1", 0.0, 1.0, 0.5))


def test_the_name_before_todays_is_understood_and_todays_wins_where_both_stand() -> None:
    assert engines(vllm(ONE, kv_name="gpu_cache_usage_perc"), "m")[0].kv_cache == 0.25
    both = vllm(ONE) + b'vllm:gpu_cache_usage_perc{engine="0",model_name="m"} 0.75\n'
    assert engines(both, "m")[0].kv_cache == 0.25


def test_rays_exporter_renames_them_and_tells_replicas_apart() -> None:
    page = b"".join(
        f'ray_vllm_num_requests_{what}{{ReplicaId="{who}",WorkerId="{worker}",model_name="m"}} {n}\n'.encode()
        for what in ("running", "waiting")
        for who, worker, n in (("a", 1, 2), ("a", 2, 3), ("b", 3, 4))
    )
    found = engines(page, "m")
    assert found == (Engine("ReplicaId=a", 5.0, 5.0), Engine("ReplicaId=b", 4.0, 4.0)), "two workers add up"


def test_a_gateways_other_models_do_not_count_unless_none_has_the_name() -> None:
    page = vllm(ONE) + vllm({"running": 50.0}, model="other").replace(b'engine="0"', b'engine="9"')
    assert [e.running for e in engines(page, "m")] == [3.0]
    assert [e.running for e in engines(page, "alias")] == [3.0, 50.0]


def test_what_the_page_does_not_say_stays_unknown() -> None:
    assert engines(vllm({"running": 1.0}), "m") == (Engine("engine=0", None, 1.0, None),)
    assert engines(vllm(ONE | {"kv": 37.0}), "m")[0].kv_cache is None, "no share"


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b"", "has no vllm:num_requests_running"),
        (bytes(range(256)), "has no vllm:num_requests_running"),
        (b'vllm:num_requests_running{engine="0" 1\n', "not in Prometheus' text format"),
        (b'vllm:num_requests_running{engine="0"} many\n', "not in Prometheus' text format"),
        (b"vllm:num_requests_running{a=" + b"\\" * 100_000 + b"\n", "characters in one line"),
        (b'vllm:num_requests_running{engine="0"} NaN\n', "is nan"),
        (b'vllm:num_requests_waiting{engine="0"} -1\n', "is -1"),
        (b"".join(b'vllm:num_requests_running{engine="%d"} 1\n' % i for i in range(300)), "256 engines"),
        (b'vllm:num_requests_running{engine="0"} 1\n' * 5000, "4096 lines"),
    ],
)
def test_a_page_that_makes_no_sense_is_refused_with_its_reason(page: bytes, reason: str) -> None:
    with pytest.raises(PageError, match=reason):
        engines(page, "m")


@given(st.binary(max_size=300))
def test_whatever_follows_the_name_it_is_read_or_refused(noise: bytes) -> None:
    try:
        found = engines(b"vllm:num_requests_running{" + noise, "m")
    except PageError:
        return
    assert found and all(e.running is None or math.isfinite(e.running) for e in found)


def test_a_bare_server_is_asked_for_its_metrics() -> None:
    assert page_url("http://h:1") == page_url("http://h:1/") == "http://h:1/metrics"
    assert page_url("http://h:1/a/prometheus") == "http://h:1/a/prometheus"
    assert page_url("http://h:1/?name=x") == "http://h:1/?name=x"


# --- many reads ------------------------------------------------------------------------------------------


class Told:
    """What a scraper told; `wait` until something is true of it."""

    def __init__(self) -> None:
        self.pages: list[Page] = []
        self.reasons: list[str] = []
        self._news = threading.Condition()

    def __call__(self, page: Page | None, reason: str) -> None:
        with self._news:
            if page is None:
                self.reasons.append(reason)
            else:
                self.pages.append(page)
            self._news.notify_all()

    def wait(self, until: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(until, timeout=60), (self.reasons[:3], len(self.pages))


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer(vllm(ONE)) as running:
        yield running


REASONS = {
    "status_500": "HTTP status 500",
    "redirect": "HTTP status 307",
    "garbage": "has no vllm:num_requests_running",
    "broken_lines": "not in Prometheus' text format",
    "no_http": "Bad",
    "cut": "ClientPayloadError",
    "packed": "is packed",
    "silent": "no whole page within",
    "slow_head": "no whole page within",
    "slow_page": "no whole page within",
    "endless_page": "more than 4 MiB",
    "endless_head": "|".join(("many", "no whole page within", "Too")),
    "endless_line": "more than 4 MiB",
}


@pytest.mark.parametrize("behaviour", REASONS)
def test_a_page_gone_bad_is_told_and_counted_and_read_again_when_it_is_good(
    server: PageServer, behaviour: str
) -> None:
    import re

    told = Told()
    # The limit of time is short only where it shall be met.
    timeout_s = 0.4 if "no whole" in REASONS[behaviour] else 20.0
    scraper = Scraper(server.url, "m", told, period_s=0.02, timeout_s=timeout_s)
    try:
        told.wait(lambda: len(told.pages) >= 1)
        server.behaviour = behaviour
        told.wait(lambda: len(told.reasons) >= 2)
        server.behaviour = "good"
        before = len(told.pages)
        told.wait(lambda: len(told.pages) > before)
    finally:
        scraper.stop()
    assert re.search(REASONS[behaviour], told.reasons[0]), told.reasons[0]
    assert told.pages[-1].engines == (Engine("engine=0", 2.0, 3.0, 0.25),)
    assert scraper.reads.failed >= 2 and scraper.reads.read >= 2
    assert scraper.reads.first_failure == told.reasons[0]
    assert server.asked >= scraper.reads.read
    assert b"authorization" not in server.heads[0].lower()


def test_nobody_listens() -> None:
    server = PageServer(vllm(ONE))
    server.close()
    told = Told()
    scraper = Scraper(server.url, "m", told, period_s=0.02)
    told.wait(lambda: len(told.reasons) >= 2)
    scraper.stop()
    assert "none:" in scraper.reads.in_words() and not scraper.reads.read


def test_stopping_does_not_wait_for_a_page_that_never_ends(server: PageServer) -> None:
    server.behaviour = "silent"
    scraper = Scraper(server.url, "m", Told(), timeout_s=600.0)
    until = time.monotonic() + 30
    while not server.asked and time.monotonic() < until:
        time.sleep(0.01)
    scraper.stop(wait_s=30.0)
    assert not scraper._thread.is_alive()


def test_the_words_for_the_report_say_what_is_missing(server: PageServer) -> None:
    server.page = vllm({"running": 1.0}, {"running": 2.0})
    told = Told()
    scraper = Scraper(server.url, "m", told, period_s=0.02)
    told.wait(lambda: len(told.pages) >= 1)
    scraper.stop()
    said = scraper.reads.in_words()
    assert f"from {server.url}/metrics" in said and "2 engines" in said
    assert "it has no waiting requests and no KV cache use" in said
    assert scraper.reads.problems == ()


# --- in the timekeeper -----------------------------------------------------------------------------------


class Rows:
    """A sink that keeps rows."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None:
        self.rows.setdefault(table.name, []).extend(batch.to_pylist())

    def close(self) -> None: ...


def test_a_page_stands_for_the_present_only_while_it_is_fresh() -> None:
    rows = Rows()
    keeper = Timekeeper(rows, "")
    keeper.start(0)
    keeper.page_read(Page(0, (Engine("a", 1.0, 2.0, 0.5), Engine("b", 3.0, 4.0, None))))
    keeper.sample(FRESH_NS)
    keeper.sample(FRESH_NS + 1)
    keeper.flush()
    fresh, stale = rows.rows[Timeline.name]
    assert (fresh[Timeline.waiting], fresh[Timeline.serving], fresh[Timeline.queue_depth]) == (4.0, 6.0, 5.0)
    assert {stale[c] for c in Timeline.columns} == {None, FRESH_NS + 1}
    assert [r[Replicas.replica] for r in rows.rows[Replicas.name]] == ["a", "b"]


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    rows = Rows()
    keeper = Timekeeper(rows, "")
    keeper.start(0)
    keeper.page_read(Page(0, (Engine("a", 1.0, 2.0), Engine("b", None, 4.0))))
    keeper.sample(0)
    keeper.flush()
    (row,) = rows.rows[Timeline.name]
    assert (row[Timeline.waiting], row[Timeline.serving], row[Timeline.queue_depth]) == (None, 6.0, None)
    assert row[Timeline.replicas_available] == 2


# --- a run -----------------------------------------------------------------------------------------------


def run(
    tmp_path: Path,
    target: dict[str, Any],
    watch: Callable[[Snapshot], None] = lambda s: None,
    duration: str = "7s",
) -> tuple[Run, list[dict[str, Any]]]:
    keys = {
        "stages": [{"duration": duration, "arrival": {"process": "constant", "rate": "10/s"}}],
        "request": {"prompt": "x", "max_tokens": 8, "timeout": "5s"},
    }
    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump({"name": "t", "target": {"model": "m"} | target, "load": keys}))
    conductor = Conductor(load(path), Output(tmp_path / "run"))
    conductor.watch(watch)
    conductor.run()
    found = open_run(tmp_path / "run")
    columns = list(Timeline.columns)
    return found, [row for batch in found.batches(Timeline, columns) for row in batch.to_pylist()]


@pytest.mark.usefixtures("ray_cluster")
def test_a_run_against_a_target_has_its_depth_and_goes_on_without_the_page(tmp_path: Path) -> None:
    page = vllm(ONE, {"running": 1.0, "waiting": 6.0, "kv": 0.75})
    with HostileServer() as target, PageServer(page) as metrics:

        def watch(snapshot: Snapshot) -> None:
            if snapshot.stage == "load" and snapshot.t_s >= 3.0:
                metrics.behaviour = "status_500"  # the page disappears, and the run goes on

        found, timeline = run(tmp_path, {"url": target.url("good"), "metrics_url": metrics.url}, watch)
        assert b"GET /metrics " in metrics.heads[0]
    assert found.manifest.status is RunStatus.COMPLETE
    assert found.manifest.counts == {"ok": 70}
    known = [r for r in timeline if r[Timeline.waiting] is not None]
    unknown = [r for r in timeline if r[Timeline.waiting] is None and r[Timeline.t_ns] > 3.5e9]
    assert known and unknown
    for row in known:
        assert (row[Timeline.waiting], row[Timeline.serving]) == (8.0, 4.0)
        assert (row[Timeline.replicas_available], row[Timeline.queue_depth]) == (2, 6.0)
        assert row[Timeline.replicas_target] is row[Timeline.replicas_starting] is None
    assert all(row[Timeline.replicas_available] is None for row in unknown), "not zero: nobody knows"
    replicas = [r for b in found.batches(Replicas, list(Replicas.columns)) for r in b.to_pylist()]
    assert {r[Replicas.replica] for r in replicas} == {"engine=0", "engine=1"}
    assert {r[Replicas.kv_cache_usage] for r in replicas} == {0.25, 0.75}
    (problem,) = (p for p in found.manifest.problems if "metrics" in p)
    assert "HTTP status 500" in problem
    notes = [
        json.loads(r[Events.detail])["text"]
        for b in found.batches(Events, list(Events.columns))
        for r in b.to_pylist()
        if r[Events.kind] == EventKind.NOTE
    ]
    assert [n for n in notes if "metrics page" in n] == ["the metrics page cannot be read: HTTP status 500"]
    said = found.manifest.measured["server_metrics"]
    assert f"from {metrics.url}/metrics" in said and "reads failed (HTTP status 500)" in said

    summary = summarise(found, Question())
    drawn = series(found, Question(), summary)
    assert drawn.depth is not None and drawn.depth.peak.value == 6.0
    assert drawn.kv_cache is not None and drawn.kv_cache.peak.value == 0.75
    assert drawn.replicas is not None and drawn.replicas.most_available == 2


@pytest.mark.usefixtures("ray_cluster")
def test_without_a_page_nothing_is_claimed_about_the_server(tmp_path: Path) -> None:
    with HostileServer() as target:
        found, timeline = run(tmp_path, {"url": target.url("good")}, duration="2s")
    assert timeline and all(row[Timeline.replicas_available] is None for row in timeline)
    assert {row[Timeline.in_flight] for row in timeline} != {None}
    assert summarise(found, Question()).scaling is None
    assert "server_metrics" not in found.manifest.measured


def test_the_bounds_fit_together() -> None:
    """The lines that reach the parser cannot be more than the page that is read."""
    assert scrape.MOST_LINES * 2 * len(b"vllm:num_requests_running") < scrape.MOST_BYTES
    assert scrape.TIMEOUT_S > scrape.PERIOD_S

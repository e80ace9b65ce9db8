"""The metrics a run exports: counted in buckets, published as they are, each with its place on the board."""

from __future__ import annotations

import json
import math
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import runs
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from servers.hostile import HostileServer
from servers.metrics_page import PageServer, vllm

from raybench.fleet import metrics
from raybench.fleet.conductor import Conductor
from raybench.fleet.metrics import BUCKETS, E2E, LATENESS, SPECS, TOKENS, TTFT, Counted, Publisher, add_up
from raybench.fleet.output import Output
from raybench.fleet.snapshot import Snapshot
from raybench.fleet.timekeeper import Now
from raybench.rundir import open_run
from raybench.scenario import load
from raybench.schema import Events, Outcome, Requests, Table

ROOT = Path(__file__).parent.parent
BOARD = ROOT / "docs" / "grafana" / "raybench.json"
DOCS = ROOT / "docs" / "metrics.md"


# --- counting --------------------------------------------------------------------------------------------


class Kept:
    """A sink that keeps batches, or refuses them."""

    def __init__(self, refuse: bool = False) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.refuse = refuse

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None:
        if self.refuse:
            raise OSError("full")
        self.batches.append(batch)

    def close(self) -> None: ...


durations = st.floats(0.0, 2000.0).map(lambda s: round(s, 6))


@given(st.lists(st.tuples(durations, durations, durations, st.sampled_from(list(Outcome)))))
def test_each_good_answer_is_in_the_bucket_whose_edges_hold_it(rows: list[Any]) -> None:
    made = [
        runs.ok(i, anchor_s=5.0, sent_s=5.0 + late, first_s=5.0 + first, done_s=5.0 + done, tokens=3)
        | {Requests.outcome: outcome}
        for i, (late, first, done, outcome) in enumerate(rows)
    ]
    counted = Counted(Kept())
    if made:
        counted.write(Requests, runs.batch(Requests, made))
    totals = counted.totals()
    good = [row for row in rows if row[3] is Outcome.OK]
    for name, values in (
        (LATENESS, [r[0] for r in rows]),
        (TTFT, [r[1] for r in good]),
        (E2E, [r[2] for r in good]),
    ):
        edges = [0.0, *BUCKETS[name], math.inf]
        for low, high, count in zip(edges[:-1], edges[1:], totals[name], strict=True):
            expected = sum(low < v <= high or (v == low == 0.0) for v in values)
            assert count == expected, (name, low, high)
    assert totals[TOKENS] == (3 * len(good),)


def test_a_closed_loop_counts_from_sent_and_has_no_lateness() -> None:
    counted = Counted(Kept())
    row = runs.ok(0, sent_s=1.0, first_s=1.04, done_s=3.5)
    counted.write(Requests, runs.batch(Requests, [row]))
    totals = counted.totals()
    assert sum(totals[LATENESS]) == 0
    assert BUCKETS[TTFT][totals[TTFT].index(1)] == 0.05
    assert BUCKETS[E2E][totals[E2E].index(1)] == 3.0


def test_counting_never_stands_in_the_way_of_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    counted = Counted(kept)
    monkeypatch.setattr(Counted, "_count", lambda *_: 1 / 0)
    batch = runs.batch(Requests, [runs.ok(0, anchor_s=0.0, done_s=1.0)])
    counted.write(Requests, batch)
    counted.write(Requests, batch)
    counted.write(Events, runs.batch(Events, []))
    assert len(kept.batches) == 3


def test_a_batch_that_was_refused_is_not_counted() -> None:
    counted = Counted(Kept(refuse=True))
    with pytest.raises(OSError):
        counted.write(Requests, runs.batch(Requests, [runs.ok(0, anchor_s=0.0, done_s=1.0)]))
    assert sum(counted.totals()[E2E]) == 0


def test_generators_add_up_and_one_that_tells_nothing_yet_does_not_matter() -> None:
    assert add_up([{TTFT: (1, 2)}, {}, {TTFT: (10, 20), E2E: (5,)}]) == {TTFT: (11, 22), E2E: (5,)}


# --- publishing ------------------------------------------------------------------------------------------


class Metric:
    """What Ray's metrics take, kept."""

    def __init__(self, spec: metrics.Spec) -> None:
        self.spec, self.values, self.observed = spec, {}, []

    def _key(self, tags: dict[str, str] | None) -> str:
        return ",".join((tags or {}).values())

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self.values[self._key(tags)] = value

    def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
        assert value > 0, "Ray refuses any other"
        self.values[self._key(tags)] = self.values.get(self._key(tags), 0) + value

    def observe(self, value: float) -> None:
        self.observed.append(value)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Metric]:
    found: dict[str, Metric] = {}

    def make(spec: metrics.Spec, run: str) -> Metric:
        return found.setdefault(spec.name, Metric(spec))

    monkeypatch.setattr(metrics, "_make", make)
    return found


def test_counters_rise_to_the_totals_and_histograms_get_what_is_new(made: dict[str, Metric]) -> None:
    publisher = Publisher("r", pytest.fail)
    edges = len(BUCKETS[TTFT]) + 1
    first = tuple(1 if i == 3 else 0 for i in range(edges))
    then = tuple(2 if i in (3, edges - 1) else 0 for i in range(edges))
    now = Now(waiting=6.0, serving=2.0, target=3, starting=1, available=2)
    publisher.show(Snapshot("load", planned=9, offered=5, sent=4, counts={"ok": 3}, counted={TTFT: first}))
    publisher.show(
        Snapshot(
            "load",
            planned=9,
            offered=8,
            sent=3,  # one generator's last word is missing
            counts={"ok": 5, "timeout": 1},
            in_flight=2,
            counted={TTFT: then, TOKENS: (40,)},
            now=now,
            problems=("a",),
        )
    )
    assert made["raybench_requests_offered_total"].values == {"": 8}
    assert made["raybench_requests_sent_total"].values == {"": 4}
    assert made["raybench_requests_total"].values == {"ok": 5, "timeout": 1}
    assert made["raybench_output_tokens_total"].values == {"": 40}
    assert made["raybench_queue_depth"].values == {"": 4.0}
    assert made["raybench_replicas"].values == {"starting": 1, "available": 2, "stopping": 0}
    assert made["raybench_replicas_target"].values == {"": 3}
    assert made["raybench_problems"].values == {"": 1}
    observed = made["raybench_ttft_seconds"].observed
    counts = np.bincount(np.searchsorted(BUCKETS[TTFT], observed, side="left"), minlength=edges)
    assert tuple(counts) == then


def test_what_is_not_known_any_more_is_not_shown_as_if_it_were(made: dict[str, Metric]) -> None:
    publisher = Publisher("r", pytest.fail)
    publisher.show(Snapshot("load", now=Now(waiting=6.0, serving=2.0, target=3, available=2)))
    publisher.show(Snapshot("ending"))
    for name in ("waiting_requests", "serving_requests", "queue_depth", "replicas_target"):
        assert math.isnan(made[f"raybench_{name}"].values[""])
    assert all(map(math.isnan, made["raybench_replicas"].values.values()))


def test_a_failure_is_told_once_and_ends_the_publishing_only(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(metrics, "_make", lambda *_: 1 / 0)
    publisher = Publisher("r", told.append)
    publisher.show(Snapshot("load"))
    publisher.show(Snapshot("load"))
    assert len(told) == 1 and "ZeroDivisionError" in told[0]


# --- names, the board, the page --------------------------------------------------------------------------


def test_names_follow_prometheus_conventions() -> None:
    for spec in SPECS:
        assert re.fullmatch(r"raybench_[a-z0-9_]+", spec.name)
        assert spec.name.endswith("_total") == (spec.kind == "counter"), spec.name
        assert spec.name.endswith("_seconds") == (spec.kind == "histogram"), spec.name
        assert set(spec.tags) <= {"run", "outcome", "state"}, "nothing that grows with the load"
        if spec.kind == "histogram":
            assert all(a < b for a, b in zip(BUCKETS[spec.counted], BUCKETS[spec.counted][1:], strict=False))


def _expressions(board: dict[str, Any]) -> list[str]:
    panels = [p for row in board["panels"] for p in (row, *row.get("panels", ()))]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_the_board_shows_every_metric_and_no_other() -> None:
    board = json.loads(BOARD.read_text())
    texts = [*_expressions(board), *(str(v.get("query")) for v in board["templating"]["list"])]
    named = {name for text in texts for name in re.findall(r"\bray_(raybench_[a-z0-9_]+)", text)}
    exported = {s.name + suffix for s in SPECS for suffix in ("", "_bucket")}
    assert named <= exported, named - exported
    assert {name.removesuffix("_bucket") for name in named} == {spec.name for spec in SPECS}
    for spec in SPECS:
        uses = [e for e in _expressions(board) if re.search(rf"ray_{spec.name}(_bucket)?\b", e)]
        assert uses, spec.name
        for expression in uses:
            assert 'run=~"$run"' in expression
            if spec.kind != "gauge":
                assert re.search(r"\brate\(|increase\(", expression) or "sum" in expression
            if spec.kind == "histogram":
                assert "_bucket" in expression and "histogram_quantile" in expression


def test_every_panel_has_a_title_a_unit_a_place_and_a_data_source() -> None:
    board = json.loads(BOARD.read_text())
    places: set[tuple[int, int]] = set()
    ids = set()
    for panel in board["panels"]:
        assert panel["title"] and panel["id"] not in ids
        ids.add(panel["id"])
        grid = panel["gridPos"]
        across, down = range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])
        cells = {(x, y) for x in across for y in down}
        assert not cells & places and grid["x"] + grid["w"] <= 24
        places |= cells
        if panel["type"] == "row":
            continue
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({t["refId"] for t in panel["targets"]}) == len(panel["targets"])
    assert {v["name"] for v in board["templating"]["list"]} == {"datasource", "run"}
    assert board["uid"] and board["schemaVersion"] >= 30


def test_every_metric_is_documented_with_its_meaning() -> None:
    text = DOCS.read_text()
    for spec in SPECS:
        tags = ", ".join(spec.tags)
        assert f"| `{spec.name}` | {spec.kind} | {tags} | {spec.meaning} |" in text, spec.name


# --- through Ray's own exporter --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exporting() -> Iterator[str]:
    """A Ray that exports every half a second; its address for Prometheus, on loopback."""
    import shutil
    import tempfile

    import ray
    from conftest import start_ray

    directory = tempfile.mkdtemp(prefix="rb", dir="/tmp")
    try:
        start_ray(directory, _system_config={"metrics_report_interval_ms": 500})
        yield f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


def _exported(url: str) -> dict[tuple[str, str], float]:
    """(name, the tag that tells samples apart) -> value, of everything of raybench's."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for s in family.samples:
            if s.name.startswith("ray_raybench") and s.labels.get("run") == "exported-run":
                tag = s.labels.get("outcome") or s.labels.get("state") or s.labels.get("le") or ""
                found[s.name.removeprefix("ray_"), tag] = s.value
    return found


def test_after_a_run_rays_exporter_has_its_figures(exporting: str, tmp_path: Path) -> None:
    page = vllm({"running": 3.0, "waiting": 5.0, "kv": 0.5}, {"running": 1.0, "waiting": 1.0, "kv": 0.5})
    with HostileServer() as server, PageServer(page) as metrics_page:
        urls = [server.url("good"), server.url("status_500")]
        keys = {
            "stages": [{"duration": "3s", "arrival": {"process": "constant", "rate": "20/s"}}],
            "request": {"prompt": "x", "max_tokens": 8, "timeout": "5s"},
            "generators": 2,
        }
        path = tmp_path / "scenario.yaml"
        target = {"url": urls, "model": "m", "metrics_url": metrics_page.url}
        path.write_text(yaml.safe_dump({"name": "t", "target": target, "load": keys}))
        during: list[dict[tuple[str, str], float]] = []
        conductor = Conductor(load(path), Output(tmp_path / "exported-run"))

        def watch(snapshot: Snapshot) -> None:
            if snapshot.stage == "load" and snapshot.t_s > 1.5:
                during.append(_exported(exporting))

        conductor.watch(watch)
        conductor.run()
    counts = conductor.manifest.counts
    assert counts == {"ok": 30, "http_error": 30}
    until = time.monotonic() + 60
    while True:
        found = _exported(exporting)
        counted = found.get(("raybench_requests_total", "http_error")) == 30
        if (counted and ("raybench_queue_depth", "") not in found) or time.monotonic() > until:
            break
        time.sleep(0.2)
    names = {spec.name + ("_bucket" if spec.kind == "histogram" else "") for spec in SPECS}
    exported = {n for figures in (found, *during) for n, _ in figures}
    assert names - exported == {"raybench_replicas_target"}, "which nobody knows of a target"
    assert found["raybench_requests_total", "ok"] == 30
    assert found["raybench_requests_total", "http_error"] == 30
    assert found["raybench_requests_sent_total", ""] == found["raybench_requests_offered_total", ""] == 60
    assert found["raybench_requests_planned", ""] == 60
    assert found["raybench_in_flight_requests", ""] == 0

    rows = [
        r
        for b in open_run(tmp_path / "exported-run").batches(Requests, list(Requests.columns))
        for r in b.to_pylist()
    ]
    good = [r for r in rows if r[Requests.outcome] == "ok"]
    for name, values in (
        ("raybench_ttft_seconds", [r[Requests.first_token_ns] - r[Requests.anchor_ns] for r in good]),
        ("raybench_e2e_seconds", [r[Requests.done_ns] - r[Requests.anchor_ns] for r in good]),
        ("raybench_lateness_seconds", [r[Requests.sent_ns] - r[Requests.anchor_ns] for r in rows]),
    ):
        buckets = {float(tag): n for (metric, tag), n in found.items() if metric == f"{name}_bucket"}
        assert len(buckets) > 10
        for edge, n in buckets.items():
            assert n == sum(max(v, 0) / 1e9 <= edge for v in values), (name, edge)
    assert found["raybench_output_tokens_total", ""] == sum(r[Requests.output_tokens] or 0 for r in good)

    seen = [d for d in during if d.get(("raybench_queue_depth", "")) == 5.0]
    assert seen, "while it ran, the depth of the target's page was there to read"
    assert seen[-1]["raybench_waiting_requests", ""] == 6.0
    assert seen[-1]["raybench_replicas", "available"] == 2
    assert ("raybench_queue_depth", "") not in found, "and is gone with the run"

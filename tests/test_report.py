"""The forms of the report: the same figures in each, loud where it matters, and a schema that holds."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import runs

from raybench.analysis import Question, Summary, summarise
from raybench.analysis.quantiles import Value
from raybench.report import FORMATS, compared, render, units
from raybench.report import json as as_json
from raybench.rundir import open_run
from raybench.schema import EventKind, LoadKind, Outcome, Requests, RunStatus, Schedule

ROOT = Path(__file__).parent.parent
SCENARIO = {
    "deployment": {
        "slots_per_replica": 1,
        "replica": {"cpus": 4.0, "memory": 15 * 2**30},
        "autoscaling": {
            "policy": "queue_depth",
            "min_replicas": 0,
            "max_replicas": 2,
            "scale_up_queue_depth": 5.0,
            "scale_down_queue_depth": 1.0,
            "autoscaling_window": 60.0,
        },
    },
    "load": {
        "stages": [{"duration": 2400.0, "arrival": {"process": "constant", "interval": 15.0, "rate": None}}]
        * 2,
        "request": {"prompt": "Describe it.", "max_tokens": 4096, "timeout": 300.0},
    },
    "objectives": {"ttft_p99": 2.0, "success_rate": 0.999},
}


def summary(path: Path, rows: list[dict[str, Any]] | None = None, **more: Any) -> Summary:
    said: dict[str, Any] = {"tokens": 601, "chunks": 601, "bytes": 9000, "replica": "a"}
    if rows is None:
        rows = [
            runs.ok(i, anchor_s=t, sent_s=t + 0.002, first_s=t + 0.5, done_s=t + 9.5, stage=i % 2, **said)
            for i, t in enumerate(15.0 * n for n in range(19))
        ]
        late = runs.failed(19, Outcome.TIMEOUT, "no complete answer in 300s", anchor_s=285.0, done_s=585.0004)
        rows.append(late | {Requests.stage: 1})
    values: dict[str, Any] = {
        "scenario": SCENARIO,
        "measured": {"engine": "emulated", "model": "llama3-8b"},
        "versions": {"ray": "2.60.0"},
        "load_total_s": 585.0,
    }
    question = more.pop("question", None)
    return summarise(open_run(runs.write(path, rows, **{**values, **more})), question)


def test_the_text_says_what_a_reader_looks_for(tmp_path: Path) -> None:
    events = [
        runs.event(0.1, EventKind.TARGET_CHANGED, "llm", **{"from": 0, "to": 1, "reason": "from_zero"}),
        runs.event(0.2, EventKind.REPLICA_STATE, "a", state="starting"),
        runs.event(5.0, EventKind.REPLICA_STATE, "a", state="running"),
        runs.event(600.0, EventKind.RUN_ENDED, "made"),
    ]
    text = render(summary(tmp_path / "r", events=events))
    for wanted in [
        "*** EMULATED ENGINE: its speed is a model's, not a GPU's. ***",
        "llama3-8b on emulated",
        "by queue depth: scale up queue depth 5, scale down queue depth 1, autoscaling window 60.0 s",
        "open loop: constant, one every 15.0 s for 2400 s, then constant, one every 15.0 s for 2400 s",
        "sha256 " + "0" * 64,
        "ray 2.60.0",
        "It balances: 20 planned, 20 accounted for.",
        "Success rate 95.00%",
        "no complete answer in 300s",
        "> 300 s",
        "By stage",
        "0.10 s  0 → 1     host",
        "599.9 (from start requested to stopped)",
        "0 from 0.10 s, 1 from 5.00 s",
        "TPOT",
    ]:
        assert " ".join(wanted.split()) in " ".join(text.split()), wanted
    assert "\x1b" not in text
    assert all(len(line) <= 130 for line in text.splitlines())


def test_a_timeout_is_never_a_latency(tmp_path: Path) -> None:
    """One of twenty timed out: p95 is the last measured value, p99 and the maximum are bounds."""
    s = summary(tmp_path / "r")
    e2e = s.latencies.e2e_sent
    assert [(p.percent, p.value.censored) for p in e2e.percentiles] == [
        (50, False),
        (90, False),
        (95, False),
        (99, True),
    ]
    line = next(x for x in render(s).splitlines() if x.strip().startswith("E2E from sent"))
    assert line.split()[3:] == [
        "20",
        "-",
        "9.50",
        "s",
        "9.50",
        "s*",
        "9.50",
        "s*",
        ">",
        "300",
        "s*",
        ">",
        "300",
        "s",
        "-",
    ]


def test_the_order_of_sections(tmp_path: Path) -> None:
    lines = render(summary(tmp_path / "r", question=Question(by="replica"))).splitlines()
    titles = [a for a, b in itertools.pairwise(lines) if b and set(b) == {"-"}]
    assert titles == [
        "raybench report: made",
        "Verdict",
        "Accounting",
        "Latency",
        "Throughput",
        "By stage",
        "By replica",
        "In oha's form (sent to done, any HTTP status a success)",
    ]


def test_simulated_is_said_loudly(tmp_path: Path) -> None:
    assert "*** SIMULATED" in render(summary(tmp_path / "r", measured={"simulated": True, "model": "x"}))


def test_an_unbalanced_report_is_loud(tmp_path: Path) -> None:
    rows = [runs.ok(0, anchor_s=0, done_s=1), runs.ok(0, anchor_s=0, done_s=1)]
    plan = [{Schedule.request_id: 0, Schedule.scheduled_ns: 0}]
    text = render(summary(tmp_path / "r", rows, schedule=plan))
    assert "*** IT DOES NOT BALANCE: 1 planned, 2 accounted for" in text
    assert "INVALID" in text


@pytest.mark.parametrize("format", list(FORMATS))
def test_every_form_of_every_state(tmp_path: Path, format: str) -> None:
    """Nothing to show is shown as nothing, in every form."""
    cases: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
        ([], {}),
        ([runs.failed(0, Outcome.NOT_SENT, anchor_s=1.0) | {Requests.sent_ns: None}], {}),
        ([runs.failed(0, Outcome.TIMEOUT, anchor_s=1.0, done_s=301.0)], {"status": RunStatus.INTERRUPTED}),
        (
            [runs.ok(0, sent_s=1.0, done_s=2.0)],
            {"load_kind": LoadKind.CLOSED, "scenario": {}, "measured": {}},
        ),
    ]
    for i, (rows, more) in enumerate(cases):
        made = render(summary(tmp_path / str(i), rows, **more), format)
        assert "nan" not in made.lower().replace("nan%", "").replace("nan secs", "").replace("\tnan", "")
        assert "Infinity" not in made


def test_markdown_has_a_table_for_every_grid(tmp_path: Path) -> None:
    text = render(summary(tmp_path / "r"), "markdown")
    assert text.startswith("# raybench report: made\n")
    assert "| objective | limit | measured |  |" in text
    assert "9.50 s\\*" in text


def test_the_published_schema_is_the_code(tmp_path: Path) -> None:
    published = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    assert published == as_json.schema()
    jsonschema.Draft202012Validator.check_schema(published)


def test_json_follows_its_schema_and_holds_the_same_figures(tmp_path: Path) -> None:
    s = summary(tmp_path / "r", question=Question(by=60.0, window=(0, math.inf)))
    found = json.loads(render(s, "json"))
    strict = json.loads(
        json.dumps(as_json.schema()).replace('"properties"', '"additionalProperties": false, "properties"')
    )
    jsonschema.validate(found, strict)
    assert found["report_version"] == 1
    assert found["exit_code"] == int(s.exit_code) == 3
    assert found["accounting"]["balances"] is True
    assert found["latencies"]["e2e_sent"]["percentiles"][0]["value"] == {"value": 9.498, "censored": False}


def test_docs_do_not_drift() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "gen_docs.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_side_by_side(tmp_path: Path) -> None:
    a, b = summary(tmp_path / "a"), summary(tmp_path / "b", schedule_sha256="1" * 64)
    text = compared.render([("a", a), ("b", b)])
    assert "The runs had different schedules." in text
    assert next(x for x in text.splitlines() if "success rate" in x).split() == [
        "success",
        "rate",
        "95.00%",
        "95.00%",
    ]
    assert compared.render([("a", a), ("b", b)], "markdown").startswith("# Runs side by side")
    assert [r["run"] for r in json.loads(compared.render([("a", a), ("b", b)], "json"))] == ["a", "b"]


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(ValueError, match="text, markdown, json"):
        render(None, "html5")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "finest", "text"),
    [
        (None, 0, "-"),
        (0.0, 0, "0 s"),
        (0.0000123, 0, "12.3 µs"),
        (0.001234, 0, "1.23 ms"),
        (0.0123456, 0, "12.3 ms"),
        (1.23456, 0, "1.23 s"),
        (300.4, 0, "300 s"),
        (0.0123456, 0.001, "12 ms"),
        (1.23456, 0.02, "1.2 s"),
        (-0.002, 0, "-2.00 ms"),
    ],
)
def test_durations(seconds: float | None, finest: float, text: str) -> None:
    assert units.duration(seconds, finest) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(300.0012, "> 300 s"), (0.5001, "> 500 ms"), (2.009, "> 2 s"), (0.0, "> 0 s")]
)
def test_bounds_round_down(seconds: float, text: str) -> None:
    assert units.value(Value(seconds, censored=True)) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (None, "-"),
        (1.0, "100.00%"),
        (0.99999, "99.999%"),
        (0.9933, "99.33%"),
        (0.0, "0.00%"),
        (0.00001, "0.001%"),
    ],
)
def test_a_ratio_never_rounds_to_all_or_nothing(ratio: float | None, text: str) -> None:
    assert units.percent(ratio) == text

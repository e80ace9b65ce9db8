"""A capacity run on disk, in words, and as what a bill refers to."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raybench.analysis.same_replica import capacity, differences
from raybench.cli.main import main
from raybench.report import capacity as words
from raybench.rundir import RunError
from raybench.rundir import capacity as files
from raybench.schema import RunStatus
from raybench.schema.capacity import CapacityProbe, CapacityRun

ROOT = Path(__file__).parents[1]

SCENARIO: dict[str, Any] = {
    "deployment": {
        "engine": "emulated",
        "model": "m",
        "slots_per_replica": 4,
        "emulated": {"preset": "demo", "startup": 1.0, "output_tokens": {"mean": 96}},
        "replica": {"gpus": 1.0, "cpus": 4.0},
        "autoscaling": {"policy": "fixed", "max_replicas": 1},
    },
    "load": {"api": "chat", "request": {"prompt": "hello", "max_tokens": 128, "timeout": 60.0}},
    "objectives": {"ttft_p95": 2.0, "success_rate": 0.99},
}


def found(**more: Any) -> CapacityRun:
    probes = [
        CapacityProbe("probe-01", 2.0, "sustained", judged_s=30.0, planned=72,
                      objectives={"ttft_p95": 0.2, "success_rate": 1.0},
                      growth_per_s=0.001, growth_error=0.002),
        CapacityProbe("probe-02", 2.19, "missed", ["ttft_p95 2.31 s, not 2 s"], judged_s=30.0, planned=79,
                      enough=False, stopped_early=True, objectives={"ttft_p95": 2.31, "success_rate": None},
                      beyond=["ttft_p95"]),
    ]  # fmt: skip
    values: dict[str, Any] = {
        "name": "small",
        "scenario": SCENARIO,
        "precision": 0.1,
        "arrival": {"process": "constant"},
        "status": RunStatus.COMPLETE,
        "requests_per_s": 2.0,
        "not_sustained_per_s": 2.19,
        "found": True,
        "why_ended": "the bracket is as narrow as asked for",
        "alone_s": 1.5,
        "measured": {"engine": "emulated", "model": "m", "slots_per_replica": 4},
        "probes": probes,
        "exit_code": 0,
    }
    return CapacityRun(**(values | more))


# --- on disk --------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    files.write(tmp_path, found())
    assert files.read(tmp_path) == found() == files.read(tmp_path / "capacity.json")
    assert files.holds_capacity(tmp_path) and not files.holds_capacity(tmp_path / "elsewhere")
    assert [p.name for p in tmp_path.iterdir()] == ["capacity.json"], "nothing is left beside it"


def test_keys_of_a_later_raybench_are_left_out(tmp_path: Path) -> None:
    data = dataclasses.asdict(found()) | {"later": 1}
    data["probes"][0]["later"] = 2
    (tmp_path / "capacity.json").write_text(json.dumps(data))
    assert files.read(tmp_path) == found()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "no capacity.json in it; name a capacity run"),
        ("{", "corrupt, not JSON"),
        ("[]", "capacity_version None"),
        ('{"capacity_version": 99}', "capacity_version 99; up to 1 can be read here"),
        ('{"capacity_version": 1}', "corrupt: 'status'"),
        ('{"capacity_version": 1, "status": "asleep"}', "corrupt: 'asleep'"),
    ],
)
def test_what_cannot_be_read_names_the_file_and_what_would_be_right(
    tmp_path: Path, text: str | None, told: str
) -> None:
    if text is not None:
        (tmp_path / "capacity.json").write_text(text)
    with pytest.raises(RunError) as error:
        files.read(tmp_path)
    assert told in str(error.value) and str(tmp_path) in str(error.value)


def test_the_page_documents_every_key() -> None:
    page = (ROOT / "docs" / "capacity.md").read_text(encoding="utf-8")
    for kind in (CapacityRun, CapacityProbe):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in page, field.name


# --- in words -------------------------------------------------------------------------------------------


def test_the_report_says_what_was_found_and_how() -> None:
    text = words.render(found())
    assert "sustains 2 requests/s, not 2.19 requests/s (9.5% apart)" in text
    assert "EMULATED ENGINE" in text and "ttft_p95 2.00 s, success_rate 99.00%" in text
    assert "probe-02: ttft_p95 2.31 s, not 2 s" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("probe-02 "))
    assert "> 2.31 s" in row and "79*" in row and "missed (stopped early)" in row
    row = next(line for line in text.splitlines() if line.strip().startswith("probe-01 "))
    assert "+0.001 ± 0.002" in row and "100.00%" in row and "200 ms" in row
    assert "| probe-01 |" in words.render(found(), "markdown")
    assert json.loads(words.render(found(), "json")) == json.loads(json.dumps(dataclasses.asdict(found())))
    with pytest.raises(ValueError, match="text, markdown, json"):
        words.render(found(), "html")


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (2.0, None, "sustains 2 requests/s; how much more is not known"),
        (None, 1.5, "does not sustain 1.5 requests/s; nothing lower was sustained"),
        (None, None, "nothing is known"),
        (2.0, 4.0, "(100.0% apart, 10% asked for)"),
    ],
)
def test_a_bracket_with_an_open_side_is_said_as_such(
    low: float | None, high: float | None, told: str
) -> None:
    assert told in words.verdict(found(requests_per_s=low, not_sustained_per_s=high, found=False))


def test_analyze_shows_a_capacity_run_again(tmp_path: Path) -> None:
    files.write(tmp_path, found())
    shown = CliRunner().invoke(main, ["analyze", str(tmp_path)])
    assert shown.exit_code == 0 and shown.stdout == words.render(found()) + "\n"
    refused = CliRunner().invoke(main, ["analyze", str(tmp_path), "--format", "html"])
    assert refused.exit_code == 2 and "--format 'html': one of text, markdown, json" in refused.stderr
    files.write(tmp_path, found(status=RunStatus.RUNNING, exit_code=None))
    assert CliRunner().invoke(main, ["analyze", str(tmp_path)]).exit_code == 5


def test_a_real_engine_is_not_called_emulated() -> None:
    assert "EMULATED" not in words.render(found(measured={"engine": "vllm", "model": "m"}))


# --- of this replica, or of another ---------------------------------------------------------------------


def changed(key: str, value: Any) -> dict[str, Any]:
    scenario = copy.deepcopy(SCENARIO)
    *way, last = key.split(".")
    place = scenario
    for part in way:
        place = place.setdefault(part, {})
    place[last] = value
    return scenario


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("deployment.engine", "vllm"),
        ("deployment.model", "other"),
        ("deployment.slots_per_replica", 8),
        ("deployment.emulated.preset", "llama3-8b-a100"),
        ("deployment.emulated.output_tokens.mean", 12),
        ("deployment.engine_args.max_model_len", 2048),
        ("deployment.replica.accelerator", "A100"),
        ("load.api", "completions"),
        ("load.request.prompt", "something else"),
        ("load.request.max_tokens", 64),
        ("objectives.ttft_p95", 1.0),
        ("objectives.e2e_p99", 9.0),
    ],
)
def test_another_replica_request_or_objective_is_refused_in_one_line(key: str, value: Any) -> None:
    wanted = changed(key, value)
    told = differences(SCENARIO, wanted)
    assert any(text.startswith(f"{key}: ") and text.endswith(f"{value} here") for text in told)
    with pytest.raises(ValueError) as error:
        capacity(found(), "outputs/c", wanted)
    assert key in str(error.value) and "--capacity-anyway" in str(error.value)
    assert "\n" not in str(error.value)
    forced = capacity(found(), "outputs/c", wanted, anyway=True)
    assert forced.requests_per_s == 2.0 and f"on something else: {key}" in forced.source


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("deployment.autoscaling.max_replicas", 9),
        ("deployment.autoscaling.policy", "hpa"),
        ("deployment.emulated.startup", 30.0),
        ("deployment.replica.cpus", 8.0),
        ("load.request.timeout", 300.0),
        ("load.stages", [{"duration": 1.0}]),
        ("seed", 7),
    ],
)
def test_what_one_replica_does_not_feel_is_no_difference(key: str, value: Any) -> None:
    assert differences(SCENARIO, changed(key, value)) == ()
    assert (
        capacity(found(), "outputs/c", changed(key, value)).source == "measured: outputs/c, emulated engine"
    )


def test_a_prompts_file_counts_by_its_name() -> None:
    one, other = (changed("load.request.prompts", p) for p in ("/a/p.jsonl", "/b/p.jsonl"))
    assert differences(one, other) == ()
    assert differences(one, changed("load.request.prompts", "/a/q.jsonl"))


def test_an_unfinished_search_is_a_lower_bound_and_an_empty_one_is_none() -> None:
    part = found(status=RunStatus.INTERRUPTED, found=False, not_sustained_per_s=4.0)
    source = capacity(part, "c", SCENARIO).source
    assert source == "measured: c, emulated engine, at least that and below 4/s (interrupted)"
    with pytest.raises(ValueError, match="no rate was sustained in it"):
        capacity(found(requests_per_s=None), "c", SCENARIO)

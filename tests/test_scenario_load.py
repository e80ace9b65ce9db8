"""Loading a scenario: what is read, and that every mistake is reported at once, where it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raybench.scenario import Scenario, ScenarioError, load

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "scenarios").glob("*.yaml"))

GOOD = """\
name: small
target: {url: "http://127.0.0.1:8000/v1/", model: m}
load:
  stages:
    - {duration: 10s, arrival: {process: constant, interval: 1s}}
  request: {prompt: Hello., max_tokens: 8}
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "s.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(directory: Path, text: str, overrides: dict[str, Any] | None = None) -> list[str]:
    """The lines of the error, without the directory."""
    path = write(directory, text)
    with pytest.raises(ScenarioError) as caught:
        load(path, overrides)
    return str(caught.value).replace(f"{path}:", "").splitlines()


def test_a_good_one(tmp_path: Path) -> None:
    scenario = load(write(tmp_path, GOOD))
    assert scenario.load.stages[0].duration == 10.0
    assert scenario.target is not None
    assert scenario.target.url == "http://127.0.0.1:8000/v1/"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_dump_reads_back_the_same(path: Path) -> None:
    scenario = load(path)
    dump = scenario.model_dump(mode="json")
    assert Scenario.model_validate(json.loads(json.dumps(dump))) == scenario


def test_every_mistake_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
name: all wrong
sed: 3
deployment:
  engine: vlm
  modle: y
  model: x
  replica: {cpus: "4", memory: 15}
  autoscaling:
    min_replicas: 3
    max_replicas: 2
    autoscaling_window: 60
    scale_down_queue_depth: 7
load:
  max_tokens: 5
  stages:
    - {duration: 40, arrival: {process: constant, interval: 15s, rate: 3/s}}
    - {duration: 5m, arrival: {process: poison, rate: 3/s}}
    - {duration: -5m, arrival: {process: poisson, rate: 0/s}}
    - {arrival: {rate: 1/s}}
    - 5
  request: {prompt: x, prompts: y.jsonl, timeout: soon, stream: "yes", extra: {model: x}}
  request: {prompt: x, prompts: y.jsonl, timeout: soon, stream: "yes", extra: {model: x}}
  generators: many
objectives: {ttft_p99: 2, sucess_rate: 99%, success_rate: 99.9, e2e_p100: 3s}
"""
    expected = [
        ("1: name: value 'all wrong': ", "letter or digit"),
        ("2: sed: value 3: ", "did you mean seed?"),
        ("4: deployment.engine: value 'vlm': ", "did you mean vllm?"),
        ("5: deployment.modle: value 'y': ", "did you mean model?"),
        ("7: deployment.replica.cpus: value '4': ", "a number"),
        ("7: deployment.replica.memory: value 15: ", "15Gi"),
        ("9: deployment.autoscaling.min_replicas: value 3: ", "at most max_replicas, which is 2"),
        ("11: deployment.autoscaling.autoscaling_window: value 60: ", "60s"),
        ("12: deployment.autoscaling.scale_down_queue_depth: value 7: ", "below scale_up_queue_depth"),
        ("14: load.max_tokens: value 5: ", "belongs to load.request"),
        ("16: load.stages[0].duration: value 40: ", "40s"),
        ("16: load.stages[0].arrival.rate: value '3/s': ", "not both"),
        ("17: load.stages[1].arrival.process: value 'poison': ", "did you mean poisson?"),
        ("18: load.stages[2].duration: value '-5m': ", "negative"),
        ("18: load.stages[2].arrival.rate: value '0/s': ", "more than 0"),
        ("19: load.stages[3].duration: value missing: ", "required"),
        ("19: load.stages[3].arrival.process: value missing: ", "required"),
        ("20: load.stages[4]: value 5: ", "mapping"),
        ("22: load.request: ", "given twice; the first is on line 21"),
        ("22: load.request.prompts: ", "not both"),
        ("22: load.request.timeout: value 'soon': ", "not a duration"),
        ("22: load.request.stream: value 'yes': ", "true or false"),
        ("22: load.request.extra.model: value 'x': ", "raybench itself"),
        ("23: load.generators: value 'many': ", "a whole number, or should be auto"),
        ("24: objectives.ttft_p99: value 2: ", "2s"),
        ("24: objectives.sucess_rate: value '99%': ", "did you mean success_rate?"),
        ("24: objectives.success_rate: value 99.9: ", "99.9%"),
        ("24: objectives.e2e_p100: value '3s': ", "not an objective"),
    ]
    found = mistakes(tmp_path, text)
    for start, word in expected:
        assert any(line.startswith(start) and word in line for line in found), (start, word, found)
    assert len(found) == len(expected), found
    numbers = [int(line.split(":")[0]) for line in found]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('target: {url: "http://127.0.0.1:8000/v1/", model: m}\n', "", "deployment: value missing: required"),
        (
            "name: small\n",
            "name: small\ndeployment: {model: m}\n",
            "target: value {url, model}: give a deploym",
        ),
        ("127.0.0.1:8000", "me:pass@127.0.0.1:8000", "api_key_env"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", "http://"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:80000", "not a URL"),
        ("model: m}", "model: m, headers: {Authorization: Bearer x}}", "secrets do not belong"),
        ("model: m}", "model: m, headers: {Connection: close}}", "set by the client itself"),
        ("model: m}", "model: m, headers: {a b: c}}", "not a valid HTTP header"),
        ("model: m}", "model: m, api_key_env: sk-1-2}", "name of an environment variable"),
        ("    - {duration: 10s, arrival: {process: constant, interval: 1s}}", "    []", "at least one entry"),
        ("interval: 1s", "interval: 1s, rat: 3/s", "did you mean rate?"),
        (", interval: 1s", "", "interval: value missing: required"),
        ("interval: 1s", "interval: 10ns", "at least 100ns"),
        ("interval: 1s", "rate: 9000000/s", "requests are planned; at most 50,000,000"),
        ("prompt: Hello., ", "", "load.request.prompt: value missing: required"),
        ("prompt: Hello.", "prompts: nowhere.jsonl", "there is no such file"),
        ("max_tokens: 8", "max_tokens: 0", "more than 0"),
        ("max_tokens: 8", "max_tokens: 8, top_p: 1.5", "at most 1"),
        ("load:\n", "load:\n  warmup: 6s\n  cooldown: 4s\n", "shorter than the load, 10s"),
        ("prompt: Hello.", "prompt: Hello., body: {a: 1}", "prompts have one source"),
        ("prompt: Hello.", "prompt: Hello., path: /x", "goes with api raw"),
        ("prompt: Hello.", "prompt: Hello., distinct: 3", "goes with input_tokens"),
        ("prompt: Hello.", "prompt: Hello., order: random", "goes with prompts"),
        ("prompt: Hello.", "prompt: Hello., output_tokens: 5", "not both"),
        ("prompt: Hello.", "prompt: Hello., conversation: {}", "conversation.turns: value missing: required"),
        ("prompt: Hello.", "input_tokens: 0", "more than 0"),
        (
            "prompt: Hello.",
            "input_tokens: {distribution: normal, mean: 5}",
            "stddev: value missing",
        ),
        (
            "prompt: Hello.",
            "input_tokens: {distribution: uniform, min: 5, max: 4}",
            "at most max, which",
        ),
        ("prompt: Hello.", "input_tokens: {distribution: unifrom, min: 5, max: 4}", "did you mean uniform?"),
        ("prompt: Hello.", "input_tokens: {distribution: empirical, file: x.csv}", "there is no such file"),
        ("load:\n", "load:\n  think_time: 3s\n", "goes with concurrency"),
        ("load:\n", "load:\n  max_in_flight: 0\n", "more than 0"),
        ("load:\n", "load:\n  max_in_flight: 3\n  generators: 4\n", "each generator needs a place"),
        (", arrival: {process: constant, interval: 1s}", "", "arrival: value missing: required, such as"),
        ("duration: 10s,", "duration: 10s, requests: 5,", "goes with concurrency"),
        ("constant, interval: 1s", "ramp, start: 0/s, end: 0/s", "should be more than 0 where start is 0"),
        ("constant, interval: 1s", "sine, mean: 1/s, amplitude: 2/s, period: 5s", "at most mean"),
        ("constant, interval: 1s", "steps, rates: [], each: 5s", "at least one entry"),
        ("constant, interval: 1s", "steps, rates: [5], each: 5s", "5/s"),
        ("constant, interval: 1s", "steps, rates: [1/s], each: 1us", "at least 0.001"),
        ("constant, interval: 1s", "bursts, size: 3, every: 5s, within: 6s", "at most every"),
        ("name: small", "name: 3", "should be text"),
        ("name: small", "name: small\nname: large", "given twice"),
    ],
)
def test_one_mistake(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    found = mistakes(tmp_path, GOOD.replace(old, new))
    assert len(found) == 1, found
    assert says in found[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a scenario is a mapping"),
        ("- 1\n", "a scenario is a mapping"),
        ("name: [1\n", "not readable as YAML"),
        ("name: !!python/object/apply:os.system [ls]\n", "not readable as YAML"),
        ("a: &a [*a]\n", "not readable as YAML"),
        ("a: 2024-99-99\n", "not readable as YAML"),
        ("name: one\n---\nname: two\n", "not readable as YAML"),
    ],
)
def test_not_a_scenario_at_all(tmp_path: Path, text: str, says: str) -> None:
    found = mistakes(tmp_path, text)
    assert len(found) == 1
    assert says in found[0]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ScenarioError, match="directory"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ScenarioError, match="UTF-8"):
        load(tmp_path / "latin.yaml")


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = GOOD.replace(
        "    - {duration: 10s, arrival: {process: constant, interval: 1s}}",
        "    - &calm {duration: 10s, arrival: {process: constant, interval: 1s}}\n"
        "    - {<<: *calm, duration: 5s}",
    )
    assert [stage.duration for stage in load(write(tmp_path, text)).load.stages] == [10.0, 5.0]


def test_what_does_not_fit_a_closed_loop(tmp_path: Path) -> None:
    found = mistakes(tmp_path, GOOD.replace("load:\n", "load:\n  concurrency: 3\n  max_in_flight: 3\n"))
    assert [line.split(": value")[0] for line in found] == [
        "4: load.concurrency",
        "7: load.stages[0].arrival",
        "7: load.stages[0].requests",
    ]


def test_a_policy_and_a_preset_that_nobody_knows(tmp_path: Path) -> None:
    deployment = "deployment: {model: m, autoscaling: {policy: queue_dept}, emulated: {preset: dem}}\n"
    found = mistakes(tmp_path, GOOD.replace(GOOD.splitlines()[1] + "\n", deployment))
    assert [line.split(": value")[0] for line in found] == [
        "2: deployment.autoscaling.policy",
        "2: deployment.emulated.preset",
    ]
    assert "did you mean queue_depth?" in found[0]
    assert "did you mean demo?" in found[1]


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    scenario = load(path, {"seed": 9, "load.stages.0.duration": "3s", "objectives.ttft_p99": "1s"})
    assert (scenario.seed, scenario.load.stages[0].duration) == (9, 3.0)
    assert [(limit.metric, limit.percentile, limit.seconds) for limit in scenario.objectives.limits] == [
        ("ttft", 99.0, 1.0)
    ]
    assert mistakes(tmp_path, GOOD, {"load.stages.0.duration": 3})[0].startswith(
        "override: load.stages[0].duration: value 3: a duration needs a unit"
    )
    assert "no such place" in mistakes(tmp_path, GOOD, {"load.stages.7.duration": "3s"})[0]
    assert "unknown key; did you mean seed?" in mistakes(tmp_path, GOOD, {"sed": 3})[0]


def test_data_files_are_relative_to_the_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n')
    path = write(tmp_path, GOOD.replace("prompt: Hello.", "prompts: p.jsonl"))
    monkeypatch.chdir("/")
    assert load(path).load.request.prompts == str(tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.jsonl", b'{"prompt": "a"}\nnot json\n', "line 2 is not JSON"),
        ("p.jsonl", b'{"prompt": "a"}\n[1]\n', "line 2 should be an object"),
        ("p.jsonl", b'{"text": "a"}\n', "row 1 has no 'prompt'"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": null}\n', "row 2 has no 'prompt'"),
        ("p.jsonl", b'{"prompt": "a", "max_tokens": 0}\n', "at least 1"),
        ("p.jsonl", b'{"prompt": {"a": 1}}\n', "text or a list of messages"),
        ("p.jsonl", b"", "has no rows"),
        ("p.csv", b"text\na\n", "has no column 'prompt'; its columns are text"),
        ("p.parquet", b"not parquet", "cannot be read"),
        ("p.txt", b"a\n", "should be a file that ends in .jsonl"),
    ],
)
def test_bad_data_files(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    found = mistakes(tmp_path, GOOD.replace("prompt: Hello.", f"prompts: {name}"))
    assert len(found) == 1, found
    assert found[0].startswith("6: load.request.prompts: value ")
    assert says in found[0]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (
            GOOD.replace("model: m}", "model: m, headers: {Authorization: Bearer canary}}"),
            "target.headers.Authorization",
        ),
        (
            GOOD.replace(
                'target: {url: "http://127.0.0.1:8000/v1/", model: m}',
                "deployment: {model: m, env: {HF_TOKEN: canary, OMP_NUM_THREADS: '1'}}",
            ),
            "deployment.env.HF_TOKEN",
        ),
    ],
)
def test_a_secret_is_refused_and_not_repeated(tmp_path: Path, text: str, key: str) -> None:
    (line,) = mistakes(tmp_path, text)
    assert key in line and "(not shown)" in line
    assert "canary" not in line

"""Recorded traces: three public forms, replayed at their instants and with their lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raybench import schedule
from raybench.scenario import Scenario, ScenarioError, load
from raybench.schema import Schedule
from raybench.workload import Workload

S = 1_000_000_000
AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:47.6805900,110,27
"""
AZURE_ZONED = AZURE.replace("00,3", "00+00:00,3").replace("90,396", "90+00:00,396").replace("00,1", "00Z,1")
BURSTGPT = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
110.5,GPT-4,417,505,922,API log
"""
MOONCAKE = """\
{"timestamp": 0, "input_length": 1100, "output_length": 52, "hash_ids": [46, 47, 48]}
{"timestamp": 10535, "input_length": 1030, "output_length": 26, "hash_ids": [46, 47, 49]}
{"timestamp": 27482, "input_length": 600, "output_length": 52, "hash_ids": [46, 50]}
"""


def scenario(
    path: Path, duration: float = 200.0, request: dict[str, Any] | None = None, **keys: Any
) -> Scenario:
    trace = {"process": "trace", "path": str(path), **keys}
    return Scenario.model_validate(
        {
            "name": "t",
            "target": {"url": "http://127.0.0.1:1", "model": "m"},
            "load": {"stages": [{"duration": duration, "arrival": trace}], "request": request or {}},
        }
    )


def write(directory: Path, text: str, name: str = "trace.csv") -> Path:
    path = directory / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", [AZURE, AZURE_ZONED])
def test_azure(tmp_path: Path, text: str) -> None:
    table = schedule.build(scenario(write(tmp_path, text)))
    assert table[Schedule.scheduled_ns].to_pylist() == [0, S, 4_314_579_000]  # in order of time
    assert table[Schedule.prompt_tokens].to_pylist() == [374, 110, 396]
    assert table[Schedule.max_tokens].to_pylist() == [44, 27, 109]


def test_burstgpt(tmp_path: Path) -> None:
    table = schedule.build(scenario(write(tmp_path, BURSTGPT)))
    assert table[Schedule.scheduled_ns].to_pylist() == [0, 40 * S, 105 * S + S // 2]
    assert table[Schedule.max_tokens].to_pylist() == [18, 1, 505]  # an answer of 0 was a failure


def test_mooncake_shares_the_blocks_that_were_shared(tmp_path: Path) -> None:
    one = scenario(write(tmp_path, MOONCAKE, "trace.jsonl"))
    table = schedule.build(one)
    assert table[Schedule.scheduled_ns].to_pylist() == [0, 10_535_000_000, 27_482_000_000]
    assert table[Schedule.prompt_tokens].to_pylist() == [1100, 1030, 600]
    work = Workload(one)
    words = [json.loads(work.body(i, 1))["messages"][0]["content"].split() for i in range(3)]
    assert [len(w) for w in words] == [1100, 1030, 600]
    assert words[0][:1024] == words[1][:1024]
    assert words[0][1024:1030] != words[1][1024:]
    assert words[0][:512] == words[2][:512]
    assert words[0][512:600] != words[2][512:]


def test_speed_skip_and_the_stage_s_end(tmp_path: Path) -> None:
    path = write(tmp_path, BURSTGPT)
    fast = schedule.build(scenario(path, speed=4.0))
    assert fast[Schedule.scheduled_ns].to_pylist() == [0, 10 * S, 26_375_000_000]
    cut = schedule.build(scenario(path, duration=40.0))
    assert cut[Schedule.scheduled_ns].to_pylist() == [0]
    later = schedule.build(scenario(path, skip=30.0))
    assert later[Schedule.scheduled_ns].to_pylist() == [10 * S, 75 * S + S // 2]
    assert later[Schedule.prompt_tokens].to_pylist() == [1087, 417]


def test_instants_without_the_lengths(tmp_path: Path) -> None:
    one = scenario(write(tmp_path, BURSTGPT), request={"prompt": "p", "max_tokens": 9}, lengths=False)
    table = schedule.build(one)
    assert table[Schedule.prompt_id].to_pylist() == [0, 0, 0]
    assert table[Schedule.max_tokens].to_pylist() == [9, 9, 9]
    with pytest.raises(ValueError, match="a data file of prompts"):
        scenario(tmp_path / "trace.csv", lengths=False)


def test_a_trace_beside_other_stages_keeps_prompts_apart(tmp_path: Path) -> None:
    one = scenario(write(tmp_path, BURSTGPT), request={"prompt": "own"})
    stage = one.load.stages[0]
    calm = {"duration": 2.0, "arrival": {"process": "constant", "interval": 1.0}}
    dump = one.model_dump(mode="json")
    dump["load"]["stages"] = [calm, stage.model_dump(mode="json"), calm]
    mixed = Scenario.model_validate(dump)
    table = schedule.build(mixed)
    assert table[Schedule.prompt_id].to_pylist() == [3, 3, 0, 1, 2, 3, 3]
    assert json.loads(Workload(mixed).body(3, None))["messages"][0]["content"] == "own"
    assert len(json.loads(Workload(mixed).body(1, None))["messages"][0]["content"].split()) == 1087


@pytest.mark.parametrize(
    ("name", "text", "keys", "says"),
    [
        ("t.csv", "a,b\n1,2\n", "", "is no known trace: its columns are a, b"),
        ("t.csv", AZURE, ", format: burstgpt", "lacks burstgpt's columns"),
        ("t.csv", AZURE, ", format: mooncake", "should be JSONL"),
        ("t.csv", AZURE.replace("374", "many"), "", "a row cannot be read"),
        ("t.csv", AZURE.replace("2023-11-16 18:15:50.9951690", "later"), "", "a row cannot be read"),
        ("t.csv", AZURE.splitlines()[0] + "\n", "", "has no rows"),
        ("t.csv", "", "", "cannot be read"),
        ("t.jsonl", MOONCAKE + "{}\n", "", "line 4 should be"),
        ("t.csv", BURSTGPT.replace("45,ChatGPT", "1e300,ChatGPT"), "", "a time stamp is missing or out of"),
        ("t.csv", BURSTGPT.replace("1087,0", ",0"), "", "a row cannot be read"),
        ("t.jsonl", MOONCAKE.replace("10535", "1e300"), "", "out of range"),
        ("t.jsonl", MOONCAKE, ", format: azure", "format azure is CSV"),
        ("t.txt", AZURE, "", "ends in .csv or .jsonl"),
        ("none.csv", None, "", "there is no such file"),
    ],
)
def test_bad_traces(tmp_path: Path, name: str, text: str | None, keys: str, says: str) -> None:
    if text is not None:
        write(tmp_path, text, name)
    path = write(
        tmp_path,
        "name: t\ntarget: {url: 'http://127.0.0.1:1', model: m}\nload:\n  stages:\n"
        f"    - {{duration: 9s, arrival: {{process: trace, path: {name}{keys}}}}}\n",
        "s.yaml",
    )
    with pytest.raises(ScenarioError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}:5: load.stages[0].arrival.path: value ")
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1

"""Bodies: exactly what was asked for, rendered once, within bounded memory."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from raybench import schedule
from raybench.scenario import Scenario
from raybench.schema import Schedule
from raybench.workload import Workload, workload


def scenario(request: dict[str, Any], api: str = "chat", n: int = 10) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "t",
            "target": {"url": "http://127.0.0.1:1", "model": "m"},
            "load": {
                "api": api,
                "stages": [{"duration": n, "arrival": {"process": "constant", "interval": 1}}],
                "request": request,
            },
        }
    )


def test_chat_and_completions() -> None:
    request = {"prompt": 'Say "hé"\n', "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "extra": {"a": [1]}}
    chat, plain = Workload(scenario(request)), Workload(scenario(request, "completions"))
    assert (chat.path, plain.path) == ("/v1/chat/completions", "/v1/completions")
    rest = {"max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "stream": True}
    rest |= {"stream_options": {"include_usage": True}, "a": [1], "model": "m"}
    assert json.loads(chat.body(0, 5)) == rest | {"messages": [{"role": "user", "content": 'Say "hé"\n'}]}
    assert json.loads(plain.body(0, 5)) == rest | {"prompt": 'Say "hé"\n'}


def test_what_is_not_given_is_not_sent() -> None:
    body = json.loads(Workload(scenario({"prompt": "p", "stream": False})).body(0, None))
    assert body == {"model": "m", "messages": [{"role": "user", "content": "p"}], "stream": False}


def test_a_body_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Workload(scenario({"prompt": "p"}))
    first = work.body(0, 5)
    monkeypatch.setattr(Workload, "_render", lambda *_: pytest.fail("rendered again"))
    assert work.body(0, 5) is first


def test_memory_for_bodies_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i} " * 50}) + "\n" for i in range(200)))
    monkeypatch.setattr(workload, "_CACHE_BYTES", 2000)
    work = Workload(scenario({"prompts": str(path)}))
    for i in range(200):
        assert f"{i} {i}" in json.loads(work.body(i, None))["messages"][0]["content"]
        assert sum(map(len, work._bodies.values())) <= 2000
    assert sum(map(len, work._bodies.values())) == work._cached_bytes


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_prompts_from_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p.{suffix}"
    table = pa.table(
        {"prompt": ["one", "2", "three\nlines"], "max_tokens": pa.array([7, None, 9], pa.int64())}
    )
    if suffix == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    elif suffix == "csv":
        pa.csv.write_csv(table, path)
    else:
        pa.parquet.write_table(table, path)
    work = Workload(scenario({"prompts": str(path)}))
    rows = schedule.build(scenario({"prompts": str(path)}, n=5)).to_pylist()
    assert [row[Schedule.prompt_id] for row in rows] == [0, 1, 2, 0, 1]
    assert [row[Schedule.max_tokens] for row in rows] == [7, None, 9, 7, None]
    texts = [json.loads(work.body(i, None))["messages"][0]["content"] for i in range(3)]
    assert texts == ["one", "2", "three\nlines"]
    path.unlink()
    assert pickle.loads(pickle.dumps(work)).body(2, 9) == work.body(2, 9)


def test_the_scenario_s_limit_goes_before_the_file_s(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a", "max_tokens": 3}')
    table = schedule.build(scenario({"prompts": str(path), "max_tokens": 11}, n=2))
    assert table[Schedule.max_tokens].to_pylist() == [11, 11]

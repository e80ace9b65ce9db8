"""Where prompts come from: synthetic text, shared prefixes, conversations, data files, raw bodies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raybench import schedule
from raybench.scenario import Scenario
from raybench.schema import Schedule
from raybench.workload import Workload, text


def scenario(request: dict[str, Any], api: str = "chat", n: int = 20, seed: int = 1) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "t",
            "seed": seed,
            "target": {"url": "http://127.0.0.1:1", "model": "m"},
            "load": {
                "api": api,
                "stages": [{"duration": n, "arrival": {"process": "constant", "interval": 1}}],
                "request": request,
            },
        }
    )


def messages(one: Scenario) -> list[list[dict[str, Any]]]:
    """What every row of the schedule says, in order."""
    work, table = Workload(one), schedule.build(one)
    pairs = zip(table[Schedule.prompt_id].to_pylist(), table[Schedule.max_tokens].to_pylist(), strict=True)
    return [json.loads(work.body(prompt, limit))["messages"] for prompt, limit in pairs]


def contents(one: Scenario) -> list[str]:
    return [said[-1]["content"] for said in messages(one)]


def test_synthetic_prompts_have_a_word_for_each_token() -> None:
    one = scenario({"input_tokens": {"distribution": "uniform", "min": 3, "max": 60}})
    planned = schedule.build(one)[Schedule.prompt_tokens].to_pylist()
    assert [len(said.split()) for said in contents(one)] == planned
    assert len(set(planned)) > 5


def test_synthetic_prompts_differ_and_depend_on_the_seed_alone() -> None:
    request = {"input_tokens": 40}
    first, again, other = (contents(scenario(request, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert len(set(first)) == 20
    assert not set(first) & set(other)


def test_bodies_do_not_depend_on_the_order_they_are_asked_for() -> None:
    one = scenario({"input_tokens": {"distribution": "uniform", "min": 3, "max": 60}}, n=3000)
    forth, back = Workload(one), Workload(one)
    forwards = [forth.body(i, None) for i in range(0, 3000, 100)]
    backwards = [back.body(i, None) for i in reversed(range(0, 3000, 100))]
    assert forwards == backwards[::-1]


def test_distinct_prompts_come_round() -> None:
    said = contents(scenario({"input_tokens": 10, "distinct": 4}))
    assert len(set(said)) == 4
    assert said[:4] == said[4:8]


@given(st.integers(0, 9), st.integers(0, 10**9), st.integers(0, 200), st.integers(0, 200))
def test_text_is_prefix_stable(seed: int, number: int, n: int, more: int) -> None:
    long = text.text(seed, text.PROMPT, number, n + more).split()
    assert len(long) == n + more
    assert long[:n] == text.text(seed, text.PROMPT, number, n).split()


def test_words_are_plain_and_different() -> None:
    assert len(set(text.WORDS.tolist())) == len(text.WORDS) > 200
    assert all(word.isascii() and word.isalpha() and word.islower() for word in text.WORDS)


@pytest.mark.parametrize("source", [{"input_tokens": 8}, {"prompt": "the end"}])
def test_shared_prefixes(source: dict[str, Any]) -> None:
    one = scenario(source | {"shared_prefix": {"tokens": 30, "groups": 3}})
    begins = [" ".join(said.split()[:30]) for said in contents(one)]
    assert len(set(begins)) == 3
    assert begins[0] == begins[3] != begins[1]
    if "input_tokens" in source:
        assert set(schedule.build(one)[Schedule.prompt_tokens].to_pylist()) == {38}
    else:
        assert all(said.endswith(" the end") for said in contents(one))


def test_a_system_prompt_goes_first() -> None:
    said = messages(scenario({"prompt": "p", "system": "Be brief."}))[0]
    assert said == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "p"}]
    plain = Workload(scenario({"prompt": "p", "system": "Be brief."}, "completions"))
    assert json.loads(plain.body(0, None))["prompt"] == "Be brief.\n\np"


def test_a_later_turn_repeats_the_earlier_ones() -> None:
    turns = {"distribution": "uniform", "min": 1, "max": 5}
    one = scenario(
        {
            "input_tokens": {"distribution": "uniform", "min": 2, "max": 9},
            "output_tokens": {"distribution": "uniform", "min": 3, "max": 7},
            "conversation": {"turns": turns},
            "shared_prefix": {"tokens": 11, "groups": 2},
        }
    )
    rows, said = schedule.build(one).to_pylist(), messages(one)
    for i, (row, now) in enumerate(zip(rows, said, strict=True)):
        assert [m["role"] for m in now] == (["user", "assistant"] * 5)[: 2 * row[Schedule.turn] + 1]
        assert sum(len(m["content"].split()) for m in now) == row[Schedule.prompt_tokens]
        if row[Schedule.turn]:
            assert now[:-2] == said[i - 1]
            assert len(now[-2]["content"].split()) == rows[i - 1][Schedule.max_tokens]
    first = {
        row[Schedule.conversation]: now[0]["content"].split()[:11]
        for row, now in zip(rows, said, strict=True)
    }
    assert first[0] == first[2] != first[1] == first[3]


def test_conversations_of_one_prompt() -> None:
    said = messages(scenario({"prompt": "Go on.", "conversation": {"turns": 2}}, n=2))
    assert [len(m) for m in said] == [1, 3, 1, 3]
    assert said[1][0] == said[1][2] == {"role": "user", "content": "Go on."}


TALKS = [
    {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
                  {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
                  {"role": "assistant", "content": "d"}], "max_tokens": 7},
    {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]},
]  # fmt: skip


def talks(directory: Path) -> str:
    path = directory / "talks.jsonl"
    path.write_text("\n".join(map(json.dumps, TALKS)))
    return str(path)


def test_conversations_of_a_file(tmp_path: Path) -> None:
    one = scenario({"prompts": talks(tmp_path), "conversation": {"think_time": "1s"}}, n=3)
    rows = schedule.build(one).to_pylist()
    assert [(row[Schedule.conversation], row[Schedule.turn]) for row in rows] == [
        (0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]  # fmt: skip
    assert [row[Schedule.max_tokens] for row in rows] == [7, 7, None, 7, 7]
    said = [[m["content"] for m in now] for now in messages(one)]
    assert said == [["s", "a"], ["s", "a", "b", "c"], ["x"], ["s", "a"], ["s", "a", "b", "c"]]


def test_a_file_s_conversation_as_one_request(tmp_path: Path) -> None:
    said = messages(scenario({"prompts": talks(tmp_path)}, n=2))
    assert [[(m["role"], m["content"]) for m in now] for now in said] == [
        [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")],
        [("user", "x")],
    ]


@pytest.mark.parametrize("order", ["shuffled", "random"])
def test_orders_of_a_file(tmp_path: Path, order: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(json.dumps({"q": f"prompt {i}"}) for i in range(10)))
    request = {"prompts": str(path), "prompt_column": "q", "order": order}
    ids = schedule.build(scenario(request))[Schedule.prompt_id].to_pylist()
    assert ids == schedule.build(scenario(request))[Schedule.prompt_id].to_pylist()
    assert ids != schedule.build(scenario(request, seed=2))[Schedule.prompt_id].to_pylist()
    assert ids[:10] != sorted(ids[:10])
    if order == "shuffled":
        assert sorted(ids[:10]) == list(range(10))
        assert ids[10:] == ids[:10]
    assert contents(scenario(request))[0] == f"prompt {ids[0]}"


def test_raw_bodies(tmp_path: Path) -> None:
    fixed = Workload(scenario({"path": "/generate", "body": {"inputs": "é", "n": 1}}, "raw"))
    assert fixed.path == "/generate"
    assert fixed.body(0, None) == '{"inputs":"é","n":1}'.encode()
    path = tmp_path / "b.jsonl"
    path.write_text('{"body": {"a": 1}}\n{"body": "plain text"}\n')
    several = Workload(scenario({"path": "/x", "prompts": str(path)}, "raw"))
    assert [several.body(i, None) for i in range(2)] == [b'{"a":1}', b"plain text"]

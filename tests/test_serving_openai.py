"""The emulated engine's OpenAI API as an ASGI application, without Serve: messages in, messages out."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from serving_bench import FAST, MODEL, Bench, chat, chunks, on_loop

from raybench.serving.openai import ApiError, read

# --- answers ------------------------------------------------------------------------------------------


def test_a_streamed_chat_is_role_tokens_end() -> None:
    async def story(bench: Bench) -> None:
        client = await bench.ask("/v1/chat/completions", chat(stream=True, max_tokens=20))
        assert client.status == 200
        assert client.headers["content-type"].startswith("text/event-stream")
        assert client.headers["x-raybench-replica"] == "replica-1"
        first, *tokens, end = client.events
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert first["object"] == "chat.completion.chunk"
        assert len(tokens) == len(chunks(client)) == 7
        assert [event["choices"][0]["finish_reason"] for event in tokens] == [None] * 6 + ["stop"]
        assert end is None
        assert client.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}

    on_loop(story)


def test_usage_comes_in_the_last_chunk_where_asked_for() -> None:
    async def story(bench: Bench) -> None:
        body = chat(stream=True, max_tokens=5, stream_options={"include_usage": True})
        client = await bench.ask("/v1/chat/completions", body)
        *_, last_token, usage, end = client.events
        assert last_token["choices"][0]["finish_reason"] == "length"
        assert usage["choices"] == []
        # 8 characters are 2 tokens, a message 4
        assert usage["usage"] == {"prompt_tokens": 6, "completion_tokens": 5, "total_tokens": 11}
        assert end is None

    on_loop(story)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_streamed_and_whole_answers_say_the_same(path: str) -> None:
    async def story(bench: Bench) -> None:
        body = chat(prompt="12345678", max_tokens=9)
        streamed = await bench.ask(path, body | {"stream": True}, **{"x-request-id": "r1"})
        whole = await bench.ask(path, body, **{"x-request-id": "r1"})
        choice = whole.json["choices"][0]
        text = choice["message"]["content"] if "chat" in path else choice["text"]
        assert "".join(chunks(streamed)) == text
        assert whole.json["usage"]["completion_tokens"] == len(chunks(streamed)) == 7
        assert whole.json["id"] == streamed.events[0]["id"]
        assert whole.json["id"].endswith("-r1")
        assert choice["finish_reason"] == "stop"

    on_loop(story)


@pytest.mark.parametrize(
    "asked, tokens, reason",
    [
        ({"max_tokens": 7}, 7, "stop"),
        ({"max_tokens": 6}, 6, "length"),
        ({"max_completion_tokens": 3}, 3, "length"),
        ({"max_tokens": 20, "ignore_eos": True}, 20, "length"),
        ({"max_tokens": 20, "min_tokens": 12}, 12, "stop"),
        ({}, 7, "stop"),
    ],
)
def test_the_length_is_drawn_and_clipped(asked: dict[str, Any], tokens: int, reason: str) -> None:
    async def story(bench: Bench) -> None:
        answer = (await bench.ask("/v1/chat/completions", chat(**asked))).json
        assert answer["usage"]["completion_tokens"] == tokens
        assert answer["choices"][0]["finish_reason"] == reason

    on_loop(story)


def test_the_deployments_sampling_defaults_apply_where_the_request_is_silent() -> None:
    async def story(bench: Bench) -> None:
        for asked, tokens in (({}, 2), ({"max_tokens": None}, 2), ({"max_tokens": 4}, 4)):
            answer = (await bench.ask("/v1/chat/completions", chat(**asked))).json
            assert answer["usage"]["completion_tokens"] == tokens

    on_loop(story, defaults={"max_tokens": 2})


def test_without_a_limit_the_context_is_the_limit() -> None:
    async def story(bench: Bench) -> None:
        answer = (await bench.ask("/v1/chat/completions", chat(ignore_eos=True))).json
        assert answer["usage"]["total_tokens"] == FAST.context_tokens

    on_loop(story)


def test_models_and_health() -> None:
    async def story(bench: Bench) -> None:
        models = await bench.ask("/v1/models", method="GET")
        assert [card["id"] for card in models.json["data"]] == [MODEL]
        assert (await bench.ask("/health", method="GET")).status == 200
        bench.engine.stop()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (await bench.ask("/health", method="GET")).status == 503

    on_loop(story)


# --- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body, status, param",
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (chat(model="another"), 404, "model"),
        (chat(messages=[]), 400, "messages"),
        (chat(messages=[{"content": "x"}]), 400, "messages"),
        (chat(messages=[{"role": "user", "content": 3}]), 400, "messages"),
        (chat(messages=[{"role": "user", "content": "x" * 800}]), 400, "messages"),
        (chat(max_tokens=195), 400, "max_tokens"),
        (chat(max_tokens=0), 400, "max_tokens"),
        (chat(max_tokens="7"), 400, "max_tokens"),
        (chat(max_tokens=3, min_tokens=4), 400, "min_tokens"),
        (chat(n=2), 400, "n"),
        (chat(stream="yes"), 400, "stream"),
        (chat(stream_options={"include_usage": True}), 400, "stream_options"),
        (chat(temperature=3), 400, "temperature"),
        (chat(top_p="high"), 400, "top_p"),
    ],
)
def test_bad_requests_are_refused_in_openais_form(body: Any, status: int, param: str | None) -> None:
    async def story(bench: Bench) -> None:
        client = await bench.ask("/v1/chat/completions", body)
        assert client.status == status
        error = client.json["error"]
        assert (error["code"], error["param"]) == (status, param)
        assert error["message"]
        assert bench.engine.stats()["engine_running"] == 0

    on_loop(story)


@pytest.mark.parametrize("prompt", ["", [], ["a", "b"], [1, "a"], None, 7])
def test_bad_prompts_are_refused(prompt: Any) -> None:
    with pytest.raises(ApiError) as caught:
        read("completions", json.dumps({"model": MODEL, "prompt": prompt}).encode(), MODEL, 100, {})
    assert (caught.value.status, caught.value.param) == (400, "prompt")


@pytest.mark.parametrize("prompt, tokens", [("12345", 2), (["1234"], 1), ([5, 6, 7], 3), ([[5, 6]], 2)])
def test_prompt_tokens_are_estimated_from_text_and_exact_for_ids(prompt: Any, tokens: int) -> None:
    ask = read("completions", json.dumps({"model": MODEL, "prompt": prompt}).encode(), MODEL, 100, {})
    assert (ask.prompt_tokens, ask.max_tokens) == (tokens, 100 - tokens)


def test_messages_in_parts_are_counted() -> None:
    parts = [{"type": "text", "text": "12345678"}, {"type": "text", "text": "1234"}]
    body = {"messages": [{"role": "system", "content": "abcd"}, {"role": "user", "content": parts}]}
    assert read("chat", json.dumps(body).encode(), MODEL, 100, {}).prompt_tokens == 4 + 1 + 4 + 3


def test_unknown_paths_are_not_found() -> None:
    async def story(bench: Bench) -> None:
        for method, path in (("GET", "/"), ("GET", "/v1/chat/completions"), ("POST", "/v1/embeddings")):
            assert (await bench.ask(path, method=method)).status == 404

    on_loop(story)

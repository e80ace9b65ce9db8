"""The emulated engine's OpenAI API as an ASGI application, without Serve: messages in, messages out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from raybench.engine_model import EngineModel
from raybench.scenario.models import Emulated
from raybench.serving.emulated import Api, CutStream
from raybench.serving.engine import EmulatedEngine
from raybench.serving.openai import ApiError, read

MODEL = "emulated-model"
FAST = EngineModel(
    startup_s=0.0,
    prefill_tokens_per_s=1e6,
    step_base_s=1e-4,
    step_per_sequence_s=0.0,
    slots=2,
    kv_cache_tokens=10_000,
    context_tokens=200,
)


class Client:
    """One request to an ASGI application: what it sends, what came back, when it hangs up."""

    def __init__(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        self.scope = {
            "type": "http",
            "method": method,
            "path": "/raybench" + path,
            "root_path": "/raybench",
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        }
        # in two pieces, as a server may deliver it
        half = len(body) // 2
        self._pieces = [body[:half], body[half:]]
        self.gone = asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        self.got_body = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._pieces:
            return {"type": "http.request", "body": self._pieces.pop(0), "more_body": bool(self._pieces)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))
        if message.get("body"):
            self.got_body.set()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {k.decode(): v.decode() for k, v in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(m["body"] for m in self.sent[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """Every event of the stream, `[DONE]` as None."""
        lines = self.body.decode().split("\n\n")
        assert lines.pop() == ""
        data = [line.removeprefix("data: ") for line in lines]
        return [None if text == "[DONE]" else json.loads(text) for text in data]


class Bench:
    """An engine and its API on one loop."""

    def __init__(
        self, engine: EngineModel = FAST, defaults: dict[str, Any] | None = None, **given: Any
    ) -> None:
        self.engine = EmulatedEngine(engine)
        self.api = Api(
            self.engine,
            model=MODEL,
            emulated=Emulated.model_validate({"output_tokens": {"mean": 7}} | given),
            defaults=defaults or {},
            seed=1,
            replica="replica-1",
        )

    def client(self, path: str, body: Any = None, method: str = "POST", **headers: str) -> Client:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Client(method, path, raw, headers)

    async def ask(self, path: str, body: Any = None, method: str = "POST", **headers: str) -> Client:
        client = self.client(path, body, method, **headers)
        await self.api(client.scope, client.receive, client.send)
        return client


def on_loop(story: Callable[[Bench], Awaitable[None]], **given: Any) -> None:
    async def main() -> None:
        bench = Bench(**given)
        await bench.engine.start()
        async with asyncio.timeout(30):
            await story(bench)
        bench.engine.stop()

    asyncio.run(main())


def chat(**given: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "12345678"}]} | given


def chunks(client: Client) -> list[str]:
    """The contents of those events that carry a choice's content."""
    found = []
    for event in client.events:
        for choice in (event or {}).get("choices", ()):
            text = choice["delta"].get("content") if "delta" in choice else choice["text"]
            if text:
                found.append(text)
    return found


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


# --- hanging up ------------------------------------------------------------------------------------------


def test_hanging_up_frees_the_slot_for_who_waits() -> None:
    """Two hold the slots, two wait inside the engine; a waiting one leaves, then a running one."""

    async def story(bench: Bench) -> None:
        asking = []
        for _ in range(4):
            client = bench.client("/v1/chat/completions", chat(stream=True, ignore_eos=True))
            asking.append((client, asyncio.create_task(bench.api(client.scope, client.receive, client.send))))
            await asyncio.sleep(0.01)

        def state() -> tuple[float, float]:
            stats = bench.engine.stats()
            return stats["engine_running"], stats["engine_waiting"]

        await asking[1][0].got_body.wait()
        assert state() == (2, 2)
        asking[3][0].gone.set()
        await asking[3][1]
        assert state() == (2, 1)
        assert not asking[2][0].got_body.is_set()
        asking[0][0].gone.set()
        await asking[0][1]
        await asking[2][0].got_body.wait()
        assert state() == (2, 0)
        for client, _ in asking:
            client.gone.set()
        await asyncio.gather(*(task for _, task in asking))
        assert state() == (0, 0)
        assert bench.engine.stats()["kv_cache_usage"] == 0

    on_loop(story, engine=replace(FAST, step_base_s=0.02))


def test_a_cancelled_request_frees_the_slot() -> None:
    """What Serve does when the client goes."""

    async def story(bench: Bench) -> None:
        client = bench.client("/v1/chat/completions", chat(stream=True, ignore_eos=True))
        task = asyncio.create_task(bench.api(client.scope, client.receive, client.send))
        await client.got_body.wait()
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert bench.engine.stats()["engine_running"] == 0

    on_loop(story, engine=replace(FAST, step_base_s=0.02))


def test_a_client_that_leaves_before_its_body_is_whole_is_nothing() -> None:
    async def story(bench: Bench) -> None:
        client = bench.client("/v1/chat/completions", chat())
        client._pieces = []
        client.gone.set()
        await bench.api(client.scope, client.receive, client.send)
        assert client.sent == []

    on_loop(story)


# --- faults on demand ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault, status", [("error_500", 500), ("refuse_429", 429)])
def test_refusals_on_demand(fault: str, status: int) -> None:
    async def story(bench: Bench) -> None:
        client = await bench.ask("/v1/chat/completions", chat())
        assert (client.status, client.json["error"]["code"]) == (status, status)

    on_loop(story, faults={fault: 1.0})


def test_a_cut_stream_on_demand_breaks_off_in_the_middle() -> None:
    async def story(bench: Bench) -> None:
        client = bench.client("/v1/chat/completions", chat(stream=True))
        with pytest.raises(CutStream):
            await bench.api(client.scope, client.receive, client.send)
        assert len(chunks(client)) == 3
        assert client.sent[-1]["more_body"]
        with pytest.raises(CutStream):
            await bench.ask("/v1/chat/completions", chat())
        assert bench.engine.stats()["engine_running"] == 0

    on_loop(story, faults={"cut_stream": 1.0})


def test_an_error_event_on_demand_ends_the_stream() -> None:
    async def story(bench: Bench) -> None:
        client = await bench.ask("/v1/chat/completions", chat(stream=True))
        assert client.status == 200
        assert len(chunks(client)) == 3
        assert client.events[-1]["error"]["code"] == 500
        assert (await bench.ask("/v1/chat/completions", chat())).status == 500

    on_loop(story, faults={"error_event": 1.0})


def test_never_answering_on_demand_lasts_until_the_client_goes() -> None:
    async def story(bench: Bench) -> None:
        client = bench.client("/v1/chat/completions", chat())
        task = asyncio.create_task(bench.api(client.scope, client.receive, client.send))
        await asyncio.sleep(0.05)
        assert not task.done() and client.sent == []
        client.gone.set()
        await task

    on_loop(story, faults={"never_answer": 1.0})


def test_each_fault_meets_its_share_and_the_same_requests_each_time() -> None:
    shares = {"error_500": 0.1, "cut_stream": 0.2, "refuse_429": 0.3}
    first, again = Bench(faults=shares), Bench(faults=shares)
    met = [first.api._fault(f"r{number}") for number in range(5000)]
    assert met == [again.api._fault(f"r{number}") for number in range(5000)]
    for fault, share in shares.items():
        assert met.count(fault) / 5000 == pytest.approx(share, abs=0.02)
    assert met.count(None) / 5000 == pytest.approx(0.4, abs=0.02)


def test_lifespan_is_acknowledged() -> None:
    """Serve refuses an application that does not answer."""

    async def main() -> list[Any]:
        bench, sent = Bench(), []
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await bench.api({"type": "lifespan"}, receive, send)
        return sent

    assert asyncio.run(main()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

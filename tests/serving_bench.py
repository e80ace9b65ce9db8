"""The emulated engine's API under a client that is a list of ASGI messages. For the tests of serving/."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from raybench.engine_model import EngineModel
from raybench.scenario.models import Emulated
from raybench.serving.emulated import Api
from raybench.serving.engine import EmulatedEngine

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

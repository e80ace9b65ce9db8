"""The emulated engine as a Serve replica: its OpenAI API as an ASGI application.

The application is plain ASGI, a function from messages to messages, because everything here is on the way of
each token. It needs no Serve: any ASGI server can run `Api` as it is.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from typing import Any

from ray import serve

from raybench.engine_model import draw_output_tokens, draw_share, from_scenario
from raybench.scenario.models import Deployment, Emulated
from raybench.serving import openai
from raybench.serving.engine import EmulatedEngine
from raybench.serving.openai import Answer, ApiError, Ask, Kind

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

REPLICA_HEADER = b"x-raybench-replica"
REQUEST_ID_HEADER = b"x-request-id"
JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"


ERROR_EVENT = ApiError(500, "InternalServerError", "failed on demand (emulated.faults.error_event)")


class CutStream(Exception):
    """A fault on demand: the answer ends in the middle, as if the process had died."""


@serve.ingress()
class EmulatedReplica:
    """One emulated engine. Slots and figures come from the deployment, what is drawn from the seed."""

    async def __init__(self, deployment: Deployment, seed: int) -> None:  # type: ignore[misc]
        self._engine = EmulatedEngine(from_scenario(deployment.emulated, deployment.slots_per_replica))
        self._api = Api(
            self._engine,
            model=deployment.model,
            emulated=deployment.emulated,
            defaults=deployment.sampling,
            seed=seed,
            replica=serve.get_replica_context().replica_id.unique_id,
        )
        await self._engine.start()

    def __serve_build_asgi_app__(self) -> Api:
        return self._api

    async def check_health(self) -> None:
        """Called by Serve: a replica whose engine has died is replaced."""
        if not self._engine.alive:
            raise RuntimeError("the emulated engine has stopped")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve; what it returns reaches the autoscaling policy and the `replicas` table."""
        return self._engine.stats()


class Api:
    """The ASGI application. Requests of one event loop, that of the engine."""

    def __init__(
        self,
        engine: EmulatedEngine,
        *,
        model: str,
        emulated: Emulated,
        defaults: dict[str, Any],
        seed: int,
        replica: str,
    ) -> None:
        self._engine, self._model, self._emulated, self._seed = engine, model, emulated, seed
        self._defaults = defaults
        self._created = int(time.time())
        self._replica = (REPLICA_HEADER, replica.encode())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        given = dict(scope["headers"]).get(REQUEST_ID_HEADER)
        request_id = given.decode("latin-1") if given else uuid.uuid4().hex
        headers = [self._replica]  # Serve itself sends the request id back
        match scope["method"], path:
            case "POST", "/v1/chat/completions":
                kind: Kind = "chat"
            case "POST", "/v1/completions":
                kind = "completions"
            case "GET", "/v1/models":
                await _whole(send, 200, headers, openai.models(self._model, self._context, self._created))
                return
            case "GET", "/health":
                await _whole(send, 200 if self._engine.alive else 503, headers, b"")
                return
            case _:
                error = ApiError(404, "NotFoundError", f"no {scope['method']} {path}")
                await _whole(send, error.status, headers, error.body())
                return
        body = await _body(receive)
        if body is None:
            return
        # Whoever hangs up ends the work, before the first token as well as after.
        work = asyncio.create_task(self._answer(kind, body, request_id, headers, send))
        gone = asyncio.create_task(_disconnect(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            unfinished = work.cancel()
        if not unfinished:
            work.result()

    @property
    def _context(self) -> int:
        return self._engine.model.context_tokens

    async def _answer(
        self, kind: Kind, body: bytes, request_id: str, headers: list[tuple[bytes, bytes]], send: Send
    ) -> None:
        fault = self._fault(request_id)
        try:
            if fault == "refuse_429":
                raise ApiError(429, "TooManyRequestsError", "refused on demand (emulated.faults.refuse_429)")
            if fault == "error_500":
                raise ApiError(500, "InternalServerError", "failed on demand (emulated.faults.error_500)")
            ask = openai.read(kind, body, self._model, self._context, self._defaults)
        except ApiError as error:
            await _whole(send, error.status, headers, error.body())
            return
        if fault == "never_answer":
            await asyncio.get_running_loop().create_future()
        wanted, reason = self._length(ask, request_id)
        answer = Answer(ask, request_id, self._model)
        if not ask.stream:
            async with aclosing(self._engine.generate(ask.prompt_tokens, wanted)) as tokens:
                async for _ in tokens:
                    pass
            if fault == "cut_stream":
                raise CutStream
            if fault == "error_event":
                await _whole(send, 500, headers, ERROR_EVENT.body())
                return
            await _whole(send, 200, headers, answer.whole(wanted, reason))
            return
        start = {"type": "http.response.start", "status": 200}
        await send(
            {**start, "headers": [*headers, (b"content-type", EVENTS), (b"cache-control", b"no-cache")]}
        )
        async with aclosing(self._events(ask, answer, wanted, reason, fault)) as events:
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(
        self, ask: Ask, answer: Answer, wanted: int, reason: str, fault: str | None
    ) -> AsyncGenerator[bytes]:
        """The stream: role with the first token, a chunk a token, usage, end."""
        async with aclosing(self._engine.generate(ask.prompt_tokens, wanted)) as tokens:
            async for number in tokens:
                if number == 1 and ask.kind == "chat":
                    yield answer.role()
                if number > wanted // 2 and fault == "cut_stream":
                    raise CutStream
                if number > wanted // 2 and fault == "error_event":
                    yield ERROR_EVENT.event()
                    return
                yield answer.chunk(number, reason if number == wanted else None)
        yield answer.end(wanted)

    def _length(self, ask: Ask, request_id: str) -> tuple[int, str]:
        """How many tokens the answer has and why it ends there."""
        drawn: float = draw_output_tokens(self._emulated.output_tokens, self._seed, request_id)
        if ask.ignore_eos:
            drawn = math.inf
        wanted = min(max(drawn, ask.min_tokens), ask.max_tokens)
        return int(wanted), "length" if drawn > ask.max_tokens else "stop"

    def _fault(self, request_id: str) -> str | None:
        share = draw_share(self._seed, "fault", request_id)
        for name in type(self._emulated.faults).model_fields:
            share -= getattr(self._emulated.faults, name)
            if share < 0:
                return name
        return None


async def _body(receive: Receive) -> bytes | None:
    """The whole request body; None if the client left before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _whole(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-type", JSON), length],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return

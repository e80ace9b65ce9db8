"""A server that misbehaves on demand: the first part of the path names how.

    with HostileServer() as server:
        url = server.url("cut_mid_stream")        # http://127.0.0.1:PORT/cut_mid_stream

Each behaviour is a coroutine on asyncio streams; `@behaviour` files it under its name. It is called
once a request, after the request was read; the connection is kept if it returns True. `requests`
counts them by name, `heads` keeps the last request head of each, `gone` counts clients that hung up.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

Behaviour = Callable[["Call"], Awaitable[bool | None]]
BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS[function.__name__] = function
    return function


def event(content: str | None = None, finish: str | None = None, **more: object) -> bytes:
    """One event of a chat stream."""
    delta = {} if content is None else {"content": content}
    body = {"id": "c-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


ROLE = event("", id="c-1")
USAGE = b'data: {"id":"c-1","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"
STREAM = ROLE + event("a") + event("b") + event("c") + event(finish="stop") + USAGE + DONE
WHOLE = json.dumps(
    {
        "choices": [{"index": 0, "message": {"content": "whole"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3},
    }
).encode()


class Call:
    """One request being answered."""

    def __init__(
        self, server: HostileServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int
    ):
        self.server, self.reader, self.writer, self.number = server, reader, writer, n

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(
        self, status: str = "200 OK", kind: str = "text/event-stream", *more: str, length: int | None = None
    ) -> None:
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", framing, "x-raybench-replica: r#1", *more]
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def close_chunks(self) -> bool:
        await self.raw(b"0\r\n\r\n")
        return True

    async def whole(
        self, body: bytes, status: str = "200 OK", kind: str = "application/json", *more: str
    ) -> bool:
        await self.head(status, kind, *more, length=len(body))
        await self.raw(body)
        return True

    async def pieces(self, pieces: list[bytes], pause_s: float = 0.0) -> None:
        """Each piece in a segment of its own, as far as the kernel lets us."""
        for piece in pieces:
            await self.raw(piece)
            await asyncio.sleep(pause_s)

    def reset(self) -> None:
        """Closes with RST instead of FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def hang(self) -> None:
        """Until the client hangs up."""
        while await self.reader.read(65536):
            pass
        self.server.gone += 1


class HostileServer:
    """Runs on a thread of its own, on 127.0.0.1 (or another loopback address), on any free port."""

    def __init__(self, host: str = "127.0.0.1", tls: object = None) -> None:
        self.host, self.tls = host, tls
        self.requests: Counter[str] = Counter()
        self.connections = 0
        self.heads: dict[str, bytes] = {}
        self.bodies: dict[str, bytes] = {}
        self.gone = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> HostileServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def url(self, name: str) -> str:
        assert name in BEHAVIOURS, name
        scheme = "https" if self.tls else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{name}"

    def _serve(self) -> None:
        loop = self._loop
        loop.set_exception_handler(lambda *_: None)
        server = loop.run_until_complete(
            asyncio.start_server(self._connected, self.host, 0, ssl=self.tls, limit=2**20)  # type: ignore[arg-type]
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        loop.run_forever()
        server.close()
        for task in list(self._tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
                body = await reader.readexactly(int(fields[b"content-length"]))
                name = head.split(b"/", 2)[1].decode()
                self.requests[name] += 1
                self.heads[name], self.bodies[name] = head, body
                if not await BEHAVIOURS[name](Call(self, reader, writer, self.requests[name])):
                    break
        except (OSError, asyncio.IncompleteReadError):
            self.gone += 1
        finally:
            self._tasks.discard(task)
            writer.close()


# Behaviours file themselves when imported; they need what is defined above.
from servers import answers, faults  # noqa: E402, F401

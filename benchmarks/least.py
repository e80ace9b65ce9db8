"""The least that a client on uvloop can be: what the generator's cost is held against.

`Reader` takes what comes and does nothing with it. `Sketch` is what anybody would write first: httptools, the
first and the last instant of a token, a count, and no records, no limits, no errors, no second server's ways.
Neither is fit to measure anything; what they use is what no client on these libraries can go below by much.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from time import monotonic_ns
from typing import Any

import httptools
import uvloop

from raybench.client import Endpoint
from raybench.client.null_server import Answer
from raybench.generator.alarm import alarm
from raybench.generator.selftest import null_server

SPIN_NS = 300_000
"""Before each instant of a paced load: spun away on the clock, as whoever wants to be exact would."""
_BODY = (
    b'{"model":"null","stream":true,"messages":[{"role":"user","content":"Describe it."}],"max_tokens":64}'
)


class Reader(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self.load = load

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self) -> None:
        self.transport.write(self.load.ask)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"0\r\n\r\n"):
            self.load.ended(self)


class Sketch(Reader):
    chunks = 0
    first_ns = last_ns = now_ns = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)

    def ask(self) -> None:
        self.first_ns = self.chunks = 0
        self.transport.write(self.load.ask)

    def data_received(self, data: bytes) -> None:
        self.now_ns = monotonic_ns()
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if b'"content":"' in body:
            self.first_ns = self.first_ns or self.now_ns
            self.last_ns = self.now_ns
            self.chunks += 1

    def on_message_complete(self) -> None:
        self.load.ended(self)


class Load:
    """So many requests: each connection one after another, or at their instants on whichever is free."""

    def __init__(self, kind: type[Reader], requests: int, connections: int, due_ns: Sequence[int]) -> None:
        self.kind, self.left, self.connections, self.due_ns = kind, requests, connections, due_ns
        self.unsent = requests
        self.idle: list[Reader] = []

    def run(self, answer: Answer, core: int) -> float:
        """CPU seconds from the first connection to the last answer."""
        with null_server(answer, core=core) as (url, _):
            endpoint = Endpoint.parse(url, "/v1/chat/completions")
            self.ask = b"%bcontent-length: %d\r\n\r\n%b" % (endpoint.head(), len(_BODY), _BODY)
            self.loop = uvloop.new_event_loop()
            self.alarm = alarm(self.loop, self._due)

            async def begin() -> None:
                for _ in range(self.connections):
                    made = await self.loop.create_connection(
                        lambda: self.kind(self), endpoint.host, endpoint.port
                    )
                    self.idle.append(made[1])
                self.t0_ns = monotonic_ns() + 10_000_000
                if self.due_ns:
                    self.alarm.set(self.t0_ns + self.due_ns[0] - SPIN_NS)
                else:
                    while self.idle:
                        self._send()

            before_s = time.process_time()
            task = self.loop.create_task(begin())
            self.loop.run_forever()
            used_s = time.process_time() - before_s
            assert task.done() and not self.left
            self.alarm.close()
            self.loop.close()
        return used_s

    def ended(self, reader: Reader) -> None:
        self.idle.append(reader)
        self.left -= 1
        if not self.left:
            self.loop.stop()
        elif not self.due_ns and self.unsent:
            self._send()

    def _send(self) -> None:
        self.unsent -= 1
        self.idle.pop().ask()

    def _due(self) -> None:
        at_ns = self.t0_ns + self.due_ns[len(self.due_ns) - self.unsent]
        while monotonic_ns() < at_ns:
            pass
        self._send()
        if self.unsent:
            self.alarm.set(self.t0_ns + self.due_ns[len(self.due_ns) - self.unsent] - SPIN_NS)

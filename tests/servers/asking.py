"""Asking a server something with the client under test, from a plain test function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import uvloop

from raybench.client import Client, Endpoint, Exchange

PATH = "/v1/chat/completions"
BODY = b'{"model":"m","stream":true,"messages":[]}'


def ask(
    urls: str | Sequence[str],
    *,
    requests: int = 1,
    at_once: int = 1,
    body: bytes = BODY,
    timeout_s: float = 10.0,
    api_key: str | None = None,
    between: Callable[[Client, Exchange], None] | None = None,
    pause_s: float = 0.0,
    **options: Any,
) -> list[Exchange]:
    """Sends `requests`, `at_once` in flight at most, and returns their exchanges in order of ending."""
    loop = uvloop.new_event_loop()
    endpoints = [
        Endpoint.parse(url, PATH, {}, api_key) for url in ([urls] if isinstance(urls, str) else urls)
    ]
    client = Client(endpoints, timeout_s=timeout_s, loop=loop, record_chunks=True, **options)
    ended: list[Exchange] = []
    sent = 0

    def send() -> None:
        nonlocal sent
        sent += 1
        client.send(sent - 1, body, done)

    def done(exchange: Exchange) -> None:
        ended.append(exchange)
        if between is not None:
            between(client, exchange)
        if sent < requests:
            if pause_s:
                loop.call_later(pause_s, send)
            else:
                send()
        elif len(ended) == requests:
            loop.stop()

    def begin() -> None:
        for _ in range(min(at_once, requests)):
            send()

    try:
        loop.call_soon(begin)
        loop.run_forever()
        assert client.in_flight == 0
    finally:
        client.close()
        loop.call_later(0.0, loop.stop)
        loop.run_forever()
        loop.close()
    return ended

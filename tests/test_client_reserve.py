"""Connections opened ahead: no request waits for its own while the number in flight grows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from servers.asking import BODY, PATH

from raybench.client import Client, Endpoint, Exchange
from raybench.client import client as module
from raybench.client.null_server import Answer, listen
from raybench.schema import Outcome


class Counted:
    """A null server, and how many connections it took."""

    def __init__(self, first_s: float) -> None:
        self.first_s = first_s
        self.taken = 0
        self.url = ""

    async def __aenter__(self) -> Counted:
        inner = await listen(Answer(tokens=2, first_s=self.first_s))
        port = inner.sockets[0].getsockname()[1]

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.taken += 1
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(2**16):
                    sink.write(data)
                sink.close()

            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

        self._inner, self._relay = inner, await asyncio.start_server(relay, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._relay.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._relay.close()
        self._inner.close()


def run(
    use: Callable[[Client, list[Exchange]], Awaitable[None]], ahead: bool = True, first_s: float = 0.05
) -> int:
    """Connections that the server took while `use` had its way with a client."""

    async def main() -> int:
        async with Counted(first_s) as server:
            client = Client(
                [Endpoint.parse(server.url, PATH)],
                timeout_s=5.0,
                loop=asyncio.get_running_loop(),
                record_chunks=False,
                ahead=ahead,
            )
            done: list[Exchange] = []
            try:
                await use(client, done)
            finally:
                client.close()
            assert all(e.outcome is Outcome.OK for e in done)
            return server.taken

    return uvloop.run(main())


async def opened(client: Client) -> None:
    """Until nothing is being opened for the reserve."""
    while client._opening:
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("ahead", [True, False])
def test_no_request_waits_for_its_connection_while_the_number_in_flight_grows(ahead: bool) -> None:
    waits: list[int] = []

    async def use(client: Client, done: list[Exchange]) -> None:
        if ahead:
            client.warm()
        for i in range(8):  # all in flight together; each finds opened what the one before it began to open
            await opened(client)
            client.send(i, BODY, done.append)
            await asyncio.sleep(0.01)
        assert not done
        while len(done) < 8:
            await asyncio.sleep(0.01)
        waits.extend(e.connected_ns - e.sent_ns for e in done if e.connected_ns is not None)

    taken = run(use, ahead, first_s=2.0)
    assert len(waits) == 8
    if ahead:
        assert waits == [0] * 8
        assert taken <= 8 + module.SPARES  # as many as are in flight, and the reserve
    else:
        assert all(wait > 0 for wait in waits) and taken == 8  # the test can tell


def test_requests_one_after_another_keep_nothing_in_reserve() -> None:
    async def use(client: Client, done: list[Exchange]) -> None:
        for i in range(5):
            client.send(i, BODY, done.append)
            while len(done) <= i:
                await asyncio.sleep(0.01)

    assert run(use) == 1


def test_a_reserve_that_came_too_late_grows_but_not_for_ever() -> None:
    async def use(client: Client, done: list[Exchange]) -> None:
        for i in range(200):  # all at once: none of the reserve can be there in time
            client.send(i, BODY, done.append)
        (pool,) = client._pools
        assert pool.spares == module.SPARES_MAX
        while len(done) < 200 or pool.coming:
            await asyncio.sleep(0.01)
        assert len(pool.idle) <= 200 + module.SPARES_MAX

    assert run(use) <= 200 + module.SPARES_MAX


def test_closing_gives_up_what_is_being_opened_and_keeps_no_connection() -> None:
    async def use(client: Client, done: list[Exchange]) -> None:
        client.warm()
        await asyncio.sleep(0)
        (pool,) = client._pools
        assert pool.coming == module.SPARES
        client.close()
        await opened(client)
        await asyncio.sleep(0.01)
        assert not pool.coming and not pool.all and not client._opening

    run(use)


def test_a_reserve_that_cannot_be_opened_is_the_next_requests_failure_only() -> None:
    async def main() -> Exchange:
        client = Client(
            [Endpoint.parse("http://127.0.0.1:9", PATH)],
            timeout_s=5.0,
            loop=asyncio.get_running_loop(),
            record_chunks=False,
            ahead=True,
        )
        client.warm()
        await opened(client)
        (pool,) = client._pools
        assert not pool.coming and not pool.idle
        over: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        client.send(0, BODY, over.set_result)
        exchange = await over
        client.close()
        return exchange

    exchange = uvloop.run(main())
    assert exchange.outcome is Outcome.CONNECT_ERROR and "cannot connect" in (exchange.error or "")

"""The client: requests out over kept connections, exchanges back by callback.

One event loop, no task and no timer per request: a request is written within `write`, its answer is
read by `Connection`'s callbacks, and since all requests have one timeout, the oldest in flight is
the next to expire, so that one timer serves all. Only opening a connection takes a task.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any, NamedTuple, Protocol

from raybench.client.connection import Connection
from raybench.client.endpoint import Endpoint
from raybench.client.exchange import Exchange
from raybench.client.openai import tidy
from raybench.client.sse import Shapes
from raybench.schema import Outcome

Done = Callable[[Exchange], None]
NEVER = 2**63 - 1
SPARES, SPARES_MAX = 2, 32
"""Connections in reserve to one endpoint, at first and at most."""


class _Holder(Protocol):
    """Whatever has a request in hand: a connection, or the opening of one."""

    def fail(self, outcome: Outcome, reason: str, now_ns: int) -> None: ...


class Pool:
    """The connections to one endpoint: as many as there are requests at once, the warmest taken first."""

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None) -> None:
        self.endpoint = endpoint
        self.head = endpoint.head()
        self.tls = tls
        self.idle: dict[Connection, None] = {}  # in order of last use
        self.all: set[Connection] = set()
        self.spares = SPARES
        self.coming = 0  # of them, being opened
        self.addresses: list[str] = []
        self.unresolved: str | None = None
        try:
            self.addresses = endpoint.addresses()
        except OSError as error:
            self.unresolved = f"cannot resolve {endpoint.host}: {error.strerror or error}"

    def take(self) -> Connection | None:
        """The idle connection used last, if there is one that the server has not closed meanwhile."""
        while self.idle:
            connection, _ = self.idle.popitem()
            if not connection.stale():
                return connection
            connection.drop()
        return None

    def forget(self, connection: Connection) -> None:
        self.all.discard(connection)
        self.idle.pop(connection, None)


class Prepared(NamedTuple):
    """A request made ready, with the idle connection it goes out on, if there was one."""

    exchange: Exchange
    request: bytes
    done: Done
    pool: Pool
    connection: Connection | None


class Opening:
    """A request that waits for its connection."""

    def __init__(self, client: Client, exchange: Exchange, request: bytes, done: Done) -> None:
        self.client, self.exchange, self.request, self.done = client, exchange, request, done
        self.task: asyncio.Task[None] | None = None
        self.over = False

    def fail(self, outcome: Outcome, reason: str, now_ns: int) -> None:
        if not self.over:
            self.over = True
            if self.task is not None:
                self.task.cancel()
            self.client.finish(self.exchange, outcome, reason, now_ns, self.done)


class Client:
    """Sends to one or several endpoints in turn. All methods belong to the loop's own thread.

    Names are resolved here, once: a name that cannot be makes each of its requests a connect_error.
    `due_ns` and `on_due` let a sender with an instant to keep look in between two reads of a busy
    loop: `on_due` is called after a read that ended at or after `due_ns`.

    With `ahead`, connections are opened before they are needed, so that no request waits for its own while
    the number in flight grows: `SPARES` are kept in reserve, twice as many each time that the reserve came
    too late, `SPARES_MAX` at most. Requests that come one after another share one connection and have none in
    reserve; a server may close it in between without anybody opening one again for nothing.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        timeout_s: float,
        loop: asyncio.AbstractEventLoop,
        record_chunks: bool,
        max_answer_bytes: int = 64 * 2**20,
        run_prefix: str = "",
        tls: ssl.SSLContext | None = None,
        ahead: bool = False,
    ) -> None:
        if not endpoints:
            raise ValueError("a client needs at least one endpoint")
        if not timeout_s > 0:
            raise ValueError(f"timeout_s {timeout_s!r}: must be above 0")
        if not run_prefix.isprintable() or not run_prefix.isascii():
            raise ValueError(f"run_prefix {run_prefix!r}: must be printable ASCII, it goes into a header")
        if tls is None and any(e.tls for e in endpoints):
            tls = ssl.create_default_context()
        self.loop = loop
        self.timeout_ns = int(timeout_s * 1e9)
        self.record_chunks = record_chunks
        self.max_answer_bytes = max_answer_bytes
        self.shapes = Shapes()
        self.due_ns = NEVER
        self.on_due: Callable[[], None] = _nothing
        self._prefix = run_prefix.encode()
        self._pools = [Pool(e, tls if e.tls else None) for e in endpoints]
        self._turn = 0
        self._flying: dict[Exchange, _Holder] = {}  # in order of sending, so in order of expiry
        self._timer: Any = None
        self._ahead = ahead
        self._opening: set[asyncio.Task[None]] = set()  # of the reserve
        self._late = f"no complete answer within {timeout_s:g} s"

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    def prepare(self, request_id: int, body: bytes, done: Done, anchor_ns: int | None = None) -> Prepared:
        """All of a request that can be done ahead of its instant; `write` then takes little but the write.

        `anchor_ns`, the instant at which it should be sent, is only carried along.
        """
        pools = self._pools
        pool = pools[self._turn]
        self._turn = (self._turn + 1) % len(pools)
        request = b"%bx-request-id: %b%d\r\ncontent-length: %d\r\n\r\n%b" % (
            pool.head,
            self._prefix,
            request_id,
            len(body),
            body,
        )
        return Prepared(Exchange(request_id, 0, anchor_ns), request, done, pool, pool.take())

    def write(self, prepared: Prepared) -> None:
        """Starts a request: its `sent_ns` is now. `done` is called exactly once, never from within this
        call. Nothing else may happen on the loop between `prepare` and this."""
        exchange, request, done, pool, connection = prepared
        exchange.sent_ns = exchange.connected_ns = monotonic_ns()
        while connection is not None:
            if connection.start(exchange, request, done):
                self._flying[exchange] = connection
                break
            connection.drop()
            connection = pool.take()
        else:
            exchange.connected_ns = None
            opening = Opening(self, exchange, request, done)
            self._flying[exchange] = opening
            opening.task = self.loop.create_task(self._open(pool, opening))
            if pool.coming:
                pool.spares = min(2 * pool.spares, SPARES_MAX)
        if self._timer is None:
            self._timer = self.loop.call_later(self.timeout_ns / 1e9, self._expire)
        if self._ahead and len(pool.idle) < pool.spares and len(self._flying) > 1:
            self._reserve(pool)

    def send(self, request_id: int, body: bytes, done: Done, anchor_ns: int | None = None) -> None:
        """`prepare` and `write` at once."""
        self.write(self.prepare(request_id, body, done, anchor_ns))

    def warm(self) -> None:
        """Opens the reserve of each endpoint, for the first requests to find. Whatever goes wrong is the
        first request's to say."""
        for pool in self._pools:
            self._reserve(pool)

    def cancel(self) -> None:
        """Ends all that is in flight as cancelled."""
        now_ns = monotonic_ns()
        for holder in list(self._flying.values()):
            holder.fail(Outcome.CANCELLED, "the run was interrupted", now_ns)

    def close(self) -> None:
        """Cancels and drops every connection. The loop must turn once more for sockets to close."""
        self.cancel()
        self._ahead = False
        for task in self._opening:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for pool in self._pools:
            for connection in list(pool.all):
                connection.drop()

    def finish(
        self, exchange: Exchange, outcome: Outcome, reason: str | None, now_ns: int, done: Done
    ) -> None:
        """The one place where an exchange ends; called by whatever holds it."""
        del self._flying[exchange]
        exchange.done_ns = now_ns
        if outcome is not Outcome.OK:
            exchange.outcome = outcome
            if reason is not None:
                for pool in self._pools:
                    reason = pool.endpoint.hide(reason)
            exchange.error = reason
        done(exchange)

    def _expire(self) -> None:
        """Times out whatever is due and sleeps until the oldest of the rest is."""
        now_ns = monotonic_ns()
        self._timer = None
        expired = []
        for exchange, holder in self._flying.items():
            left_ns = exchange.sent_ns + self.timeout_ns - now_ns
            if left_ns > 0:
                self._timer = self.loop.call_later(left_ns / 1e9 + 0.0005, self._expire)
                break
            expired.append(holder)
        for holder in expired:
            holder.fail(Outcome.TIMEOUT, self._late, now_ns)

    def _reserve(self, pool: Pool) -> None:
        """Opens what the reserve lacks, two at most: this is called at each request."""
        for _ in range(min(2, pool.spares - len(pool.idle) - pool.coming)):
            pool.coming += 1
            task = self.loop.create_task(self._spare(pool))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _spare(self, pool: Pool) -> None:
        try:
            connection, _ = await self._connect(pool)
        finally:
            pool.coming -= 1
        if connection is not None and connection.transport is not None:
            pool.idle[connection] = None

    async def _open(self, pool: Pool, opening: Opening) -> None:
        """Opens a connection for one request and sends it."""
        connection, reason = await self._connect(pool)
        if connection is None:
            opening.task = None
            opening.fail(Outcome.CONNECT_ERROR, reason, monotonic_ns())
            return
        if opening.over:
            connection.drop()
            return
        opening.over = True
        opening.exchange.connected_ns = monotonic_ns()
        self._flying[opening.exchange] = connection
        if connection.transport is None or not connection.start(
            opening.exchange, opening.request, opening.done
        ):
            connection.drop()
            reason = f"{pool.endpoint.where} closed the connection before the request was written"
            self.finish(opening.exchange, Outcome.CONNECT_ERROR, reason, monotonic_ns(), opening.done)

    async def _connect(self, pool: Pool) -> tuple[Connection | None, str]:
        """A new connection, the host's addresses tried in order; or None and why there is none."""
        endpoint, reason = pool.endpoint, pool.unresolved or ""
        for address in pool.addresses:
            try:
                _, connection = await self.loop.create_connection(
                    lambda: Connection(self, pool),
                    address,
                    endpoint.port,
                    ssl=pool.tls,
                    server_hostname=endpoint.host if pool.tls else None,
                )
            except (OSError, ssl.SSLError) as error:
                reason = f"cannot connect to {endpoint.where}: {tidy(str(error))}"
                continue
            pool.all.add(connection)
            if address is not pool.addresses[0]:  # the next one need not try those before it
                pool.addresses.remove(address)
                pool.addresses.insert(0, address)
            return connection, ""
        return None, reason


def _nothing() -> None:
    """No one waits for an instant."""

"""One HTTP/1.1 connection: bytes in, an exchange's instants out. No coroutine, no task, no timer.

A read is stamped once, when it arrives. The C parser takes the framing apart and hands body parts to
`list.append`, so that no Python function runs per chunk; the joined body then goes to the reader that
the head called for. Everything rare is an exception (`Failed`).

Once a stream has shown how its chunks end, a short read that ends so is stamped and put off. `HOLD` of
them are parsed together, or fewer as soon as a read ends otherwise, the connection closes or the request
fails: nobody waits for what a chunk says, only for when it came. A processor that slept until a chunk
came runs its first instructions slowly, so those for one read are kept few.

No reference cycle outlives a connection (the parser, which holds the connection, is dropped with the
transport), since the collector is off while a generator runs.
"""

from __future__ import annotations

import asyncio
import os
import select
from array import array
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import httptools

from raybench.client.exchange import Exchange, Failed
from raybench.client.inflate import CUT_OFF, Inflate, inflate, too_large
from raybench.client.openai import tidy
from raybench.client.sse import EventReader
from raybench.client.whole import RefusalReader, WholeReader
from raybench.schema import Outcome

if TYPE_CHECKING:
    from raybench.client.client import Client, Pool

MAX_HEAD = 64 * 2**10
"""Bytes of a response head, with all 1xx heads before it."""
_LARGE_HEAD = f"a response head of more than {MAX_HEAD} bytes"
HOLD = 32
"""Reads of one stream put off at most: with `HOLD_BYTES` each, 32 KiB for each stream in flight."""
HOLD_BYTES = 1024
_ONE_EACH = list(range(1, HOLD + 1))
_FAULTS = (Failed, httptools.HttpParserUpgrade, httptools.HttpParserError)


class Connection(asyncio.Protocol):
    """A kept connection. `exchange` is the one in progress, None while idle."""

    __slots__ = (
        "begun",
        "client",
        "complete",
        "done",
        "exchange",
        "fd",
        "framing",
        "head_done",
        "head_size",
        "headers",
        "held",
        "held_ns",
        "inflate",
        "keep",
        "now_ns",
        "parser",
        "parts",
        "poll",
        "pool",
        "reader",
        "tail",
        "transport",
    )

    def __init__(self, client: Client, pool: Pool) -> None:
        self.client = client
        self.pool = pool
        self.transport: Any = None
        self.parser: Any = None
        self.fd = -1  # written to directly; -1 under TLS
        self.poll: select.poll | None = None
        self.exchange: Exchange | None = None
        self.done: Callable[[Exchange], None] | None = None
        self.reader: EventReader | WholeReader | RefusalReader | None = None
        self.inflate: Inflate | None = None
        self.parts: list[bytes] = []
        self.headers: dict[bytes, bytes] = {}
        self.now_ns = 0  # instant of the read being worked on
        self.tail = b""  # what a read ends with that may be put off; empty while none may
        self.held: list[bytes] = []  # reads put off
        self.held_ns = array("q")  # and when they came
        self.head_size = 0
        self.begun = False  # a byte of the answer was received
        self.head_done = False
        self.complete = False
        self.keep = False
        self.framing = ""  # how the body's end is known: "length", "chunked" or "close"

    # --- what the parser calls; `on_header` and `on_body` are C functions, set up in connection_made ---

    @property
    def on_header(self) -> Callable[[bytes, bytes], None]:
        return self.headers.__setitem__

    @property
    def on_body(self) -> Callable[[bytes], None]:
        return self.parts.append

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status < 100:
            raise Failed(Outcome.PROTOCOL_ERROR, f"status {status}")
        if status < 200:  # 100 Continue, 103 Early Hints: the answer is still to come
            self.headers.clear()
            return
        if self.head_done:
            raise Failed(Outcome.PROTOCOL_ERROR, "a second answer to one request")
        self.head_done = True
        self._head(status)

    def on_message_complete(self) -> None:
        if self.head_done:
            self.complete = True
            self.keep = self.parser.should_keep_alive()

    # --- what the event loop calls ---

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)
        if not self.pool.endpoint.tls:
            self.fd = transport.get_extra_info("socket").fileno()
            self.poll = select.poll()
            self.poll.register(self.fd, select.POLLIN | select.POLLRDHUP)

    def data_received(self, data: bytes) -> None:
        now_ns = monotonic_ns()
        if self.tail and len(data) <= HOLD_BYTES and data.endswith(self.tail):
            self.held_ns.append(now_ns)
            self.held.append(data)
            if len(self.held) == HOLD:
                self.catch_up()
        else:
            if self.held:
                self.catch_up()
            self._read(data, now_ns)
        if now_ns >= self.client.due_ns:
            self.client.on_due()

    def connection_lost(self, exc: BaseException | None) -> None:
        now_ns = monotonic_ns()
        self.transport = None
        self.catch_up()
        self.parser = None
        self.pool.forget(self)
        if self.exchange is not None:
            failed = self._lost(exc, now_ns)
            if failed is None:
                self._finish(Outcome.OK, None, now_ns)
            else:
                self._finish(failed.outcome, failed.reason, now_ns)

    # --- what the client calls ---

    def stale(self) -> bool:
        """Whether an idle connection has been closed, or written to, by the server: one system call."""
        return self.transport.is_closing() or (self.poll is not None and bool(self.poll.poll(0)))

    def start(self, exchange: Exchange, request: bytes, done: Callable[[Exchange], None]) -> bool:
        """Sends. False if not a byte could be written; the connection is then of no use.

        A plain socket is written to here and now: the transport would put the bytes off to the end of
        the loop's turn, behind the reads of all other streams.
        """
        wrote = 0
        if self.fd >= 0:
            try:
                wrote = os.write(self.fd, request)
            except BlockingIOError:
                pass
            except OSError:
                return False
        self.exchange = exchange
        self.done = done
        self.begun = self.head_done = self.complete = self.keep = False
        self.head_size = 0
        if wrote < len(request):
            self.transport.write(request[wrote:] if wrote else request)
        return True

    def catch_up(self) -> None:
        """Parses the reads put off, each with the instant at which it came."""
        if not self.held:
            return
        reads, stamps = self.held, self.held_ns
        self.held, self.held_ns = [], array("q")
        parts, feed = self.parts, self.parser.feed_data
        marks: list[int] = []  # how many parts there were after each read
        try:
            try:
                for data in reads:
                    feed(data)
                    marks.append(len(parts))
            finally:
                if len(marks) < len(reads):
                    marks.append(len(parts))
                self._bodies(marks, stamps)
                self.now_ns = stamps[len(marks) - 1]
            if self.complete:
                self._end(self.now_ns)
        except _FAULTS as fault:
            self._broken(fault)

    def fail(self, outcome: Outcome, reason: str, now_ns: int) -> None:
        """Ends the exchange badly and drops the connection, on which more of the answer may follow.

        If what was received before ends it by itself, that stands.
        """
        self.catch_up()
        self.drop()
        self._finish(outcome, reason, now_ns)

    def drop(self) -> None:
        self.keep = False
        self.pool.forget(self)
        if self.transport is not None:
            self.transport.abort()

    # --- within ---

    def _read(self, data: bytes, now_ns: int) -> None:
        """Takes in one read."""
        exchange = self.exchange
        if exchange is None:  # nobody asked
            self.drop()
            return
        self.now_ns = now_ns
        self.begun = True
        if not self.head_done:
            self.head_size += len(data)
        try:
            try:
                self.parser.feed_data(data)
            finally:
                # What came before a fault in the framing still counts.
                parts = self.parts
                if parts:
                    body = parts[0] if len(parts) == 1 else b"".join(parts)
                    parts.clear()
                    self._body(exchange, body, now_ns)
            if self.complete:
                self._end(now_ns)
            elif self.head_done:
                self._expect()
            elif self.head_size > MAX_HEAD:
                raise Failed(Outcome.PROTOCOL_ERROR, _LARGE_HEAD)
        except _FAULTS as fault:
            self._broken(fault)

    def _body(self, exchange: Exchange, body: bytes, now_ns: int) -> None:
        exchange.bytes += len(body)
        reader = self.reader
        if reader is not None:
            if self.inflate is None:
                reader.feed(body, now_ns)
            else:
                for plain in self.inflate.pieces(body):
                    reader.feed(plain, now_ns)
        if exchange.bytes > self.client.max_answer_bytes:
            raise too_large(self.client.max_answer_bytes)

    def _bodies(self, marks: list[int], stamps: array[int]) -> None:
        """What several reads brought: parts[marks[i - 1] : marks[i]] came at stamps[i]."""
        exchange, reader = self.exchange, self.reader
        assert exchange is not None
        parts = self.parts[:]
        self.parts.clear()
        if (
            marks == _ONE_EACH[: len(parts)]
            and isinstance(reader, EventReader)
            and exchange.bytes + HOLD * HOLD_BYTES <= self.client.max_answer_bytes
        ):
            size = reader.feed_each(parts, stamps)
            if size:
                exchange.bytes += size
                return
        at = 0
        for mark, now_ns in zip(marks, stamps, strict=False):
            if mark > at:
                self.now_ns = now_ns
                self._body(exchange, b"".join(parts[at:mark]), now_ns)
                at = mark

    def _expect(self) -> None:
        """Whether the next read may be put off, and by which end it is known.

        No such read ends the answer: a chunked body ends with an empty line after a line of its own,
        an event with two line feeds and the chunk around it with one more line; a body that ends with
        the connection is caught up with there. A body of a known length is left alone.
        """
        reader = self.reader
        if isinstance(reader, EventReader) and self.inflate is None and self.framing != "length":
            end = reader.chunk_end()
            self.tail = end + b"\r\n" if end and self.framing == "chunked" else end

    def _broken(self, fault: Exception) -> None:
        if isinstance(fault, Failed):
            self._faulty(fault, self.now_ns)
        elif isinstance(fault, httptools.HttpParserUpgrade):
            self._faulty(Failed(Outcome.PROTOCOL_ERROR, "the server switched protocols"), self.now_ns)
        else:
            self._misframed(fault, self.now_ns)

    def _head(self, status: int) -> None:
        exchange = self.exchange
        assert exchange is not None
        exchange.headers_ns = self.now_ns
        exchange.http_status = status
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.headers.clear()
        # head_size counts whole reads, the last with some of the body: only then is it worth adding up.
        if self.head_size > MAX_HEAD < sum(map(len, headers)) + sum(map(len, headers.values())):
            raise Failed(Outcome.PROTOCOL_ERROR, _LARGE_HEAD)
        replica = headers.get(b"x-raybench-replica")
        if replica is not None:
            exchange.replica = replica[:200].decode("latin-1")
        if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
            self.framing = "chunked"
        else:
            self.framing = "length" if b"content-length" in headers else "close"
        kind = headers.get(b"content-type", b"").lower()
        if not 200 <= status < 300:
            self.reader = RefusalReader(status, headers.get(b"location", b"").decode("latin-1"))
        elif b"text/event-stream" in kind:
            self.reader = EventReader(exchange, self.client.record_chunks, self.client.shapes)
        else:
            self.reader = WholeReader(exchange, kind)
        self.inflate = inflate(headers.get(b"content-encoding", b""), self.client.max_answer_bytes)

    def _end(self, now_ns: int) -> None:
        reader = self.reader
        assert reader is not None
        if self.inflate is not None and not self.inflate.complete and self.inflate.size:
            raise Failed(Outcome.STREAM_CUT, CUT_OFF)
        reader.end(now_ns)
        self._finish(Outcome.OK, None, now_ns)

    def _misframed(self, fault: Exception, now_ns: int) -> None:
        cause = fault.__context__
        if isinstance(cause, Failed):
            self._faulty(cause, now_ns)
        elif self.complete:
            self._faulty(
                Failed(Outcome.PROTOCOL_ERROR, "bytes after the end that the answer's head gave"), now_ns
            )
        else:
            self._faulty(Failed(Outcome.PROTOCOL_ERROR, f"not HTTP/1.1: {tidy(str(fault))}"), now_ns)

    def _faulty(self, failed: Failed, now_ns: int) -> None:
        """A fault in the body of a refusal leaves it a refusal."""
        if isinstance(self.reader, RefusalReader):
            failed = self.reader.failed()
        self.fail(failed.outcome, failed.reason, now_ns)

    def _lost(self, exc: BaseException | None, now_ns: int) -> Failed | None:
        """What a connection that went away makes of its exchange; None if the answer was complete."""
        how = tidy(str(exc)) if exc else "connection closed by the server"
        if not self.begun:
            return Failed(Outcome.CONNECT_ERROR, f"{how} before the answer began")
        if not self.head_done:
            return Failed(Outcome.STREAM_CUT, f"{how} inside the response head")
        reader, exchange = self.reader, self.exchange
        assert reader is not None and exchange is not None
        if isinstance(reader, RefusalReader):
            return reader.failed()
        if self.framing == "close" and exc is None:
            try:
                if self.inflate is not None and not self.inflate.complete:
                    return Failed(Outcome.STREAM_CUT, CUT_OFF)
                reader.end(now_ns)
            except Failed as failed:
                return failed
            return None
        if self.framing == "length" and exc is None:
            return Failed(
                Outcome.PROTOCOL_ERROR, f"{how} after {exchange.bytes} bytes, fewer than its content-length"
            )
        return Failed(Outcome.STREAM_CUT, f"{how} after {exchange.bytes} bytes and {exchange.chunks} chunks")

    def _finish(self, outcome: Outcome, reason: str | None, now_ns: int) -> None:
        exchange, done = self.exchange, self.done
        if exchange is None or done is None:
            return
        self.exchange = self.done = self.reader = self.inflate = None
        self.tail = b""
        # A request still being written when its answer ended leaves the connection unfit for another.
        if self.keep and self.transport is not None and not self.transport.get_write_buffer_size():
            self.pool.idle[self] = None
        elif self.transport is not None:
            self.drop()
        self.client.finish(exchange, outcome, reason, now_ns, done)

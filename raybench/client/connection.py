"""One HTTP/1.1 connection: bytes in, an exchange's instants out. No coroutine, no task, no timer.

A read is stamped once, when it arrives. The C parser takes the framing apart and hands body parts to
`list.append`, so that no Python function runs per chunk; the joined body then goes to the reader that
the head called for. Everything rare is an exception (`Failed`).

No reference cycle outlives a connection (the parser, which holds the connection, is dropped with the
transport), since the collector is off while a generator runs.
"""

from __future__ import annotations

import asyncio
import os
import select
import zlib
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import httptools

from raybench.client.exchange import Exchange, Failed
from raybench.client.openai import tidy
from raybench.client.sse import EventReader
from raybench.client.whole import RefusalReader, WholeReader
from raybench.schema import Outcome

if TYPE_CHECKING:
    from raybench.client.client import Client, Pool

MAX_HEAD = 64 * 2**10
"""Bytes of a response head, with all 1xx heads before it."""
_LARGE_HEAD = f"a response head of more than {MAX_HEAD} bytes"
_INFLATED = 2**18  # bytes decompressed at once


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
        "inflate",
        "keep",
        "now_ns",
        "parser",
        "parts",
        "plain",
        "poll",
        "pool",
        "reader",
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
        self.inflate: Any = None
        self.plain = 0  # bytes of the body after decompression
        self.parts: list[bytes] = []
        self.headers: dict[bytes, bytes] = {}
        self.now_ns = 0  # instant of the read being worked on
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
        self.now_ns = now_ns = monotonic_ns()
        exchange = self.exchange
        if exchange is None:  # nobody asked
            self.drop()
            return
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
                    exchange.bytes += len(body)
                    if self.inflate is None and self.reader is not None:
                        self.reader.feed(body, now_ns)
                    else:
                        self._inflated(body, now_ns)
                    if exchange.bytes > self.client.max_answer_bytes:
                        self._oversize()
            if self.complete:
                self._end(now_ns)
            elif not self.head_done and self.head_size > MAX_HEAD:
                raise Failed(Outcome.PROTOCOL_ERROR, _LARGE_HEAD)
        except Failed as failed:
            self._faulty(failed, now_ns)
        except httptools.HttpParserUpgrade:
            self._faulty(Failed(Outcome.PROTOCOL_ERROR, "the server switched protocols"), now_ns)
        except httptools.HttpParserError as fault:
            self._misframed(fault, now_ns)
        if now_ns >= self.client.due_ns:
            self.client.on_due()

    def connection_lost(self, exc: BaseException | None) -> None:
        now_ns = monotonic_ns()
        self.parser = None
        self.transport = None
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

    def fail(self, outcome: Outcome, reason: str, now_ns: int) -> None:
        """Ends the exchange badly and drops the connection, on which more of the answer may follow."""
        self.drop()
        self._finish(outcome, reason, now_ns)

    def drop(self) -> None:
        self.keep = False
        self.pool.forget(self)
        if self.transport is not None:
            self.transport.abort()

    # --- within ---

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
        coding = headers.get(b"content-encoding", b"identity").strip().lower()
        self.inflate, self.plain = None, 0
        if coding in (b"gzip", b"x-gzip", b"deflate"):
            self.inflate = zlib.decompressobj(47)  # 32 + 15: gzip or zlib by its header
        elif coding not in (b"", b"identity"):
            raise Failed(
                Outcome.PROTOCOL_ERROR, f"content-encoding {tidy(coding.decode('latin-1'))}, never asked for"
            )

    def _inflated(self, body: bytes, now_ns: int) -> None:
        """A server that compresses unasked is read all the same, within the same bound."""
        reader = self.reader
        if reader is None:
            return
        try:
            while body:
                plain = self.inflate.decompress(body, _INFLATED)
                self.plain += len(plain)
                if self.plain > self.client.max_answer_bytes:
                    self._oversize()
                if plain:
                    reader.feed(plain, now_ns)
                body = self.inflate.unconsumed_tail
        except zlib.error as fault:
            raise Failed(Outcome.PROTOCOL_ERROR, f"not the compression it says: {fault}") from None

    def _oversize(self) -> None:
        raise Failed(Outcome.PROTOCOL_ERROR, f"an answer of more than {self.client.max_answer_bytes} bytes")

    def _end(self, now_ns: int) -> None:
        reader = self.reader
        assert reader is not None
        if self.inflate is not None and not self.inflate.eof and self.plain:
            raise Failed(Outcome.STREAM_CUT, "the compressed answer breaks off")
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
                if self.inflate is not None and not self.inflate.eof:
                    return Failed(Outcome.STREAM_CUT, "the compressed answer breaks off")
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
        # A request still being written when its answer ended leaves the connection unfit for another.
        if self.keep and self.transport is not None and not self.transport.get_write_buffer_size():
            self.pool.idle[self] = None
        elif self.transport is not None:
            self.drop()
        self.client.finish(exchange, outcome, reason, now_ns, done)

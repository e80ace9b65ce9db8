"""A connection's bytes as the network cuts them: what came when, whether reads were put off or not."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import accumulate, count, pairwise
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from slow_sse import read
from test_client_sse import GOOD, streams

from raybench.client import connection
from raybench.client.connection import HOLD, HOLD_BYTES, Connection
from raybench.client.exchange import Exchange
from raybench.client.sse import EventReader, Shapes
from raybench.schema import Outcome

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
END = b"0\r\n\r\n"
LAST = GOOD.replace(b"null", b'"stop"') + b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Transport:
    """What a connection needs of one."""

    def __init__(self) -> None:
        self.closed = False

    def write(self, data: bytes) -> None:
        """Sent."""

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0


class Wire:
    """One request on one connection, with a clock that says 1000, 1001 … for the reads."""

    def __init__(self, hold: bool = True, max_answer_bytes: int = 2**20) -> None:
        self.ended: list[tuple[Outcome, str | None, int]] = []
        client: Any = SimpleNamespace(
            max_answer_bytes=max_answer_bytes,
            record_chunks=True,
            shapes=Shapes(),
            due_ns=2**63 - 1,
            on_due=None,
            finish=lambda exchange, outcome, reason, now_ns, done: self.ended.append(
                (outcome, reason, now_ns)
            ),
        )
        pool: Any = SimpleNamespace(
            endpoint=SimpleNamespace(tls=True), idle={}, forget=lambda connection: None
        )
        self.exchange = Exchange(0, 0)
        self.transport = Transport()
        self.connection = Connection(client, pool)
        if not hold:
            self.connection = type("Prompt", (Connection,), {"_expect": lambda self: None})(client, pool)
        self.connection.connection_made(self.transport)
        self.connection.start(self.exchange, b"", lambda exchange: None)
        self.held = 0  # the most reads put off at once

    def receive(self, reads: list[bytes]) -> None:
        """Reads until the connection gives up on the server."""
        for at, data in enumerate(reads):
            if self.transport.closed:
                return
            with mock.patch.object(connection, "monotonic_ns", count(1000 + at).__next__):
                self.connection.data_received(data)
            self.held = max(self.held, len(self.connection.held))

    def hang_up(self, now_ns: int) -> None:
        with mock.patch.object(connection, "monotonic_ns", lambda: now_ns):
            self.connection.connection_lost(None)

    def seen(self) -> dict[str, object]:
        names = set(Exchange.__slots__) - {"chunk_ns"}
        return {name: getattr(self.exchange, name) for name in names} | {
            "chunk_ns": list(self.exchange.chunk_ns or ()),
            "ended": self.ended,
        }


def both(reads: list[bytes], **options: int) -> Wire:
    """The same reads put off where possible and not: whatever is noted must be the same."""
    held, prompt = Wire(**options), Wire(hold=False, **options)
    for wire in (held, prompt):
        wire.receive(reads)
        wire.hang_up(1000 + len(reads))
    assert held.seen() == prompt.seen()
    assert len(held.ended) == 1
    return held


def instants(body: bytes, ends: list[int]) -> list[int]:
    """When each chunk was complete, by the slow reader: what it makes of the complete events so far."""
    stamps: list[int] = []
    for at, end in enumerate(ends):
        so_far = body[:end].removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        chunks = read(so_far[: so_far.rfind(b"\n\n") + 2] if b"\n\n" in so_far else b"").chunks
        stamps += [1000 + at] * (chunks - len(stamps))
    return stamps


@pytest.fixture
def lone() -> Iterator[list[bytes]]:
    """Sixty chunks, each in a read of its own, and the end."""
    yield [
        HEAD + chunk(GOOD),
        *[chunk(GOOD.replace(b" a", b" %d" % i)) for i in range(59)],
        chunk(LAST) + END,
    ]


def test_lone_chunks_are_put_off_and_keep_their_instants(lone: list[bytes]) -> None:
    wire = both(lone)
    assert wire.held == HOLD - 1
    assert wire.exchange.chunks == 61
    assert list(wire.exchange.chunk_ns or ()) == list(range(1000, 1061))
    assert wire.exchange.bytes == 60 * len(GOOD) + sum(len(b"%d" % i) - 1 for i in range(59)) + len(LAST)
    assert wire.ended == [(Outcome.OK, None, 1060)]


def test_chunks_put_off_are_not_looked_at_one_by_one(
    lone: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = []
    feed = EventReader.feed
    monkeypatch.setattr(EventReader, "feed", lambda self, *given: (fed.append(given), feed(self, *given)))
    wire = Wire()
    wire.receive(lone)
    assert wire.exchange.chunks == 61
    assert len(fed) == 2  # the first chunk and the end


def test_an_answer_that_ends_with_its_connection_is_put_off_too(lone: list[bytes]) -> None:
    plain = [CLOSING + GOOD, *[GOOD] * 20, LAST]
    wire = both(plain)
    assert wire.held == 20
    assert (wire.exchange.chunks, wire.ended) == (22, [(Outcome.OK, None, 1022)])


def test_a_connection_that_closes_counts_what_was_put_off(lone: list[bytes]) -> None:
    wire = both(lone[:10])
    assert wire.exchange.chunks == 10
    ((outcome, reason, now_ns),) = wire.ended
    assert (outcome, now_ns) == (Outcome.STREAM_CUT, 1010)
    assert reason is not None and "10 chunks" in reason


def test_a_request_that_fails_counts_what_was_put_off(lone: list[bytes]) -> None:
    wire = Wire()
    wire.receive(lone[:10])
    assert wire.exchange.chunks == 1
    wire.connection.fail(Outcome.TIMEOUT, "late", 5000)
    assert wire.exchange.chunks == 10
    assert wire.ended == [(Outcome.TIMEOUT, "late", 5000)]


def test_a_fault_put_off_has_its_own_instant_and_stands(lone: list[bytes]) -> None:
    """Bytes that end as a chunk does and are none: known at the latest when the request fails."""
    fault = b"zz" + chunk(GOOD)
    wire = Wire()
    wire.receive([*lone[:4], fault, *lone[4:6]])
    assert not wire.ended
    wire.connection.fail(Outcome.TIMEOUT, "late", 5000)
    ((outcome, _, now_ns),) = wire.ended
    assert (outcome, now_ns, wire.exchange.chunks) == (Outcome.PROTOCOL_ERROR, 1004, 4)
    assert wire.transport.closed


def test_what_does_not_end_as_a_chunk_is_seen_at_once(lone: list[bytes]) -> None:
    wire = Wire()
    wire.receive([*lone[:5], chunk(b'data: {"error":{"message":"no more"}}\n\n')])
    ((outcome, reason, now_ns),) = wire.ended
    assert (outcome, now_ns, wire.exchange.chunks) == (Outcome.STREAM_CUT, 1005, 5)
    assert reason is not None and "no more" in reason


def test_long_reads_are_not_put_off() -> None:
    wire = Wire()
    wire.receive([HEAD + chunk(GOOD), chunk(GOOD.replace(b" a", b"a" * HOLD_BYTES)), chunk(GOOD)])
    assert (wire.held, wire.exchange.chunks) == (1, 2)


def test_an_answer_put_off_is_bounded_to_the_chunk() -> None:
    chunks = 2 * HOLD * HOLD_BYTES // len(GOOD)
    wire = both([HEAD + chunk(GOOD), *[chunk(GOOD)] * (chunks + 50)], max_answer_bytes=chunks * len(GOOD))
    ((outcome, _, now_ns),) = wire.ended
    assert (outcome, now_ns, wire.exchange.chunks) == (Outcome.PROTOCOL_ERROR, 1000 + chunks, chunks + 1)


def test_the_next_answer_on_a_connection_starts_afresh(lone: list[bytes]) -> None:
    wire = Wire()
    wire.receive(lone)
    first, wire.exchange = wire.exchange, Exchange(1, 0)
    wire.connection.start(wire.exchange, b"", lambda exchange: None)
    wire.receive(lone)
    assert wire.exchange.chunks == first.chunks
    assert wire.ended == [(Outcome.OK, None, 1060)] * 2


@settings(max_examples=300, deadline=None)
@given(
    streams(),
    st.integers(0, 3),
    st.lists(st.integers(0, 5000), max_size=3),
    st.lists(st.integers(0, 9000), max_size=3),
)
def test_streams_as_servers_send_them(body: bytes, repeats: int, places: list[int], cuts: list[int]) -> None:
    """Any stream, an event to a chunk and a chunk to a read but for a few, against the slow reader."""
    head, separator, rest = body.partition(b"}\n\n")
    body = (head + separator) * (1 + 10 * repeats) + rest
    slow = read(body)
    assume(slow.error is None and (not body or body.endswith((b"\n\n", b"\r\r", b"\r\n\r\n"))))
    edges = sorted({0, len(body), *(p % (len(body) + 1) for p in places)} | ends_of_events(body))
    raw, given, breaks = b"", [0], {0}  # given: how much of the body is in the first n bytes of raw
    for a, z in pairwise(edges):
        line = b"%x\r\n" % (z - a)
        raw += line + body[a:z] + b"\r\n"
        given += [a] * len(line) + list(range(a + 1, z + 1)) + [z] * 2
        breaks.add(len(raw))
    breaks |= {c % (len(raw) + 1) for c in cuts}
    ordered = sorted(breaks)
    wire = both([HEAD, *[raw[a:z] for a, z in pairwise(ordered)], END])
    stamps = instants(body, [given[z] for z in ordered])
    # What a lone carriage return ends is known with the next byte, here the answer's end.
    stamps += [1000 + len(ordered)] * (slow.chunks - len(stamps))
    assert wire.exchange.first_token_ns == (stamps[0] if stamps else None)
    assert list(wire.exchange.chunk_ns or ()) == stamps


def ends_of_events(body: bytes) -> set[int]:
    return {at + 2 for at in range(len(body)) if body.startswith((b"\n\n", b"\r\r"), at)}


@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 4), st.binary(max_size=6)), max_size=4),
    st.lists(st.integers(0, 9000), max_size=6),
)
def test_good_answers_with_bytes_changed(changes: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    """Framing and all, cut anywhere: putting reads off changes nothing that is noted."""
    raw = [HEAD, *[chunk(GOOD)] * 24, chunk(LAST) + END]
    for place, size, new in changes:
        at = place % len(raw)
        inside = (place // len(raw)) % (len(raw[at]) + 1)
        raw[at] = raw[at][:inside] + new + raw[at][inside + size :]
    joined = b"".join(raw)
    edges = {*accumulate(map(len, raw)), 0, *(c % (len(joined) + 1) for c in cuts)}
    both([joined[a:z] for a, z in pairwise(sorted(edges))])


def test_a_group_counts_only_if_each_part_is_one_chunk() -> None:
    reader = EventReader(Exchange(0, 0), True, Shapes())

    def fed(*parts: bytes) -> int:
        return reader.feed_each(list(parts), array("q", range(2, 2 + len(parts))))

    assert fed(GOOD) == 0  # nothing is known yet
    reader.feed(GOOD, 1)
    assert fed(GOOD, GOOD[:50], GOOD[50:]) == 0
    assert fed(GOOD + GOOD, b"") == 0
    assert fed(GOOD[:-1], b"\n" + GOOD) == 0
    assert fed(GOOD, GOOD.replace(b'" a"', b'""')) == 0
    assert fed(GOOD, GOOD.replace(b" a", b"\\n")) == 0
    assert fed(GOOD, GOOD.replace(b"null", b"true")) == 0
    assert reader.exchange.chunks == 1
    assert fed(GOOD, GOOD.replace(b" a", b" more")) == 2 * len(GOOD) + 3
    assert reader.exchange.chunks == 3
    assert list(reader.exchange.chunk_ns or ()) == [1, 2, 3]
    reader.feed(GOOD[:10], 5)
    assert fed(GOOD, GOOD) == 0

"""The fast reader of streams against the slow, obvious one, on streams that servers send and ones that
none should."""

from __future__ import annotations

import json
from array import array
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slow_sse import Stream, read

from raybench.client.exchange import Exchange, Failed
from raybench.client.sse import MAX_EVENT, EventReader, Shapes
from raybench.schema import Outcome

SHAPES = Shapes()  # shared by all streams of this module, whatever they taught


def fast(
    pieces: list[bytes], *, record: bool = True, shapes: Shapes | None = None
) -> tuple[Exchange, EventReader, Failed | None]:
    """Feeds pieces at instants 1000, 1001 … and the end; returns what was made of them."""
    exchange = Exchange(0, 0)
    reader = EventReader(exchange, record, shapes or Shapes())
    failed = None
    try:
        for i, piece in enumerate(pieces):
            reader.feed(piece, 1000 + i)
        reader.end(1000 + len(pieces))
    except Failed as error:
        failed = error
    return exchange, reader, failed


def agree(body: bytes, pieces: list[bytes]) -> None:
    assert b"".join(pieces) == body
    slow = read(body)
    check(slow, *fast(pieces))
    check(slow, *fast(pieces, shapes=SHAPES))


def check(slow: Stream, exchange: Exchange, reader: EventReader, failed: Failed | None) -> None:
    assert exchange.chunks == slow.chunks
    assert exchange.finish_reason == slow.finish_reason
    assert (exchange.prompt_tokens, exchange.output_tokens) == (slow.usage or (None, None))
    assert len(exchange.chunk_ns or ()) == slow.chunks
    if slow.error is None:
        assert reader.done == slow.done
        if slow.finish_reason is not None or (slow.done and slow.chunks):
            assert failed is None
        else:
            expected = Outcome.STREAM_CUT if slow.chunks else Outcome.PROTOCOL_ERROR
            assert failed is not None and failed.outcome is expected
    else:
        assert failed is not None
        assert failed.outcome is (Outcome.STREAM_CUT if slow.error == "said" else Outcome.PROTOCOL_ERROR)


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({p % (len(body) + 1) for p in places} | {0, len(body)})
    return [body[a:b] for a, b in pairwise(edges)]


# --- streams as servers write them, with anything a model can say in them ---------------------------

TEXT = st.one_of(
    st.sampled_from(
        [
            "",
            " the",
            "\n",
            '"',
            "\\",
            '\\"',
            '"}}]}',
            "data: ",
            '{"content":"x"}',
            '","finish_reason":"stop',
            "é",
            "\u2028",
            "😀",
            "\t",
            "[DONE]",
            "\n\ndata: ",
        ]
    ),
    st.text(max_size=12),
)


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, object]:
    """How one server writes its events: order of keys, spaces, escapes, what comes along."""
    return {
        "separators": draw(st.sampled_from([(",", ":"), (", ", ": ")])),
        "ascii": draw(st.booleans()),
        "api": draw(st.sampled_from(["delta", "text", "reasoning_content"])),
        "extra_first": draw(st.booleans()),
        "extra": draw(
            st.sampled_from(
                [{}, {"logprobs": None}, {"usage": None}, {"note": 'content":"'}, {"content": "top"}]
            )
        ),
        "prefix": draw(st.sampled_from(["data: ", "data:"])),
        "end": draw(st.sampled_from(["\n", "\r\n", "\r"])),
        "stamp": draw(st.booleans()),  # a field that differs from event to event
    }


def written(shape: dict[str, object], number: int, choice: dict[str, object], **top: object) -> bytes:
    body: dict[str, object] = {"id": "c-1", "created": 17 + (number // 3 if shape["stamp"] else 0)}
    extra = dict(shape["extra"])  # type: ignore[call-overload]
    body |= (extra | {"choices": [choice]}) if shape["extra_first"] else ({"choices": [choice]} | extra)
    text = json.dumps(body | top, separators=shape["separators"], ensure_ascii=bool(shape["ascii"]))  # type: ignore[arg-type]
    return f"{shape['prefix']}{text}\n\n".replace("\n", str(shape["end"])).encode("utf-8", "surrogatepass")


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    shape = draw(shapes())
    events = []
    for number in range(draw(st.integers(0, 14))):
        kind = draw(st.sampled_from(["text"] * 8 + ["role", "comment", "tool", "two", "usage", "odd"]))
        text = draw(TEXT)
        delta: dict[str, object] = {"content": text}
        if shape["api"] == "reasoning_content":
            delta = {"reasoning_content": text, "content": None}
        choice: dict[str, object] = {"index": 0, "delta": delta, "finish_reason": None}
        if shape["api"] == "text":
            choice = {"index": 0, "text": text, "finish_reason": None}
        if kind == "role":
            choice = {"index": 0, "delta": {"role": "assistant", "content": ""}}
        elif kind == "tool":
            choice = {
                "index": 0,
                "delta": {"tool_calls": [{"function": {"arguments": text}}], "content": text},
            }
        elif kind == "comment":
            events.append(f": ping {number}\n\n".replace("\n", str(shape["end"])).encode())
            continue
        if kind == "usage":
            usage = {"prompt_tokens": number, "completion_tokens": 2}
            events.append(written(shape, number, choice, usage=usage))
        elif kind == "two":
            both = json.dumps(
                {"choices": [choice, {"index": 1, "delta": {"content": text}}]}, ensure_ascii=False
            )
            events.append(b"data: " + both.encode("utf-8", "surrogatepass") + b"\n\n")
        elif kind == "odd":
            events.append(
                draw(
                    st.sampled_from([b"data: [1]\n\n", b"id: 4\n\n", b"\n\n\n", b"data\n\n", b"data: 3\n\n"])
                )
            )
        else:
            events.append(written(shape, number, choice))
    if draw(st.booleans()):
        choice = {"index": 0, "delta": {"content": draw(TEXT)}, "finish_reason": "stop"}
        events.append(written(shape, 0, choice))
    if draw(st.booleans()):
        events.append(b"data: [DONE]\n\n")
    return b"".join(events)


@settings(max_examples=400, deadline=None)
@given(streams(), st.lists(st.integers(0, 5000), max_size=8))
def test_streams_as_servers_write_them(body: bytes, places: list[int]) -> None:
    agree(body, cut(body, places))


@settings(max_examples=60, deadline=None)
@given(streams())
def test_split_at_every_byte(body: bytes) -> None:
    agree(body, [body[i : i + 1] for i in range(len(body))])


# --- streams that no server should write ------------------------------------------------------------

GOOD = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":" a"},"finish_reason":null}]}\n\n'
FRAGMENTS = st.sampled_from(
    [
        GOOD,
        GOOD,
        GOOD,
        GOOD.replace(b'" a"', b'""'),
        GOOD.replace(b" a", b"\\n"),
        GOOD.replace(b" a", b'\\"'),
        GOOD.replace(b" a", b"x\\"),
        GOOD.replace(b" a", b"\\q"),
        GOOD.replace(b" a", b"\xff\xfe"),
        GOOD.replace(b" a", b"x\ny"),
        GOOD.replace(b" a", b'x","y":"z'),
        GOOD.replace(b" a", b'x"},"finish_reason":"stop"},{"index":1,"delta":{"content":"b'),
        GOOD.replace(b'"finish_reason":null', b'"finish_reason":"stop"'),
        GOOD.replace(b"data", b"xdata"),
        b"x" + GOOD,
        b"event: error\n" + GOOD,
        b": c\n" + GOOD,
        GOOD[:-1],
        GOOD[:40],
        GOOD[40:],
        b"\n",
        b"\r",
        b"\r\n",
        b"data: [DONE]\n\n",
        b"data:[DONE]\n\n",
        b"data: ",
        b"\xef\xbb\xbf",
        b'data: {"error":"x"}\n\n',
        b"data: {\n\n",
        b'data: {"choices":[{"text":"t"}]}\n\n',
    ]
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(FRAGMENTS, max_size=9).map(b"".join), st.lists(st.integers(0, 1000), max_size=5))
@example(GOOD + GOOD.replace(b" a", b"\\") + GOOD, [])
@example(b"\xef\xbb\xbf" + GOOD, [1, 2])
@example(GOOD + b"\n" + GOOD + GOOD, [])
def test_streams_that_no_server_should_write(body: bytes, places: list[int]) -> None:
    agree(body, cut(body, places))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=4
    ),
    st.lists(st.integers(0, 1000), max_size=4),
)
def test_a_good_stream_with_bytes_changed(changes: list[tuple[int, int, bytes]], places: list[int]) -> None:
    body = GOOD * 4 + GOOD.replace(b"null", b'"stop"') + b"data: [DONE]\n\n"
    for place, size, new in changes:
        place %= len(body)
        body = body[:place] + new + body[place + size :]
    agree(body, cut(body, places))


# --- instants and bounds ----------------------------------------------------------------------------


def test_chunks_of_one_read_have_its_instant() -> None:
    exchange, _, _ = fast([GOOD * 2, GOOD[:50], GOOD[50:] + GOOD, b"data: [DONE]\n\n"])
    assert (exchange.first_token_ns, exchange.last_token_ns) == (1000, 1002)
    assert exchange.chunk_ns == array("q", [1000, 1000, 1002, 1002])


def test_chunk_instants_are_kept_only_if_asked_for() -> None:
    exchange, _, _ = fast([GOOD * 3], record=False)
    assert (exchange.chunks, exchange.chunk_ns) == (3, None)


def test_the_role_event_is_not_the_first_token() -> None:
    role = GOOD.replace(b'{"content":" a"}', b'{"role":"assistant","content":""}')
    exchange, _, _ = fast([role, GOOD])
    assert (exchange.chunks, exchange.first_token_ns) == (1, 1001)


def test_a_long_run_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first content event none of its kind reaches the slow path, alone or bunched."""
    slow: list[bytes] = []
    real = EventReader._slow
    monkeypatch.setattr(
        EventReader, "_slow", lambda self, event, now: (slow.append(event), real(self, event, now))
    )
    escaped = GOOD.replace(b" a", b'\\n\\"')
    exchange, _, _ = fast([GOOD * 100, *[GOOD] * 100, escaped * 100, *[escaped] * 10, b"data: [DONE]\n\n"])
    assert exchange.chunks == 310
    assert slow == [GOOD, b"data: [DONE]\n\n"]


def test_one_event_is_bounded() -> None:
    pieces = [b"data: " + b"x" * 2**20] * (MAX_EVENT // 2**20 + 1)
    _, _, failed = fast(pieces)
    assert failed is not None and failed.outcome is Outcome.PROTOCOL_ERROR
    assert str(MAX_EVENT) in failed.reason

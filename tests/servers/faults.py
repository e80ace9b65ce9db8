"""Answers that are broken: what `hostile` files under their names."""

from __future__ import annotations

import asyncio
import gzip
import zlib

from servers.hostile import DONE, ROLE, STREAM, WHOLE, Call, behaviour, event

# --- broken answers ---------------------------------------------------------------------------------


@behaviour
async def never_answers(call: Call) -> None:
    await call.hang()


@behaviour
async def stalls_mid_stream(call: Call) -> None:
    await call.head()
    await call.chunk(ROLE + event("a"))
    await call.hang()


@behaviour
async def cut_mid_stream(call: Call) -> None:
    await call.head()
    await call.chunk(ROLE + event("a") + event("b"))


@behaviour
async def reset_mid_stream(call: Call) -> None:
    await call.head()
    await call.chunk(ROLE + event("a"))
    await asyncio.sleep(0.05)
    call.reset()


@behaviour
async def cut_inside_chunk(call: Call) -> None:
    await call.head()
    await call.raw(b"ff\r\n" + event("a"))


@behaviour
async def cut_inside_head(call: Call) -> None:
    await call.raw(b"HTTP/1.1 200 OK\r\ncontent-ty")


@behaviour
async def closes_before_answer(call: Call) -> None:
    return None


@behaviour
async def resets_before_answer(call: Call) -> None:
    call.reset()


@behaviour
async def ends_without_finish(call: Call) -> bool:
    await call.head()
    await call.chunk(ROLE + event("a") + event("b"))
    return await call.close_chunks()


@behaviour
async def error_inside_200(call: Call) -> bool:
    await call.head()
    await call.chunk(ROLE + event("a"))
    await call.chunk(b'data: {"error":{"message":"CUDA out of memory","type":"server_error"}}\n\n' + DONE)
    return await call.close_chunks()


@behaviour
async def named_error_event(call: Call) -> bool:
    await call.head()
    await call.chunk(event("a") + b"event: error\ndata: overloaded, sorry\n\n")
    return await call.close_chunks()


@behaviour
async def error_body_in_200(call: Call) -> bool:
    return await call.whole(b'{"error":{"message":"no such model"}}')


@behaviour
async def page_in_200(call: Call) -> bool:
    return await call.whole(b"<html>Welcome to the gateway</html>", "200 OK", "text/html")


@behaviour
async def empty_stream(call: Call) -> bool:
    await call.head()
    return await call.close_chunks()


@behaviour
async def done_only(call: Call) -> bool:
    await call.head()
    await call.chunk(ROLE + DONE)
    return await call.close_chunks()


@behaviour
async def empty_body(call: Call) -> bool:
    return await call.whole(b"")


@behaviour
async def no_content(call: Call) -> bool:
    await call.raw(b"HTTP/1.1 204 No Content\r\n\r\n")
    return True


@behaviour
async def garbage(call: Call) -> None:
    await call.raw(b"\x16\x03\x01 this is not HTTP\r\n\r\n")


@behaviour
async def garbage_event(call: Call) -> bool:
    await call.head()
    await call.chunk(event("a") + b"data: <html>\n\n")
    return await call.close_chunks()


@behaviour
async def garbage_chunk_size(call: Call) -> None:
    await call.head()
    await call.chunk(ROLE + event("a"))
    await call.raw(b"zzz\r\nwhat\r\n")
    await call.hang()


@behaviour
async def length_too_long(call: Call) -> None:
    await call.head("200 OK", "text/event-stream", length=len(STREAM) + 100)
    await call.raw(STREAM)


@behaviour
async def length_too_short(call: Call) -> None:
    await call.head("200 OK", "text/event-stream", length=len(STREAM) - 40)
    await call.raw(STREAM)
    await call.hang()


@behaviour
async def two_lengths(call: Call) -> None:
    await call.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello")


@behaviour
async def second_answer(call: Call) -> bool:
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(WHOLE),
        WHOLE,
    )
    await call.raw(answer + answer)
    return True


@behaviour
async def switches_protocols(call: Call) -> None:
    await call.raw(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\x81\x00"
    )


@behaviour
async def huge_header(call: Call) -> None:
    await call.raw(b"HTTP/1.1 200 OK\r\nx-long: " + b"h" * 500_000 + b"\r\ncontent-length: 2\r\n\r\n{}")
    await call.hang()


@behaviour
async def endless_headers(call: Call) -> None:
    await call.raw(b"HTTP/1.1 200 OK\r\n")
    while True:
        await call.raw(b"x-more: and more\r\n" * 100)
        await asyncio.sleep(0)


@behaviour
async def endless_informational(call: Call) -> None:
    while True:
        await call.raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
        await asyncio.sleep(0)


@behaviour
async def endless_stream(call: Call) -> None:
    await call.head()
    while True:
        await call.chunk(event("more") * 1000)


@behaviour
async def endless_event(call: Call) -> None:
    await call.head()
    await call.chunk(b'data: {"choices":[{"delta":{"content":"')
    while True:
        await call.chunk(b"w" * 100_000)


@behaviour
async def endless_whole(call: Call) -> None:
    await call.head("200 OK", "application/json")
    while True:
        await call.chunk(b"[" * 100_000)


@behaviour
async def bomb(call: Call) -> bool:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join(squeeze.compress(b"0" * 2**20) for _ in range(200)) + squeeze.flush()
    return await call.whole(body, "200 OK", "application/json", "content-encoding: gzip")


@behaviour
async def gzip_cut(call: Call) -> bool:
    return await call.whole(
        gzip.compress(STREAM)[:-20], "200 OK", "text/event-stream", "content-encoding: gzip"
    )


@behaviour
async def gzip_lie(call: Call) -> bool:
    return await call.whole(STREAM, "200 OK", "text/event-stream", "content-encoding: gzip")


@behaviour
async def brotli(call: Call) -> bool:
    return await call.whole(STREAM, "200 OK", "text/event-stream", "content-encoding: br")

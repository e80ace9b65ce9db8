"""Answers that are right but unusual, and refusals: what `hostile` files under their names."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib

from servers.hostile import DONE, ROLE, STREAM, WHOLE, Call, behaviour, event

# --- good answers, in unusual forms --------------------------------------------------------------


@behaviour
async def good(call: Call) -> bool:
    await call.head()
    await call.chunk(STREAM)
    return await call.close_chunks()


@behaviour
async def good_whole(call: Call) -> bool:
    return await call.whole(WHOLE)


@behaviour
async def every_byte_alone(call: Call) -> bool:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(STREAM), STREAM)
    await call.pieces([bytes([b]) for b in head + body])
    return True


@behaviour
async def crlf_comments_and_split_data(call: Call) -> bool:
    await call.head()
    await call.chunk(b": a comment\r\n\r\nretry: 5\r\nid: 7\r\n\r\n")
    await call.chunk(b'data: {"choices":[{"delta":\r\ndata: {"content":"a"}}]}\r\n\r\n')
    await call.chunk(
        event("b").replace(b"\n", b"\r\n") + b": ping\r\n\r\n" + event("c").replace(b"\n", b"\r")
    )
    await call.chunk(event(finish="length").replace(b"\n", b"\r\n") + DONE.replace(b"\n", b"\r\n"))
    return await call.close_chunks()


@behaviour
async def no_done(call: Call) -> bool:
    await call.head()
    await call.chunk(ROLE + event("a") + event(finish="stop"))
    return await call.close_chunks()


@behaviour
async def until_close(call: Call) -> None:
    await call.raw(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + STREAM)


@behaviour
async def informational_first(call: Call) -> bool:
    await call.raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
    await asyncio.sleep(0.01)
    return await good(call) or False


@behaviour
async def gzipped(call: Call) -> bool:
    return await call.whole(gzip.compress(STREAM), "200 OK", "text/event-stream", "content-encoding: gzip")


@behaviour
async def deflated_whole(call: Call) -> bool:
    return await call.whole(zlib.compress(WHOLE), "200 OK", "application/json", "content-encoding: deflate")


@behaviour
async def keep_alive_closed_between(call: Call) -> bool:
    await good(call)
    return False  # after a good answer, without having said so


@behaviour
async def close_announced(call: Call) -> bool:
    await call.head("200 OK", "text/event-stream", "connection: close")
    await call.chunk(STREAM)
    await call.close_chunks()
    return False


@behaviour
async def fifty_megabytes(call: Call) -> bool:
    text = b"x" * 65536
    body = b'{"choices":[{"message":{"content":"' + text
    end = b'"},"finish_reason":"length"}],"usage":{"prompt_tokens":5,"completion_tokens":9}}'
    times = 50 * 16
    await call.head("200 OK", "application/json", length=len(body) + times * len(text) + len(end))
    await call.raw(body)
    for _ in range(times):
        await call.raw(text)
    await call.raw(end)
    return True


@behaviour
async def fifty_megabyte_stream(call: Call) -> bool:
    await call.head()
    for _ in range(50):
        await call.chunk(event("y" * 1000) * 1000)
    await call.chunk(event(finish="stop") + DONE)
    return await call.close_chunks()


@behaviour
async def four_megabyte_event(call: Call) -> bool:
    await call.head()
    await call.chunk(event("z" * 4_000_000) + event(finish="stop"))
    return await call.close_chunks()


# --- refusals ---------------------------------------------------------------------------------------


@behaviour
async def status_500(call: Call) -> bool:
    return await call.whole(b'{"error":{"message":"engine is dead","code":500}}', "500 Internal Server Error")


@behaviour
async def status_503_html(call: Call) -> bool:
    return await call.whole(b"<html>\n<h1>no  healthy upstream</h1></html>", "503 Unavailable", "text/html")


@behaviour
async def quotes_the_key(call: Call) -> bool:
    key = call.server.heads["quotes_the_key"].split(b"Bearer ")[1].split(b"\r\n")[0].decode()
    return await call.whole(json.dumps({"message": f"bad key {key} given"}).encode(), "401 Unauthorized")


@behaviour
async def redirect(call: Call) -> bool:
    return await call.whole(b"", "307 Temporary Redirect", "text/plain", "location: /good/v1/x")


@behaviour
async def huge_error(call: Call) -> bool:
    return await call.whole(b"oops " * 200_000, "500 Internal Server Error", "text/plain")


@behaviour
async def endless_error(call: Call) -> None:
    await call.head("500 Internal Server Error", "text/plain")
    while True:
        await call.chunk(b"oops " * 10_000)


@behaviour
async def cut_error(call: Call) -> None:
    await call.head("502 Bad Gateway", "text/plain")
    await call.chunk(b"upstream went")

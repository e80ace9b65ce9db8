"""A server that costs next to nothing: what the client is measured against.

It answers any POST with bytes rendered before the first request: a stream of `tokens` chunks in the
form of OpenAI's chat API, or one whole completion if the request asks for no stream. Chunks go out
`bunch` at a time, each bunch `gap_s` after the one before it (all at once without a gap), the first
`first_s` after the request. Instants are kept per request if asked for, on the clock that the client
uses too, and handed out by `GET /log`; `GET /seen` tells when this process came to look. Any other GET
names the one model there is, for clients that ask.

When a request was received is what the kernel says of its last bytes where it does (Linux), not when this
process, busy with other answers, came to look: a log says what the network brought, and that alone.

    python -m raybench.client.null_server --tokens 64 --gap 0.01     prints its port, then serves
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import re
import socket
import struct
import sys
from array import array
from dataclasses import dataclass
from time import monotonic_ns, time_ns
from typing import Any

_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*(\d+)")
_ID = re.compile(rb"(?i)\r\nx-request-id:[ \t]*([^\r\n]*)")
_WHOLE = re.compile(rb'"stream":\s*false')
_TIMESTAMPNS = 35
"""Linux's SO_TIMESTAMPNS, of the control message too: the wall clock's instant, seconds and nanoseconds."""
_TIMESPEC = struct.Struct("@ll")


@dataclass(frozen=True)
class Answer:
    """What the server says, and when."""

    tokens: int = 64
    bunch: int = 1  # chunks in one write
    first_s: float = 0.0  # from the request to the first bunch
    gap_s: float = 0.0  # between bunches; 0 writes all at once

    def events(self) -> list[bytes]:
        """The stream's events: the role, one per token, the finish, the usage, the end."""

        def event(choices: list[dict[str, object]], usage: object = None) -> bytes:
            body = {
                "id": "chatcmpl-00000000",
                "object": "chat.completion.chunk",
                "created": 1700000000,
                "model": "null",
                "choices": choices,
            }
            text = json.dumps(body | ({"usage": usage} if usage else {}), separators=(",", ":"))
            return f"data: {text}\n\n".encode()

        def delta(content: dict[str, str], finish: str | None = None) -> list[dict[str, object]]:
            return [{"index": 0, "delta": content, "logprobs": None, "finish_reason": finish}]

        words = [" the", " schedule", " never", " bends", " to", " a", " server", "."]
        usage = {"prompt_tokens": 8, "completion_tokens": self.tokens, "total_tokens": 8 + self.tokens}
        return [
            event(delta({"role": "assistant", "content": ""})),
            *(event(delta({"content": words[i % len(words)]})) for i in range(self.tokens)),
            event(delta({}, "stop")),
            event([], usage),
            b"data: [DONE]\n\n",
        ]

    def writes(self) -> list[bytes]:
        """The stream's body cut as it will be written, in HTTP chunks of one event each."""
        role, *middle, finish, usage, end = (b"%x\r\n%b\r\n" % (len(e), e) for e in self.events())
        bunches = [b"".join(middle[i : i + self.bunch]) for i in range(0, len(middle), self.bunch)]
        tail = finish + usage + end + b"0\r\n\r\n"
        if not bunches:
            return [role + tail]
        bunches[0] = role + bunches[0]
        bunches[-1] += tail
        return bunches if self.gap_s else [b"".join(bunches)]

    def whole(self) -> bytes:
        body = json.dumps(
            {
                "id": "chatcmpl-00000000",
                "object": "chat.completion",
                "created": 1700000000,
                "model": "null",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "word " * self.tokens},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {
                    "prompt_tokens": 8,
                    "completion_tokens": self.tokens,
                    "total_tokens": 8 + self.tokens,
                },
            }
        ).encode()
        return _head(b"application/json", len(body)) + body


def _head(kind: bytes, length: int | None) -> bytes:
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nx-raybench-replica: null\r\n%b\r\n\r\n" % (kind, framing)


class Kept:
    """What all connections of one server share."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: Answer, log: bool) -> None:
        self.loop = loop
        self.answer = answer
        self.writes = answer.writes()
        self.writes[0] = _head(b"text/event-stream", None) + self.writes[0]
        self.whole = answer.whole()
        self.log: dict[str, array[int]] | None = {} if log else None  # id -> received, then each write
        self.seen: dict[str, int] = {}  # id -> when this process came to look, if there is a log


class NullProtocol(asyncio.Protocol):
    """One connection of the null server."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.transport: Any = None
        self.fd = -1
        self.stamped: socket.socket | None = None
        self.pending = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        own = transport.get_extra_info("socket")
        self.fd = own.fileno()
        if self.kept.log is not None and sys.platform == "linux":
            self.kept.loop.call_soon(self._read_stamps)  # uvloop begins to read after this call

    def connection_lost(self, exc: BaseException | None) -> None:
        self.transport = None
        if self.stamped is not None:
            self.kept.loop.remove_reader(self.stamped)
            self.stamped.close()

    def _read_stamps(self) -> None:
        """The transport does not read the kernel's stamps, so it is not to read at all."""
        if self.transport is not None:
            self.transport.pause_reading()
            self.stamped = socket.socket(fileno=os.dup(self.fd))
            self.kept.loop.add_reader(self.stamped, self._readable)

    def data_received(self, data: bytes) -> None:
        self._received(data, monotonic_ns())

    def _readable(self) -> None:
        assert self.stamped is not None
        try:
            data, told, _, _ = self.stamped.recvmsg(2**16, 64)
        except BlockingIOError:
            return
        except OSError:
            data, told = b"", []
        now_ns = monotonic_ns()
        if not data:
            self.transport.abort()
            return
        for level, kind, stamp in told:
            if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMPNS):
                s, ns = _TIMESPEC.unpack(stamp)
                now_ns = min(now_ns, s * 1_000_000_000 + ns - _wall_ahead_ns())
        self._received(data, now_ns)

    def _received(self, data: bytes, now_ns: int) -> None:
        if self.pending:
            data = self.pending + data
            self.pending = b""
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            length = _LENGTH.search(data, 0, end)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(data) >= size:
                if data.startswith(b"GET "):
                    self._tell(data.split(b" ", 2)[1])
                else:
                    self._answer(data, end, now_ns)
                return
        self.pending = data

    def _answer(self, request: bytes, end: int, now_ns: int) -> None:
        kept, answer = self.kept, self.kept.answer
        stamps = None
        if kept.log is not None:
            found = _ID.search(request, 0, end)
            name = found[1].decode() if found else f"unnamed-{len(kept.log)}"
            stamps = kept.log[name] = array("q", (now_ns,))
            kept.seen[name] = monotonic_ns()
        if _WHOLE.search(request, end):
            self._write(kept.whole, stamps)
        elif answer.first_s or answer.gap_s:
            self._paced(0, now_ns / 1e9 + answer.first_s, stamps)
        else:
            self._write(kept.writes[0], stamps)

    def _paced(self, i: int, due_s: float, stamps: array[int] | None) -> None:
        """Writes bunch i when it is due; instants are counted from the request, so none adds up."""
        if self.transport is None:
            return
        kept = self.kept
        wait_s = due_s - monotonic_ns() / 1e9
        if wait_s <= 0:
            self._write(kept.writes[i], stamps)
            i += 1
            if i == len(kept.writes):
                return
            due_s += kept.answer.gap_s
            wait_s = max(0.0, due_s - monotonic_ns() / 1e9)
        kept.loop.call_later(wait_s, self._paced, i, due_s, stamps)

    def _write(self, data: bytes, stamps: array[int] | None) -> None:
        if stamps is not None:
            stamps.append(monotonic_ns())
        wrote = 0
        if not self.transport.get_write_buffer_size():
            try:
                wrote = os.write(self.fd, data)
            except BlockingIOError:
                pass
            except OSError:
                self.transport.abort()
                return
        if wrote < len(data):
            self.transport.write(data[wrote:])

    def _tell(self, path: bytes) -> None:
        told: dict[str, object] = {"object": "list", "data": [{"id": "null", "object": "model"}]}
        if path == b"/log":
            told = {name: stamps.tolist() for name, stamps in (self.kept.log or {}).items()}
        elif path == b"/seen":
            told = dict(self.kept.seen)
        body = json.dumps(told).encode()
        self.transport.write(_head(b"application/json", len(body)) + body)


def _wall_ahead_ns() -> int:
    """The wall clock less the monotonic one, now. What passes between the two looks makes it too small,
    and right after a sleep that is many microseconds: so the greatest of a few."""
    return max(time_ns() - monotonic_ns() for _ in range(3))


async def listen(
    answer: Answer, *, host: str = "127.0.0.1", port: int = 0, log: bool = False
) -> asyncio.Server:
    """A null server on the running loop; its port is `server.sockets[0].getsockname()[1]`."""
    loop = asyncio.get_running_loop()
    kept = Kept(loop, answer, log)
    server = await loop.create_server(lambda: NullProtocol(kept), host, port, backlog=8192)
    if log and sys.platform == "linux":
        for listening in server.sockets:  # what it accepts has its options
            listening.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
    return server


def main() -> None:
    """Serves until standard input closes, so that it cannot outlive whoever started it."""
    import uvloop

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--tokens", type=int, default=64)
    options.add_argument("--bunch", type=int, default=1)
    options.add_argument("--first", type=float, default=0.0, help="seconds from request to first chunk")
    options.add_argument("--gap", type=float, default=0.0, help="seconds between bunches")
    options.add_argument("--log", action="store_true")
    options.add_argument("--core", type=int, help="the processor core to stay on")
    given = options.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    # The table of files grows now, not while requests wait: see `make_room_for_sockets` of the generator.
    with contextlib.suppress(OSError):
        os.close(fcntl.fcntl(sys.stdin, fcntl.F_DUPFD_CLOEXEC, 2**13 - 1))
    answer = Answer(given.tokens, given.bunch, given.first, given.gap)

    async def serve() -> None:
        server = await listen(answer, port=given.port, log=given.log)
        print(server.sockets[0].getsockname()[1], flush=True)
        closed = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), closed.set)
        await closed.wait()

    uvloop.run(serve())


if __name__ == "__main__":
    main()

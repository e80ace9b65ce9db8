"""The null server's own record: what the kernel says of a request, and when the process came to look."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time

import pytest
import uvloop

from raybench.client.null_server import Answer, listen

MS = 1_000_000
POST = b"POST / HTTP/1.1\r\nhost: n\r\nx-request-id: 7\r\ncontent-length: 2\r\n\r\n{}"


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: bytes) -> dict[str, object]:
    writer.write(b"GET %b HTTP/1.1\r\nhost: n\r\n\r\n" % path)
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    told: dict[str, object] = json.loads(await reader.readexactly(size))
    return told


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's stamps are Linux's")
def test_a_request_was_received_when_its_bytes_came_not_when_a_busy_server_looked() -> None:
    async def main() -> tuple[int, int, int, list[int], int]:
        server = await listen(Answer(tokens=3, gap_s=0.001), log=True)
        port = server.sockets[0].getsockname()[1]
        raw = socket.create_connection(("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=raw)
        await _get(reader, writer, b"/v1/models")  # the connection is being read; stamps are on
        await asyncio.sleep(0.05)
        before_ns = time.monotonic_ns()
        raw.send(POST)  # at once: uvloop would write at the end of a turn
        written_ns = time.monotonic_ns()
        time.sleep(0.1)  # client and server share this loop: now the server is busy
        busy_ns = time.monotonic_ns()
        while b"[DONE]" not in await reader.read(2**16):
            pass
        log = await _get(reader, writer, b"/log")
        seen = await _get(reader, writer, b"/seen")
        writer.close()
        server.close()
        return before_ns, written_ns, busy_ns, log["7"], seen["7"]  # type: ignore[return-value]

    before_ns, written_ns, busy_ns, (received_ns, *writes), seen_ns = uvloop.run(main())
    # The kernel's stamp is of another clock: its difference is looked up, to the microsecond or so.
    assert before_ns - MS <= received_ns <= written_ns + MS < busy_ns <= seen_ns <= writes[0]
    assert len(writes) == 3 and writes == sorted(writes)

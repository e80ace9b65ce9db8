"""A sender that spins on the clock and writes, and does nothing else: what machine and server allow.

    python busy_sender.py HOST:PORT REQUESTS RATE

Prints t0 on the monotonic clock, ns, as JSON. Answers are thrown away, just before a connection is used
again a second later.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time

BODY = b'{"stream":true}'


def main(address: str, requests: int, rate_per_s: float) -> None:
    host, port = address.rsplit(":", 1)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: null\r\n"
    messages = [
        b"%bx-request-id: %d\r\ncontent-length: %d\r\n\r\n%b" % (head, i, len(BODY), BODY)
        for i in range(requests)
    ]
    connections = [socket.create_connection((host, int(port))) for _ in range(int(rate_per_s) + 20)]
    for connection in connections:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
    t0_ns = time.monotonic_ns() + 200_000_000
    print(json.dumps({"t0_ns": t0_ns}), flush=True)
    for i, message in enumerate(messages):
        due_ns = t0_ns + round(i * 1e9 / rate_per_s)
        connection = connections[i % len(connections)]
        with contextlib.suppress(BlockingIOError):
            connection.recv(1 << 20)
        while time.monotonic_ns() < due_ns:
            pass
        connection.send(message)
    time.sleep(1.0)  # the last answers are under way


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))

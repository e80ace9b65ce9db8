"""A server of a metrics page that behaves as it is told, request by request.

    with PageServer(page=vllm(running=3, waiting=1)) as server:
        server.url          # http://127.0.0.1:PORT
        server.behaviour = "status_500"

It answers on loopback only; `asked` counts requests, `heads` keeps their heads.
"""

from __future__ import annotations

import gzip
import socket
import threading
import time
from contextlib import suppress
from typing import Any


def vllm(*engines: dict[str, float], model: str = "m", kv_name: str = "kv_cache_usage_perc") -> bytes:
    """A page as vLLM writes one: running, waiting and kv of each engine; a missing key, a missing line."""
    names = {"running": "num_requests_running", "waiting": "num_requests_waiting", "kv": kv_name}
    lines = ["# HELP python_gc_objects_collected_total x", "# TYPE python_gc_objects_collected_total counter"]
    lines += ['python_gc_objects_collected_total{generation="0"} 12.0']
    for key, name in names.items():
        lines += [f"# HELP vllm:{name} Number of things.", f"# TYPE vllm:{name} gauge"]
        for number, figures in enumerate(engines):
            if key in figures:
                lines.append(f'vllm:{name}{{engine="{number}",model_name="{model}"}} {figures[key]}')
    lines += ["# TYPE vllm:num_requests_waiting_by_reason gauge"]
    lines += [
        f'vllm:num_requests_waiting_by_reason{{engine="0",model_name="{model}",reason="capacity"}} 77.0'
    ]
    lines += ["# TYPE vllm:e2e_request_latency_seconds histogram"]
    lines += [f'vllm:e2e_request_latency_seconds_bucket{{le="{b}",model_name="{model}"}} 4.0' for b in (1, 2)]
    return ("\n".join(lines) + "\n").encode()


class PageServer:
    """`behaviour`: good, or the name of one of the methods below that begin with `_do_`."""

    def __init__(self, page: bytes = b"", behaviour: str = "good") -> None:
        self.page, self.behaviour = page, behaviour
        self.asked = 0
        self.heads: list[bytes] = []
        self._stop = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> PageServer:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nobody listens from now on."""
        self._stop.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(30)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    return
                head += piece
            self.asked += 1
            self.heads.append(head)
            getattr(self, f"_do_{self.behaviour}")(connection)

    def _say(self, connection: Any, body: bytes, status: str = "200 OK", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def _do_good(self, connection: Any) -> None:
        self._say(connection, self.page)

    def _do_status_500(self, connection: Any) -> None:
        self._say(connection, b"engine is dead", "500 Internal Server Error")

    def _do_redirect(self, connection: Any) -> None:
        self._say(connection, b"", "307 Temporary Redirect", f"location: {self.url}/elsewhere")

    def _do_garbage(self, connection: Any) -> None:
        self._say(connection, bytes(range(256)) * 40)

    def _do_broken_lines(self, connection: Any) -> None:
        self._say(connection, b'vllm:num_requests_running{engine="0",mo 1.0\n')

    def _do_no_http(self, connection: Any) -> None:
        connection.sendall(b"220 mail.example ESMTP\r\n")

    def _do_cut(self, connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + self.page[:100])

    def _do_packed(self, connection: Any) -> None:
        self._say(connection, gzip.compress(self.page), "200 OK", "content-encoding: gzip")

    def _do_silent(self, connection: Any) -> None:
        self._stop.wait(20)

    def _do_slow_head(self, connection: Any) -> None:
        """A byte now and then: each read succeeds, the whole never ends."""
        for byte in b"HTTP/1.1 200 OK\r\nx-y: " + b"z" * 1000:
            connection.sendall(bytes([byte]))
            if self._stop.wait(0.05):
                return

    def _do_slow_page(self, connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not self._stop.wait(0.05):
            connection.sendall(b"#")

    def _do_endless_page(self, connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        self._pour(connection, b"# a comment of no interest\n" * 2000)

    def _do_endless_head(self, connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        self._pour(connection, b"x-another: header\r\n" * 2000)

    def _do_endless_line(self, connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nvllm:num_requests_running{engine=")
        self._pour(connection, b"\\" * 65536)

    def _pour(self, connection: Any, data: bytes) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until and not self._stop.is_set():
            connection.sendall(data)

"""The client's connections: kept, replaced, in turn, over IPv6 and TLS; timeouts, cancelling, answers."""

from __future__ import annotations

import gc
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from httptools import HttpResponseParser
from servers.asking import BODY, PATH, ask
from servers.hostile import HostileServer

from raybench.client import Client, Endpoint, Exchange
from raybench.client.connection import Connection
from raybench.client.openai import glance
from raybench.client.whole import HEAD
from raybench.schema import Outcome


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


def test_as_many_connections_as_requests_at_once(server: HostileServer) -> None:
    before = server.connections
    exchanges = ask(server.url("good"), requests=300, at_once=150)
    assert [e.outcome for e in exchanges] == [Outcome.OK] * 300
    assert 100 <= server.connections - before <= 200  # no cap, and none opened that is not needed


def test_endpoints_take_turns(server: HostileServer) -> None:
    server.requests.clear()
    ask([server.url("good"), server.url("no_done"), server.url("good_whole")], requests=9)
    assert server.requests == {"good": 3, "no_done": 3, "good_whole": 3}


def test_request_ids_and_bodies_of_any_size(server: HostileServer) -> None:
    body = b'{"x":"' + b"y" * 5_000_000 + b'"}'
    (exchange,) = ask(server.url("good"), body=body, run_prefix="r-")
    assert exchange.outcome is Outcome.OK
    assert server.bodies["good"] == body
    assert b"\r\nx-request-id: r-0\r\n" in server.heads["good"]


def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        with HostileServer("::1") as server:
            (exchange,) = ask(server.url("good"))
    except (AssertionError, OSError):
        pytest.skip("no IPv6 loopback here")
    assert exchange.outcome is Outcome.OK


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext"]
    command += ["subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl here")
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture(scope="module")
def tls_server(certificate: Path) -> Iterator[HostileServer]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with HostileServer(tls=context) as server:
        yield server


def test_tls(tls_server: HostileServer, certificate: Path) -> None:
    trusted = ssl.create_default_context(cafile=f"{certificate}.crt")
    before = tls_server.connections
    for name in ("good", "good_whole", "fifty_megabyte_stream"):
        exchanges = ask(tls_server.url(name), requests=3, tls=trusted)
        assert [e.outcome for e in exchanges] == [Outcome.OK] * 3, exchanges[0].error
    assert tls_server.connections - before == 3
    (exchange,) = ask(tls_server.url("cut_mid_stream"), tls=trusted)
    assert (exchange.outcome, exchange.chunks) == (Outcome.STREAM_CUT, 2)


def test_tls_that_cannot_be_trusted(tls_server: HostileServer) -> None:
    (exchange,) = ask(tls_server.url("good"))
    assert exchange.outcome is Outcome.CONNECT_ERROR
    assert "certificate verify failed" in (exchange.error or "")


def test_plain_spoken_to_a_tls_server(tls_server: HostileServer) -> None:
    (exchange,) = ask(tls_server.url("good").replace("https", "http"), timeout_s=5)
    assert exchange.outcome in (Outcome.PROTOCOL_ERROR, Outcome.CONNECT_ERROR)


def test_a_name_that_means_nothing() -> None:
    (exchange,) = ask("http://no-such-host.invalid")
    assert exchange.outcome is Outcome.CONNECT_ERROR
    assert "cannot resolve no-such-host.invalid" in (exchange.error or "")
    assert exchange.connected_ns is None and exchange.done_ns is not None


def test_the_timeout_covers_connecting() -> None:
    """A listener whose queue is full never completes the handshake."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        (exchange,) = ask(f"http://127.0.0.1:{port}", timeout_s=0.3)
        for filler in fillers:
            filler.close()
    assert (exchange.outcome, exchange.connected_ns) == (Outcome.TIMEOUT, None)
    assert exchange.done_ns is not None and exchange.done_ns - exchange.sent_ns >= 0.3e9


def test_each_timeout_counts_from_its_own_sending(server: HostileServer) -> None:
    exchanges = ask(server.url("never_answers"), requests=4, at_once=2, timeout_s=0.15)
    for exchange in exchanges:
        assert exchange.outcome is Outcome.TIMEOUT and exchange.done_ns is not None
        assert exchange.done_ns - exchange.sent_ns >= 0.15e9
    assert [e.request_id for e in exchanges] == [0, 1, 2, 3]


def test_cancelling_ends_all_that_is_in_flight(server: HostileServer) -> None:
    def give_up(client: Client, exchange: Exchange) -> None:
        if exchange.outcome is Outcome.TIMEOUT:
            client.cancel()

    urls = [server.url("never_answers"), "http://192.0.2.1:9"]  # a network that is not there
    exchanges = ask(urls, requests=6, at_once=6, timeout_s=0.2, between=give_up)
    outcomes = [e.outcome for e in exchanges]
    assert set(outcomes) <= {Outcome.TIMEOUT, Outcome.CANCELLED, Outcome.CONNECT_ERROR}
    assert len(exchanges) == 6


def test_no_connection_outlives_its_client_as_garbage(server: HostileServer) -> None:
    """The collector is off in a run: counting references must do."""
    ask(server.url("good"), requests=2)
    gc.collect()
    gc.disable()
    try:
        for name in (
            "good",
            "cut_mid_stream",
            "garbage",
            "status_500",
            "error_inside_200",
            "close_announced",
        ):
            ask(server.url(name), requests=3)
        alive = [o for o in gc.get_objects() if isinstance(o, (Connection, HttpResponseParser))]
        assert alive == []
    finally:
        gc.enable()


def test_a_connection_reset_while_idle_is_replaced(server: HostileServer) -> None:
    """The server's close is noticed even when the loop had no turn to see it."""
    loop = uvloop.new_event_loop()
    endpoint = Endpoint.parse(server.url("keep_alive_closed_between"), PATH)
    client = Client([endpoint], timeout_s=5, loop=loop, record_chunks=False)
    ended: list[Exchange] = []

    def done(exchange: Exchange) -> None:
        ended.append(exchange)
        if len(ended) < 6:
            time.sleep(0.05)  # the loop sleeps through the server's closing, and sends before it reads
            client.send(len(ended), BODY, done)
        else:
            loop.stop()

    loop.call_soon(client.send, 0, BODY, done)
    loop.run_forever()
    client.close()
    loop.call_later(0, loop.stop)
    loop.run_forever()
    loop.close()
    assert [e.outcome for e in ended] == [Outcome.OK] * 6


@pytest.mark.parametrize("size", [0, HEAD, 3 * HEAD])
def test_large_answers_are_searched_like_small_ones_are_parsed(size: int) -> None:
    said = b'\\"usage\\":{\\"completion_tokens\\":1} \\"finish_reason\\":\\"no\\"'
    usage = b'"usage": {"prompt_tokens":1,"completion_tokens":77}'
    text = b'"message":{"content":"' + said + b"x" * size + b'"}'
    for body in (
        b'{"choices":[{' + text + b',"finish_reason":"stop"}],' + usage + b"}",
        b"{" + usage + b',"choices":[{"finish_reason":"stop",' + text + b"}]}",
    ):
        found = glance(body[:HEAD], body[-65536:])
        assert (found.usage, found.finish_reason, found.choices) == ((1, 77), "stop", True)


def test_arguments_that_make_no_sense() -> None:
    loop = uvloop.new_event_loop()
    endpoint = Endpoint.parse("http://h.invalid", PATH)
    for endpoints, timeout_s, prefix in (
        ([], 1.0, ""),
        ([endpoint], 0.0, ""),
        ([endpoint], 1.0, "a\r\nb: c"),
    ):
        with pytest.raises(ValueError):
            Client(endpoints, timeout_s=timeout_s, loop=loop, record_chunks=True, run_prefix=prefix)
    loop.close()

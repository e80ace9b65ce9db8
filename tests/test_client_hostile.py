"""Each way a server can misbehave has one outcome, a reason in words, an end in time and a bound."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
from servers.asking import ask
from servers.hostile import BEHAVIOURS, STREAM, HostileServer

from raybench.schema import Outcome

LIMIT = 4 * 2**20  # bytes of an answer where the endless ones are concerned
O = Outcome  # noqa: E741

# behaviour -> outcome, a part of the reason, chunks that arrived
EXPECTED: dict[str, tuple[Outcome, str, int]] = {
    "good": (O.OK, "", 3),
    "good_whole": (O.OK, "", 0),
    "every_byte_alone": (O.OK, "", 3),
    "crlf_comments_and_split_data": (O.OK, "", 3),
    "no_done": (O.OK, "", 1),
    "until_close": (O.OK, "", 3),
    "informational_first": (O.OK, "", 3),
    "gzipped": (O.OK, "", 3),
    "deflated_whole": (O.OK, "", 0),
    "keep_alive_closed_between": (O.OK, "", 3),
    "close_announced": (O.OK, "", 3),
    "status_500": (O.HTTP_ERROR, "status 500: engine is dead", 0),
    "status_503_html": (O.HTTP_ERROR, "status 503: <html> <h1>no healthy upstream</h1></html>", 0),
    "redirect": (O.HTTP_ERROR, "status 307: redirect to /good/v1/x, not followed", 0),
    "huge_error": (O.HTTP_ERROR, "status 500: oops oops", 0),
    "endless_error": (O.HTTP_ERROR, "status 500: oops", 0),
    "cut_error": (O.HTTP_ERROR, "status 502: upstream went", 0),
    "never_answers": (O.TIMEOUT, "within 0.3 s", 0),
    "stalls_mid_stream": (O.TIMEOUT, "within 0.3 s", 1),
    "cut_mid_stream": (O.STREAM_CUT, "connection closed by the server after", 2),
    "reset_mid_stream": (O.STREAM_CUT, "reset", 1),
    "cut_inside_chunk": (O.STREAM_CUT, "connection closed by the server after", 1),
    "cut_inside_head": (O.STREAM_CUT, "inside the response head", 0),
    "closes_before_answer": (O.CONNECT_ERROR, "before the answer began", 0),
    "resets_before_answer": (O.CONNECT_ERROR, "before the answer began", 0),
    "ends_without_finish": (O.STREAM_CUT, "after 2 chunks, without finish reason", 2),
    "error_inside_200": (O.STREAM_CUT, "the server said: CUDA out of memory", 1),
    "named_error_event": (O.STREAM_CUT, "the server said: overloaded, sorry", 1),
    "error_body_in_200": (O.PROTOCOL_ERROR, "an error with status 200: no such model", 0),
    "page_in_200": (O.PROTOCOL_ERROR, "(text/html) is not a completion: <html>Welcome", 0),
    "empty_stream": (O.PROTOCOL_ERROR, "empty answer", 0),
    "done_only": (O.PROTOCOL_ERROR, "empty answer", 0),
    "empty_body": (O.PROTOCOL_ERROR, "empty answer", 0),
    "no_content": (O.PROTOCOL_ERROR, "empty answer", 0),
    "garbage": (O.PROTOCOL_ERROR, "not HTTP/1.1", 0),
    "garbage_event": (O.PROTOCOL_ERROR, "not JSON: <html>", 1),
    "garbage_chunk_size": (O.PROTOCOL_ERROR, "not HTTP/1.1: Invalid character in chunk size", 1),
    "length_too_long": (O.PROTOCOL_ERROR, "fewer than its content-length", 3),
    "length_too_short": (O.PROTOCOL_ERROR, "bytes after the end", 3),
    "two_lengths": (O.PROTOCOL_ERROR, "not HTTP/1.1", 0),
    "second_answer": (O.PROTOCOL_ERROR, "a second answer", 0),
    "switches_protocols": (O.PROTOCOL_ERROR, "switched protocols", 0),
    "huge_header": (O.PROTOCOL_ERROR, "head of more than 65536 bytes", 0),
    "endless_headers": (O.PROTOCOL_ERROR, "head of more than 65536 bytes", 0),
    "endless_informational": (O.PROTOCOL_ERROR, "head of more than 65536 bytes", 0),
    "endless_stream": (O.PROTOCOL_ERROR, f"more than {LIMIT} bytes", -1),
    "endless_event": (O.PROTOCOL_ERROR, "bytes", 0),
    "endless_whole": (O.PROTOCOL_ERROR, f"more than {LIMIT} bytes", 0),
    "bomb": (O.PROTOCOL_ERROR, f"more than {LIMIT} bytes", 0),
    "gzip_cut": (O.STREAM_CUT, "breaks off", -1),
    "gzip_lie": (O.PROTOCOL_ERROR, "not the compression it says", 0),
    "brotli": (O.PROTOCOL_ERROR, "content-encoding br", 0),
    "four_megabyte_event": (O.PROTOCOL_ERROR, f"more than {LIMIT} bytes", -1),
}
LARGE = {"fifty_megabytes", "fifty_megabyte_stream", "quotes_the_key"}  # tests of their own
SLOW = {"never_answers", "stalls_mid_stream"}


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


def test_every_behaviour_is_expected_to_do_something() -> None:
    assert set(EXPECTED) | LARGE == set(BEHAVIOURS)


@pytest.mark.parametrize("name", EXPECTED)
def test_outcome_and_reason(server: HostileServer, name: str) -> None:
    outcome, reason, chunks = EXPECTED[name]
    timeout_s = 0.3 if name in SLOW else 20.0
    limit = LIMIT if name != "four_megabyte_event" else LIMIT - 2**20
    reason = reason.replace(str(LIMIT), str(limit))
    (exchange,) = ask(server.url(name), timeout_s=timeout_s, max_answer_bytes=limit)
    assert (exchange.outcome, reason in (exchange.error or "")) == (outcome, True), exchange.error
    assert exchange.done_ns is not None
    if chunks >= 0:
        assert exchange.chunks == chunks
    assert (exchange.chunks > 0) == (exchange.first_token_ns is not None)
    instants = [exchange.sent_ns, exchange.connected_ns, exchange.headers_ns, exchange.first_token_ns]
    instants += [exchange.last_token_ns, exchange.done_ns]
    happened = [t for t in instants if t is not None]
    assert happened == sorted(happened)
    if outcome is O.TIMEOUT:
        assert exchange.done_ns - exchange.sent_ns >= 0.3e9
    if outcome is O.OK:
        assert exchange.error is None
    else:
        assert exchange.error is not None and len(exchange.error) < 500


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in SLOW])
def test_a_good_answer_still_comes_after_a_bad_one(server: HostileServer, name: str) -> None:
    """Whatever happened before, the next request is not hit by what is left of it."""
    exchanges = ask([server.url(name), server.url("good")], requests=4, timeout_s=20, max_answer_bytes=LIMIT)
    for exchange in exchanges[1::2]:
        assert (exchange.outcome, exchange.chunks, exchange.bytes) == (O.OK, 3, len(STREAM)), exchange.error


def test_usage_finish_reason_and_replica(server: HostileServer) -> None:
    for name in ("good", "good_whole", "gzipped", "deflated_whole", "until_close"):
        (exchange,) = ask(server.url(name))
        assert (exchange.prompt_tokens, exchange.output_tokens, exchange.finish_reason) == (5, 3, "stop"), (
            name
        )
        assert exchange.replica == (None if name == "until_close" else "r#1")
        assert exchange.http_status == 200


def test_a_whole_answer_to_a_stream_has_no_first_token(server: HostileServer) -> None:
    (exchange,) = ask(server.url("good_whole"))
    assert (exchange.outcome, exchange.first_token_ns, exchange.chunk_ns) == (O.OK, None, None)


def test_a_connection_closed_between_requests_is_replaced_silently(server: HostileServer) -> None:
    before = server.connections
    exchanges = ask(server.url("keep_alive_closed_between"), requests=5, pause_s=0.02)
    assert [e.outcome for e in exchanges] == [O.OK] * 5
    assert server.connections - before == 5


def test_a_kept_connection_is_used_again(server: HostileServer) -> None:
    before = server.connections
    exchanges = ask(server.url("good"), requests=20)
    assert [e.outcome for e in exchanges] == [O.OK] * 20
    assert server.connections - before == 1


def test_large_answers_are_read_within_bounds(server: HostileServer) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (exchange,) = ask(server.url("fifty_megabytes"))
    assert (exchange.outcome, exchange.output_tokens, exchange.finish_reason) == (O.OK, 9, "length")
    assert exchange.bytes > 50 * 2**20
    (exchange,) = ask(server.url("fifty_megabyte_stream"))
    assert (exchange.outcome, exchange.chunks) == (O.OK, 50_000), exchange.error
    # KiB; client and server share this process
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 1024


def test_one_large_event(server: HostileServer) -> None:
    (exchange,) = ask(server.url("four_megabyte_event"))
    assert (exchange.outcome, exchange.chunks, exchange.finish_reason) == (O.OK, 1, "stop")


def test_the_key_is_in_no_reason_and_no_repr(server: HostileServer) -> None:
    key = "sk-canary-0123456789"
    (exchange,) = ask(server.url("quotes_the_key"), api_key=key)
    assert b"Bearer " + key.encode() in server.heads["quotes_the_key"]
    assert exchange.error == "status 401: bad key *** given"


def test_a_client_that_gives_up_hangs_up(server: HostileServer) -> None:
    before = server.gone
    ask(server.url("never_answers"), timeout_s=0.1)
    ask(server.url("good"), requests=3, pause_s=0.05)
    assert server.gone > before

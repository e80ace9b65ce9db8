"""Addresses: base URLs joined with paths, headers, and a key that is never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raybench.client import Endpoint

PATH = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "target"),
    [
        ("http://h", "h", 80, False, PATH),
        ("http://h/", "h", 80, False, PATH),
        ("http://h/v1", "h", 80, False, PATH),
        ("http://h/v1/", "h", 80, False, PATH),
        ("http://h:8000/raybench", "h", 8000, False, "/raybench" + PATH),
        ("http://h:8000/raybench/v1/", "h", 8000, False, "/raybench" + PATH),
        ("https://api.example.com/v1", "api.example.com", 443, True, PATH),
        ("http://h/v1/chat/completions", "h", 80, False, PATH),
        ("http://127.0.0.1:1", "127.0.0.1", 1, False, PATH),
        ("http://[::1]:9000/v1", "::1", 9000, False, PATH),
        ("https://h/openai?api-version=2", "h", 443, True, "/openai" + PATH + "?api-version=2"),
        ("http://h/v11", "h", 80, False, "/v11" + PATH),
    ],
)
def test_base_urls(url: str, host: str, port: int, tls: bool, target: str) -> None:
    endpoint = Endpoint.parse(url, PATH)
    assert (endpoint.host, endpoint.port, endpoint.tls, endpoint.target) == (host, port, tls, target)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("h:80", "must begin with http"),
        ("ftp://h", "must begin with http"),
        ("http://", "has no host"),
        ("http://h:99999", "port must be"),
        ("http://h:x", "port must be"),
        ("http://user:pw@h", "must not hold a user name"),
        ("http://h/a b", "percent-encoded"),
        ("http://h/é", "percent-encoded"),
    ],
)
def test_what_is_wrong_with_an_url(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Endpoint.parse(url, PATH)


def test_the_head_of_a_request() -> None:
    endpoint = Endpoint.parse(
        "http://[::1]:9000/v1", PATH, {"X-Team": "llm", "User-Agent": "me"}, "sk-1234567"
    )
    lines = endpoint.head().decode().split("\r\n")
    assert lines[0] == "POST /v1/chat/completions HTTP/1.1"
    assert {
        "host: [::1]:9000",
        "authorization: Bearer sk-1234567",
        "x-team: llm",
        "user-agent: me",
        "accept-encoding: identity",
        "content-type: application/json",
    } <= set(lines)
    assert lines[-1] == "" and len(lines) == len(set(lines))


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "X-Request-Id", "Accept-Encoding"])
def test_headers_that_are_the_clients_own(name: str) -> None:
    with pytest.raises(ValueError, match="set by the client"):
        Endpoint.parse("http://h", PATH, {name: "1"})


@given(st.text(min_size=1), st.text())
def test_no_header_can_hold_another(name: str, value: str) -> None:
    try:
        head = Endpoint.parse("http://h", PATH, {name: value}).head()
    except ValueError as error:
        assert len(value) < 8 or value in name or value not in str(error)
        return
    assert head.count(b"\r\n") in (6, 7)  # six of its own, and one more unless it replaced one of them
    assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n")


def test_secrets_are_never_shown() -> None:
    endpoint = Endpoint.parse("https://h/v1", PATH, {"x-token": "canary-header"}, "canary-key")
    assert "canary" not in repr(endpoint) and "canary" not in str(endpoint)
    assert endpoint.hide("key canary-key, token canary-header.") == "key ***, token ***."
    for url in ("http://u:canary@h", "ftp://u:canary@h", "http://u:canary@h:x", "canary.example?key=canary2"):
        with pytest.raises(ValueError) as caught:
            Endpoint.parse(url, PATH)
        assert "u:canary" not in str(caught.value) and "canary2" not in str(caught.value)
    with pytest.raises(ValueError) as caught:
        Endpoint.parse("http://h", PATH, {}, "canary\n")
    assert "canary" not in str(caught.value)


def test_addresses_of_a_host() -> None:
    assert Endpoint.parse("http://127.0.0.1:80", PATH).addresses() == ["127.0.0.1"]
    assert Endpoint.parse("http://[::1]:80", PATH).addresses() == ["::1"]
    assert set(Endpoint.parse("http://localhost", PATH).addresses()) <= {"127.0.0.1", "::1"}

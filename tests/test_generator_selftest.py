"""The null server and the self-test: what they say of each other adds up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from servers.asking import ask
from slices import null_server
from slow_sse import read

from raybench.client.null_server import Answer
from raybench.generator.selftest import Floor, quantile, self_test, trial
from raybench.schema import Outcome, Requests


@pytest.mark.parametrize(
    "answer", [Answer(tokens=0), Answer(tokens=1), Answer(tokens=7, bunch=3), Answer(tokens=5, gap_s=0.002)]
)
def test_the_null_server_says_what_it_should(answer: Answer) -> None:
    said = read(b"".join(answer.events()))
    assert (said.chunks, said.finish_reason, said.done) == (answer.tokens, "stop", True)
    assert said.usage == (8, answer.tokens)
    with null_server(answer) as url:
        exchanges = ask(url, requests=4, at_once=2)
        whole = ask(url, body=b'{"stream": false}')
    for exchange in exchanges:
        assert (exchange.outcome, exchange.chunks, exchange.output_tokens) == (
            Outcome.OK,
            answer.tokens,
            answer.tokens,
        )
        assert exchange.bytes == sum(map(len, answer.events()))
    assert (whole[0].chunks, whole[0].http_status) == (0, 200)


def test_the_servers_record_matches_the_clients() -> None:
    seen = trial(Answer(tokens=5, gap_s=0.004), requests=10, rate_per_s=200.0, log=True)
    assert seen.failures == 0 and seen.chunks == 50
    table = seen.requests
    for i, stamps in enumerate(seen.log[j] for j in range(10)):
        assert len(stamps) == 6 and stamps == sorted(stamps)
        row = {name: table.column(name)[i].as_py() for name in table.column_names}
        # One clock: what the server did lies within what the client saw.
        assert row[Requests.sent_ns] <= stamps[0] - seen.t0_ns
        assert stamps[1] - seen.t0_ns <= row[Requests.first_token_ns]
        assert stamps[5] - seen.t0_ns <= row[Requests.last_token_ns]
    assert seen.arrival_ns()[0] >= seen.lateness_ns()[0] >= 0
    assert seen.ttft_error_ns()[0] > 0 and len(seen.gap_error_ns()) == 40
    assert seen.cpu_s > 0 and seen.wall_s >= 0.015  # at least the four gaps of one answer


def test_self_test() -> None:
    floor = self_test(rate_per_s=50.0, seconds=0.1)
    assert isinstance(floor, Floor) and floor.failures == 0 and floor.rate_per_s == 50.0
    assert json.loads(json.dumps(floor.__dict__)) == floor.__dict__  # fit for a manifest
    assert all(value > 0 for key, value in floor.__dict__.items() if key != "failures")
    assert floor.lateness_p50_ns <= floor.lateness_p99_ns


def test_quantile_is_the_nearest_rank() -> None:
    ordered = np.arange(1, 101)
    assert [quantile(ordered, p) for p in (0.001, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]

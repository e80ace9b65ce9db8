"""A generator alone, against servers on this machine: every row is sent when it should be, or said not to
have been, and every row is written."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from servers.hostile import HostileServer
from slices import BODY, MS, Memory, drive, make_slice, null_server, schedule

from raybench.client.null_server import Answer
from raybench.generator import Drive, Slice
from raybench.schema import Generators, LoadKind, Outcome, Phase, Requests, Schedule, Table


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with null_server() as url:
        yield url


@pytest.fixture(scope="module")
def slow_url() -> Iterator[str]:
    """Answers 30 ms after the request."""
    with null_server(Answer(tokens=2, first_s=0.03)) as url:
        yield url


@pytest.fixture(scope="module")
def hostile() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


# --- open loop --------------------------------------------------------------------------------------


def test_every_row_is_sent_and_written_with_its_instants(url: str) -> None:
    planned = [i * 2 * MS for i in range(50)]
    phases = np.array([0] * 10 + [1] * 30 + [2] * 10, np.int8)
    table = schedule(planned, ids=range(3, 103, 2), stage=[0] * 25 + [1] * 25)
    progress, memory = drive(make_slice(url, table, generator=3, phases=phases))
    rows = memory.rows()
    assert [row[Requests.request_id] for row in rows] == list(range(3, 103, 2))
    assert [row[Requests.anchor_ns] for row in rows] == planned
    assert [row[Requests.stage] for row in rows] == [0] * 25 + [1] * 25
    assert [row[Requests.phase] for row in rows] == [str(list(Phase)[p]) for p in phases]
    for row in rows:
        instants = [
            row[c]
            for c in (
                Requests.anchor_ns,
                Requests.sent_ns,
                Requests.connected_ns,
                Requests.headers_ns,
                Requests.first_token_ns,
                Requests.last_token_ns,
                Requests.done_ns,
            )
        ]
        assert instants == sorted(instants)
        assert (row[Requests.outcome], row[Requests.error], row[Requests.generator]) == (Outcome.OK, None, 3)
        assert (row[Requests.chunks], row[Requests.output_tokens], row[Requests.prompt_tokens]) == (4, 4, 8)
        assert (row[Requests.http_status], row[Requests.finish_reason], row[Requests.replica]) == (
            200,
            "stop",
            "null",
        )
        assert len(row[Requests.chunk_ns]) == 4 and row[Requests.chunk_ns][0] == 0
        assert row[Requests.chunk_ns][-1] == row[Requests.last_token_ns] - row[Requests.first_token_ns]
        assert row[Requests.bytes] > 500
    assert memory.threads == {"raybench-writer"}
    assert (progress.planned, progress.sent, progress.in_flight, progress.finished) == (50, 50, 0, True)
    assert progress.outcomes == {Outcome.OK: 50} and progress.problems == ()


def test_chunk_instants_can_be_left_out(url: str) -> None:
    _, memory = drive(make_slice(url, schedule([0, MS]), record_chunks=False))
    assert [(row[Requests.chunk_ns], row[Requests.chunks]) for row in memory.rows()] == [(None, 4)] * 2


def test_a_start_in_the_past_is_never_re_anchored(url: str) -> None:
    """All rows are overdue: they go at once, in order, and their lateness says by how much."""
    planned = [i * MS for i in range(100)]
    progress, memory = drive(make_slice(url, schedule(planned)), lead_ms=-500)
    rows = memory.rows()
    lateness = [row[Requests.sent_ns] - row[Requests.anchor_ns] for row in rows]
    assert min(lateness) >= 400 * MS
    sent = [row[Requests.sent_ns] for row in rows]
    assert sent == sorted(sent)
    assert progress.lateness_max_ns is not None and progress.lateness_max_ns >= 400 * MS


def test_no_row_goes_before_its_instant(url: str) -> None:
    rng = np.random.default_rng(5)
    planned = np.cumsum(rng.exponential(1.5 * MS, 150)).astype(np.int64)
    _, memory = drive(make_slice(url, schedule(planned.tolist())))
    assert min(row[Requests.sent_ns] - row[Requests.anchor_ns] for row in memory.rows()) >= 0


def test_a_server_that_stalls_holds_nobody_up(hostile: HostileServer) -> None:
    planned = [i * 5 * MS for i in range(20)]
    urls = [hostile.url("never_answers"), hostile.url("good")]
    progress, memory = drive(make_slice(urls, schedule(planned), timeout_s=0.5))
    assert progress.outcomes == {Outcome.OK: 10, Outcome.TIMEOUT: 10}
    rows = memory.rows()
    assert [row[Requests.outcome] for row in rows] == [Outcome.TIMEOUT, Outcome.OK] * 10
    assert rows[-1][Requests.sent_ns] < rows[0][Requests.done_ns]  # nobody waited for a timeout


@pytest.mark.parametrize(
    ("name", "outcome", "reason"),
    [
        ("status_500", Outcome.HTTP_ERROR, "status 500: engine is dead"),
        ("cut_mid_stream", Outcome.STREAM_CUT, "closed by the server"),
        ("garbage", Outcome.PROTOCOL_ERROR, "not HTTP/1.1"),
        ("closes_before_answer", Outcome.CONNECT_ERROR, "before the answer began"),
    ],
)
def test_failures_are_rows_with_reasons(
    hostile: HostileServer, name: str, outcome: Outcome, reason: str
) -> None:
    progress, memory = drive(make_slice(hostile.url(name), schedule([0, MS, 2 * MS])))
    assert progress.outcomes == {outcome: 3}
    for row in memory.rows():
        assert row[Requests.outcome] == outcome and reason in row[Requests.error]
        assert row[Requests.done_ns] is not None


def test_requests_carry_their_id_and_the_run(hostile: HostileServer) -> None:
    drive(make_slice(hostile.url("good"), schedule([0], ids=[41]), run_prefix="run7-"))
    assert b"x-request-id: run7-41\r\n" in hostile.heads["good"]
    assert hostile.bodies["good"] == BODY


def test_nothing_planned_is_over_at_once(url: str) -> None:
    progress, memory = drive(make_slice(url, schedule([])))
    assert (progress.finished, progress.accounted, memory.rows()) == (True, 0, [])


# --- stopping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("kind", list(LoadKind))
def test_stopping_accounts_for_every_row(hostile: HostileServer, kind: LoadKind, hard: bool) -> None:
    planned = None if kind is LoadKind.CLOSED else [i * 10 * MS for i in range(1000)]
    table = schedule(planned, rows=1000)
    slice = make_slice(hostile.url("never_answers"), table, load_kind=kind, max_in_flight=3, concurrency=3)
    memory = Memory()
    driven = Drive(slice, memory)

    def stop_when_sending() -> None:
        while not driven.progress().sent:
            time.sleep(0.01)
        driven.stop(hard)

    stopper = threading.Thread(target=stop_when_sending)
    stopper.start()
    progress = driven.run(time.monotonic_ns())
    stopper.join()
    assert progress.accounted == 1000 and progress.in_flight == 0
    assert progress.outcomes[Outcome.CANCELLED] == progress.sent > 0
    assert Counter(row[Requests.outcome] for row in memory.rows()) == progress.outcomes
    assert {row[Requests.error] for row in memory.rows()} == {"the run was interrupted"}


def test_stopping_before_the_start_sends_nothing(url: str) -> None:
    memory = Memory()
    driven = Drive(make_slice(url, schedule([0, MS])), memory)
    driven.stop()
    progress = driven.run(time.monotonic_ns())
    assert (progress.sent, progress.outcomes) == (0, {Outcome.NOT_SENT: 2})
    driven.stop()  # and after the end it is harmless


def test_progress_can_be_asked_for_while_it_runs(slow_url: str) -> None:
    driven = Drive(make_slice(slow_url, schedule([i * 4 * MS for i in range(60)])), Memory())
    before = driven.progress()
    assert (before.planned, before.sent, before.finished) == (60, 0, False)
    seen = []
    thread = threading.Thread(target=driven.run, args=(time.monotonic_ns() + 400 * MS,))
    thread.start()
    while thread.is_alive():
        seen.append(driven.progress())
        time.sleep(0.005)
    thread.join()
    assert [p.sent for p in seen] == sorted(p.sent for p in seen)
    assert any(0 < p.sent < 60 and p.in_flight > 0 for p in seen)
    last = driven.progress()
    assert last.finished and last.ttft_p50_ns is not None and last.e2e_p50_ns is not None
    assert 30 * MS <= last.ttft_p50_ns <= last.e2e_p50_ns


# --- what goes wrong on this side -------------------------------------------------------------------


def test_a_sink_that_fails_does_not_stop_the_load(url: str) -> None:
    class Full(Memory):
        def write(self, table: type[Table], batch: pa.RecordBatch) -> None:
            raise OSError(28, "No space left on device")

    progress = Drive(make_slice(url, schedule([0, MS, 2 * MS])), Full()).run(time.monotonic_ns())
    assert progress.outcomes == {Outcome.OK: 3}
    assert any("requests" in p and "No space left" in p for p in progress.problems)


def test_a_body_that_cannot_be_made_is_a_row_not_sent(url: str) -> None:
    def bodies(prompt: int, limit: int | None) -> bytes:
        if prompt == 1500:
            raise KeyError("no such prompt")
        return BODY

    # So many prompts that they are rendered ahead, by a thread.
    table = schedule([0] * 2000, prompt_id=range(2000))
    progress, memory = drive(make_slice(url, table, bodies=bodies))
    assert progress.outcomes == {Outcome.OK: 1999, Outcome.NOT_SENT: 1}
    (row,) = [row for row in memory.rows() if row[Requests.outcome] == Outcome.NOT_SENT]
    assert row[Requests.request_id] == 1500 and "KeyError" in row[Requests.error]
    assert any("KeyError" in problem for problem in progress.problems)


def test_a_server_that_is_not_there(url: str) -> None:
    progress, memory = drive(make_slice("http://127.0.0.1:1", schedule([0, MS])))
    assert progress.outcomes == {Outcome.CONNECT_ERROR: 2}
    assert all("cannot connect to 127.0.0.1:1" in row[Requests.error] for row in memory.rows())


def test_the_generator_samples_itself(slow_url: str) -> None:
    planned = [i * 5 * MS for i in range(80)]
    _, memory = drive(make_slice(slow_url, schedule(planned), generator=2, sample_period_s=0.1))
    rows = memory.rows(Generators)
    instants = [row[Generators.t_ns] for row in rows]
    assert instants == sorted(instants)
    # Every 0.1 s and at the end; a machine that stalls may leave some out, none come on top.
    assert 1 <= len(rows) <= instants[-1] / (100 * MS) + 3
    for row in rows:
        assert row[Generators.generator] == 2
        assert 0 <= row[Generators.cpu_ratio] <= 1.05
        assert 10**7 < row[Generators.rss_bytes] < 10**10
    late = [row[Requests.sent_ns] - row[Requests.anchor_ns] for row in memory.rows()]
    noted = max(row[Generators.lateness_max_ns] or 0 for row in rows)
    assert noted <= max(late) and noted >= max(late) - MS
    assert len(memory.batches[Requests]) <= len(rows)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"phases": np.zeros(1, np.int8)}, "phases: 1 for 2 rows"),
        ({"load_kind": LoadKind.CAPPED}, "max_in_flight None"),
        ({"load_kind": LoadKind.CLOSED}, "concurrency None"),
        ({"schedule": schedule([5, 4])}, "must not go back"),
        ({"schedule": schedule(None, rows=2)}, "null in 2 rows"),
    ],
)
def test_a_slice_that_cannot_be_driven_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_slice("http://127.0.0.1:1", **({"table": schedule([0, 1])} | _as_table(changes)))


def _as_table(changes: dict[str, Any]) -> dict[str, Any]:
    return {"table" if key == "schedule" else key: value for key, value in changes.items()}


def test_a_slice_has_no_secrets_in_its_repr() -> None:
    from raybench.client import Endpoint

    endpoint = Endpoint.parse("http://h", "/v1/x", {"x-token": "canary-1"}, "canary-2")
    slice = make_slice("http://h", schedule([0]), endpoints=[endpoint])
    assert isinstance(slice, Slice) and "canary" not in repr(slice)
    assert Schedule.scheduled_ns in repr(slice.schedule.schema)

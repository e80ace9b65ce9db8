"""The generator measured against a server that costs next to nothing: what it cannot do better than.

A trial starts a null server in a process of its own, drives a slice at it as a run would, rows kept,
and puts the two accounts of what happened side by side. `self_test` makes the trials that a
calibration needs; the benchmarks use `trial` with settings of their own.

    python -m raybench.generator.selftest --rate 100     prints a Floor as JSON
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import raybench.client
from raybench.client import Endpoint
from raybench.client.null_server import Answer
from raybench.generator.drive import Drive
from raybench.generator.slice import Slice
from raybench.schema import LoadKind, Outcome, Phase, Requests, Schedule, Table

_LEAD_NS = 200_000_000
_PATH = "/v1/chat/completions"
_STREAM = (
    b'{"model":"null","stream":true,"messages":[{"role":"user","content":"Describe it."}],"max_tokens":64}'
)
_WHOLE = _STREAM.replace(b"true", b"false")


class Kept:
    """A sink that keeps requests as compressed Arrow IPC in memory: the work of a file, without the disk."""

    def __init__(self) -> None:
        self._buffer = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._stream = pa.ipc.new_stream(self._buffer, Requests.schema, options=options)

    def write(self, table: type[Table], batch: pa.RecordBatch) -> None:
        if table is Requests:
            self._stream.write_batch(batch)

    def close(self) -> None:
        self._stream.close()

    def table(self) -> pa.Table:
        return pa.ipc.open_stream(self._buffer.getvalue()).read_all().sort_by(Requests.request_id)


@dataclass(frozen=True)
class Trial:
    """What one trial saw. CPU times are of whole processes."""

    requests: pa.Table  # `Requests.schema`, in order of request_id
    t0_ns: int  # monotonic: what the table's instants count from
    cpu_s: float  # of the generator
    server_cpu_s: float
    log: dict[int, list[int]]  # request_id -> monotonic ns: received, then each write; empty without log
    seen: dict[int, int]  # request_id -> monotonic ns: the server's process came to look; empty without log

    @property
    def wall_s(self) -> float:
        """From the first request sent to the last answer's end."""
        sent, done = self._column(Requests.sent_ns), self._column(Requests.done_ns)
        return float(done.max() - sent.min()) / 1e9

    @property
    def chunks(self) -> int:
        return int(self._column(Requests.chunks).sum())

    @property
    def failures(self) -> int:
        return sum(outcome != Outcome.OK for outcome in self.requests.column(Requests.outcome).to_pylist())

    def lateness_ns(self) -> np.ndarray:
        """sent − scheduled by the generator's own record, sorted."""
        return np.sort(self._column(Requests.sent_ns) - self._column(Requests.anchor_ns))

    def arrival_ns(self) -> np.ndarray:
        """received − scheduled by the server's record, sorted."""
        received = np.array([self.log[i][0] for i in range(len(self.log))])
        return np.sort(received - self.t0_ns - self._column(Requests.anchor_ns))

    def seen_ns(self) -> np.ndarray:
        """When the server's process came to look, less scheduled, sorted."""
        seen = np.array([self.seen[i] for i in range(len(self.seen))])
        return np.sort(seen - self.t0_ns - self._column(Requests.anchor_ns))

    def ttft_error_ns(self) -> np.ndarray:
        """TTFT from sent, less the server's own from received to first write, sorted."""
        client = self._column(Requests.first_token_ns) - self._column(Requests.sent_ns)
        server = np.array([self.log[i][1] - self.log[i][0] for i in range(len(self.log))])
        return np.sort(client - server)

    def gap_error_ns(self) -> np.ndarray:
        """Each gap between chunks, less the server's own, absolute, sorted. For a bunch of one."""
        errors = []
        for i, stamps in enumerate(self.requests.column(Requests.chunk_ns).to_pylist()):
            errors.append(np.abs(np.diff(stamps) - np.diff(self.log[i][1:])))
        return np.sort(np.concatenate(errors))

    def _column(self, name: str) -> np.ndarray:
        column: np.ndarray = self.requests.column(name).to_numpy()
        return column


@contextmanager
def null_server(answer: Answer, log: bool = False, core: int | None = None) -> Iterator[tuple[str, int]]:
    """A null server in its own process, on a core of its own if one is named; yields its url and pid."""
    # As a file, not as a module of the package: the server needs none of what the package imports.
    command = [sys.executable, "-P", str(Path(raybench.client.__file__).with_name("null_server.py"))]
    command += ["--tokens", str(answer.tokens), "--bunch", str(answer.bunch)]
    command += ["--first", str(answer.first_s), "--gap", str(answer.gap_s), *(["--log"] if log else [])]
    command += [] if core is None else ["--core", str(core)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}", process.pid
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def trial(
    answer: Answer,
    *,
    requests: int,
    rate_per_s: float | None = None,
    concurrency: int | None = None,
    stream: bool = True,
    log: bool = False,
    server_core: int | None = None,
) -> Trial:
    """`requests` at a constant rate, or by `concurrency` callers in a closed loop, at a null server."""
    scheduled = None if rate_per_s is None else (np.arange(requests) * 1e9 / rate_per_s).astype(np.int64)
    body = _STREAM if stream else _WHOLE
    with null_server(answer, log, server_core) as (url, pid):
        slice = Slice(
            generator=0,
            schedule=_schedule(requests, scheduled),
            phases=np.full(requests, list(Phase).index(Phase.STEADY), np.int8),
            bodies=lambda prompt, limit: body,
            endpoints=[Endpoint.parse(url, _PATH)],
            timeout_s=60.0,
            load_kind=LoadKind.CLOSED if scheduled is None else LoadKind.OPEN,
            concurrency=concurrency,
        )
        sink = Kept()
        drive = Drive(slice, sink)
        cpu_s, server_cpu_s = time.process_time(), _cpu_s(pid)
        t0_ns = time.monotonic_ns() + _LEAD_NS
        drive.run(t0_ns)
        cpu_s, server_cpu_s = time.process_time() - cpu_s, _cpu_s(pid) - server_cpu_s
        told, seen = (kept_by(url, "log"), kept_by(url, "seen")) if log else ({}, {})
    return Trial(sink.table(), t0_ns, cpu_s, server_cpu_s, told, seen)


def kept_by(url: str, what: str) -> dict[int, Any]:
    """What the null server at `url` kept for each request_id: its "log" or its "seen"."""
    with urllib.request.urlopen(f"{url}/{what}", timeout=30) as answered:
        return {int(name): stamps for name, stamps in json.load(answered).items()}


@dataclass(frozen=True)
class Floor:
    """What one generator on this machine cannot do better than. Rates are of one core."""

    requests_per_s: float  # whole answers, closed loop
    cpu_s_per_request: float
    chunks_per_s: float  # streams of 64 chunks arriving bunched, 64 at once
    cpu_s_per_1000_chunks: float
    cpu_s_per_1000_lone_chunks: float  # 10,000 a second, mostly each in a read of its own
    server_chunks_per_s: float  # what the null server could have sent with a core of its own
    rate_per_s: float  # of the two lateness figures
    lateness_p50_ns: int
    lateness_p99_ns: int
    ttft_error_p50_ns: int  # absolute, against the server's own record, with 50 streams going on
    ttft_error_p99_ns: int
    gap_error_p50_ns: int
    gap_error_p99_ns: int
    failures: int  # of all trials: above 0 nothing here counts


def self_test(rate_per_s: float = 100.0, seconds: float = 1.0) -> Floor:
    """Short trials, about `seconds` each. `rate_per_s` is for streams of 32 chunks 10 ms apart.

    What a drive costs whatever it sends (threads, sockets, the collector's last run before it) is taken
    off where it would count: from the trial with few chunks.
    """
    idle = trial(Answer(tokens=0), requests=1, concurrency=1)
    whole = trial(Answer(), requests=int(8000 * seconds), concurrency=64, stream=False)
    bunched = trial(Answer(), requests=int(3000 * seconds), concurrency=64)
    paced = trial(
        Answer(tokens=32, gap_s=0.01), requests=max(20, int(rate_per_s * seconds)), rate_per_s=rate_per_s
    )
    lone = trial(Answer(tokens=64, gap_s=0.0064), requests=64 * max(1, int(2 * seconds)), concurrency=64)
    # 50 streams of 0.32 s at any time. One after another: 50 at the same instant would queue in the client.
    logged = trial(
        Answer(tokens=32, gap_s=0.01), requests=max(50, int(156 * seconds)), rate_per_s=156.0, log=True
    )
    late, ttft, gap = paced.lateness_ns(), logged.ttft_error_ns(), logged.gap_error_ns()
    return Floor(
        requests_per_s=len(whole.requests) / whole.wall_s,
        cpu_s_per_request=whole.cpu_s / len(whole.requests),
        chunks_per_s=bunched.chunks / bunched.wall_s,
        cpu_s_per_1000_chunks=1000 * bunched.cpu_s / bunched.chunks,
        cpu_s_per_1000_lone_chunks=1000 * max(lone.cpu_s - idle.cpu_s, 0.5 * lone.cpu_s) / lone.chunks,
        server_chunks_per_s=bunched.chunks / max(bunched.server_cpu_s, 0.01),
        rate_per_s=rate_per_s,
        lateness_p50_ns=quantile(late, 0.5),
        lateness_p99_ns=quantile(late, 0.99),
        ttft_error_p50_ns=quantile(np.sort(np.abs(ttft)), 0.5),
        ttft_error_p99_ns=quantile(np.sort(np.abs(ttft)), 0.99),
        gap_error_p50_ns=quantile(gap, 0.5),
        gap_error_p99_ns=quantile(gap, 0.99),
        failures=sum(t.failures for t in (idle, whole, bunched, lone, paced, logged)),
    )


def quantile(ordered: np.ndarray, p: float) -> int:
    """Nearest rank: ordered[ceil(p·n) − 1]."""
    return int(ordered[max(int(np.ceil(p * len(ordered))), 1) - 1])


def _schedule(rows: int, scheduled_ns: np.ndarray | None) -> pa.Table:
    zeros = np.zeros(rows, np.int64)
    given = {
        Schedule.request_id: np.arange(rows),
        Schedule.scheduled_ns: scheduled_ns,
        Schedule.stage: zeros,
        Schedule.prompt_id: zeros,
    }
    return pa.Table.from_arrays(
        [
            pa.nulls(rows, field.type)
            if given.get(field.name) is None
            else pa.array(given[field.name], field.type)
            for field in Schedule.schema
        ],
        schema=Schedule.schema,
    )


def _cpu_s(pid: int) -> float:
    """CPU time of another process so far, in ticks of 10 ms; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """One self-test, for whoever wants several at the same time."""
    options = argparse.ArgumentParser(description="One self-test of the generator, as JSON.")
    options.add_argument("--rate", type=float, default=100.0, help="requests a second of the paced trial")
    options.add_argument("--seconds", type=float, default=1.0, help="of each trial, about")
    given = options.parse_args()
    print(json.dumps(dataclasses.asdict(self_test(given.rate, given.seconds))))


if __name__ == "__main__":
    main()

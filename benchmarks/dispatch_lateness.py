"""How exactly requests are sent: by the generator's own record, and as the server saw it.

    python benchmarks/dispatch_lateness.py [--repeats 5] [--seconds 5] [--cores 0,1]

Method. A null server on the second core notes two instants of each request, on the clock of the
generator, which has the first core and no Ray: *received*, when the kernel had its bytes (Linux's own
stamp), and *seen*, when the server's process came to look; it is Python, and busy with the chunks of
other answers. Constant rates: 100 requests a second of 32 chunks 10 ms apart, and 1,000 a second of the
same (32,000 chunks a second on the same core). Printed are exact percentiles of sent − scheduled by the
generator's record and of received and seen − scheduled by the server's, the median over the repeats with
the least and greatest behind it.

Beside each: a sender that does nothing but spin on the clock and write the same bytes to connections
opened beforehand, at the same instants, to the same kind of server, in turn with the generator: once
leaving every answer unread, once reading, a chunk at a time, while it waits. What it reaches is what the
machine and the server allow to one who burns a core for it. The last lines compare the generator's TTFT
and gaps with the server's record: with 50 streams at any time, begun one after another (156 a second),
and with 50 callers in step, who send 50 requests in the same instant and have 50 chunks arrive together.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import statistics
import time
from typing import Any

import numpy as np

from raybench.client import Endpoint
from raybench.client.null_server import Answer
from raybench.generator.selftest import kept_by, null_server, quantile, trial

ANSWER = Answer(tokens=32, gap_s=0.01)
POINTS = (0.5, 0.99)


def busy_sender(
    requests: int, rate_per_s: float, core: int, reads: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """received and seen − scheduled of a sender that only spins and writes, and reads while it waits or does
    not; both sorted, ns."""
    with null_server(ANSWER, log=True, core=core) as (url, _):
        endpoint = Endpoint.parse(url, "/v1/chat/completions")
        body = b'{"stream":true}'
        head = endpoint.head()
        answers = [
            b"%bx-request-id: %d\r\ncontent-length: %d\r\n\r\n%b" % (head, i, len(body), body)
            for i in range(requests)
        ]
        connections = [
            socket.create_connection((endpoint.host, endpoint.port)) for _ in range(int(rate_per_s) + 50)
        ]
        for connection in connections:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll = select.epoll()
        for connection in connections:
            poll.register(connection, select.EPOLLIN)
        by_fd = {connection.fileno(): connection for connection in connections}

        def until(due_ns: int) -> None:
            while time.monotonic_ns() < due_ns:
                if reads:
                    for fd, _ in poll.poll(0, 1):
                        by_fd[fd].recv(65536)

        scheduled = (np.arange(requests) * 1e9 / rate_per_s).astype(np.int64).tolist()
        t0_ns = time.monotonic_ns() + 200_000_000
        for i, at_ns in enumerate(scheduled):
            until(t0_ns + at_ns)
            # A second passes before a connection is used again, so an answer may be left unread.
            connections[i % len(connections)].send(answers[i])
        until(time.monotonic_ns() + 600_000_000)
        log, looked = kept_by(url, "log"), kept_by(url, "seen")
        for connection in connections:
            connection.close()
    planned = t0_ns + np.array(scheduled)
    received = np.sort(np.array([log[i][0] for i in range(requests)]) - planned)
    return received, np.sort(np.array([looked[i] for i in range(requests)]) - planned)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):8.3f} ({min(values):.3f}–{max(values):.3f})"


def show(name: str, runs: list[np.ndarray]) -> None:
    figures = "   ".join(f"p{100 * p:g} {spread([quantile(run, p) / 1e6 for run in runs])}" for p in POINTS)
    print(f"  {name:<38} {figures}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--cores", default="0,1", help="the generator's and the server's")
    given = options.parse_args()
    client, server = (int(core) for core in given.cores.split(","))
    os.sched_setaffinity(0, {client})
    for rate in (100.0, 1000.0):
        requests = int(rate * given.seconds)
        own, received, seen, busy, reading, cpu = [], [], [], [], [], []
        for _ in range(given.repeats):
            one = trial(ANSWER, requests=requests, rate_per_s=rate, log=True, server_core=server)
            if one.failures:
                raise SystemExit(f"{one.failures} requests failed: the figures would mean nothing")
            own.append(one.lateness_ns())
            received.append(one.arrival_ns())
            seen.append(one.seen_ns())
            cpu.append(1e3 * one.cpu_s / requests)
            busy.append(busy_sender(requests, rate, server))
            reading.append(busy_sender(requests, rate, server, reads=True))
        print(f"{rate:,.0f} requests a second, {32 * rate:,.0f} chunks a second; ms")
        show("sent, by the generator", own)
        for kind, ours in (("received", received), ("seen", seen)):
            show(f"{kind}, from the generator", ours)
            for name, others in (("that does not read", busy), ("that reads", reading)):
                theirs = [pair[kind == "seen"] for pair in others]
                show(f"{kind}, busy sender {name}", theirs)
                ratios = [quantile(a, 0.99) / quantile(b, 0.99) for a, b in zip(ours, theirs, strict=True)]
                print(f"    the generator's p99 over its p99          {spread(ratios)}")
        print(f"  CPU per request, ms                         {spread(cpu)}")
    steady: dict[str, Any] = {"requests": int(156 * given.seconds), "rate_per_s": 156.0}
    in_step: dict[str, Any] = {"requests": 500, "concurrency": 50}
    for name, load in (("50 streams at any time", steady), ("50 callers in step", in_step)):
        logged = [trial(ANSWER, log=True, server_core=server, **load) for _ in range(given.repeats)]
        print(f"{name}, against the server's record; ms")
        show("TTFT, difference", [np.sort(np.abs(one.ttft_error_ns())) for one in logged])
        show("inter-chunk latency, difference", [one.gap_error_ns() for one in logged])


if __name__ == "__main__":
    main()

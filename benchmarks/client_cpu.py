"""What the generator costs: CPU per 1,000 chunks and per request, and how fast one core goes.

    python benchmarks/client_cpu.py [--repeats 5] [--cores 0,1]

Method. A null server (`raybench/client/null_server.py`, bytes rendered beforehand) runs in a process
of its own on the second core, the generator as a run has it (loop, dispatch, records kept as
compressed Arrow, writer thread) on the first, without Ray. CPU is user and system time of the whole
generator process over the drive, from `time.process_time`; it hardly depends on what else runs on the
machine, unlike the rates, which are only what a core gave if it was free. Each trial is repeated and
the median printed, with the least and the greatest behind it. Five trials:

* bunched: streams of 64 chunks, each answer written at once, 64 at a time.
* alone: the same, a chunk every 6.4 ms per stream: 10,000 a second, each in a read of its own. In turn with
  it, on the same traffic, the two of `least.py`: a uvloop protocol that does nothing with what it reads, and
  the least that parses it and keeps no records.
* whole: answers in one piece, 64 at a time.
* paced: 100 requests a second of 32 chunks, 10 ms apart; CPU per request. In turn with it the same sketch,
  which spins for 0.3 ms before each instant.
* wide: 5,000 streams at once; resident memory at its greatest.

The server's ceiling is what it sent over the CPU time that it used: what it could have sent with its
core to itself. Where it is under 1.5 times what the client took, the client's rate says little and
its CPU decides.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
from collections.abc import Callable

from least import Load, Reader, Sketch

from raybench.client.null_server import Answer
from raybench.generator.selftest import Trial, trial
from raybench.schema import Requests

LONE = 1280  # requests: eight seconds
PACED = 2000


def spread(values: list[float], digits: int = 2) -> str:
    """Median, and in brackets the least and the greatest."""
    median = statistics.median(values)
    return f"{median:,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def repeated(repeats: int, make: Callable[[], Trial]) -> list[Trial]:
    trials = [make() for _ in range(repeats)]
    for one in trials:
        if one.failures:
            raise SystemExit(f"{one.failures} requests failed: the figures would mean nothing")
    return trials


def over(trials: list[Trial], floor: list[float], figure: Callable[[Trial], float]) -> list[float]:
    """Each trial's figure over what was measured in turn with it."""
    return [figure(one) / least for one, least in zip(trials, floor, strict=True)]


def chunk_figures(name: str, trials: list[Trial]) -> None:
    print(f"{name}")
    print(f"  CPU, ms per 1,000 chunks   {spread([1e6 * t.cpu_s / t.chunks for t in trials])}")
    print(f"  chunks per second          {spread([t.chunks / t.wall_s for t in trials], 0)}")
    ceiling = [t.chunks / max(t.server_cpu_s, 0.01) for t in trials]
    print(f"  the server's own ceiling   {spread(ceiling, 0)}")


def bunched(repeats: int, core: int) -> None:
    trials = repeated(
        repeats, lambda: trial(Answer(tokens=64), requests=20_000, concurrency=64, server_core=core)
    )
    chunk_figures("bunched: 64-chunk streams, 64 at once", trials)


def alone(repeats: int, core: int) -> None:
    answer = Answer(tokens=64, gap_s=0.0064)
    trials, reads, sketch = [], [], []
    for _ in range(repeats):
        trials += repeated(1, lambda: trial(answer, requests=LONE, concurrency=64, server_core=core))
        reads.append(1e6 * Load(Reader, LONE, 64, ()).run(answer, core) / trials[-1].chunks)
        sketch.append(1e6 * Load(Sketch, LONE, 64, ()).run(answer, core) / trials[-1].chunks)
    chunk_figures("alone: 10,000 chunks a second, each by itself", trials)
    print(f"  a protocol that only reads {spread(reads)}")
    print(f"  a sketch that parses       {spread(sketch)}")
    print(f"  over the sketch            {spread(over(trials, sketch, lambda t: 1e6 * t.cpu_s / t.chunks))}")
    apart = []
    for one in trials:
        stamps = one.requests.column(Requests.chunk_ns).to_pylist()
        apart.append(sum(len(set(s)) for s in stamps) / sum(map(len, stamps)))
    print(f"  share of chunks in a read of their own {spread(apart)}")


def whole(repeats: int, core: int) -> None:
    make = lambda: trial(Answer(tokens=64), requests=40_000, concurrency=64, stream=False, server_core=core)  # noqa: E731
    trials = repeated(repeats, make)
    rows = len(trials[0].requests)
    print("whole: answers in one piece, 64 at once")
    print(f"  CPU, ms per request        {spread([1e3 * t.cpu_s / rows for t in trials], 3)}")
    print(f"  requests per second        {spread([rows / t.wall_s for t in trials], 0)}")
    ceiling = [rows / max(t.server_cpu_s, 0.01) for t in trials]
    print(f"  the server's own ceiling   {spread(ceiling, 0)}")


def paced(repeats: int, core: int) -> None:
    answer = Answer(tokens=32, gap_s=0.01)
    due_ns = range(0, PACED * 10_000_000, 10_000_000)
    trials, sketch = [], []
    for _ in range(repeats):
        trials += repeated(1, lambda: trial(answer, requests=PACED, rate_per_s=100.0, server_core=core))
        sketch.append(1e3 * Load(Sketch, PACED, 40, due_ns).run(answer, core) / PACED)
    print("paced: 100 requests a second of 32 chunks, 10 ms apart")
    print(f"  CPU, ms per request        {spread([1e3 * t.cpu_s / PACED for t in trials], 3)}")
    print(f"  a sketch that spins 0.3 ms {spread(sketch, 3)}")
    print(f"  over the sketch            {spread(over(trials, sketch, lambda t: 1e3 * t.cpu_s / PACED))}")


def wide(core: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (one,) = repeated(
        1, lambda: trial(Answer(tokens=8, gap_s=1.0), requests=5000, concurrency=5000, server_core=core)
    )
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("wide: 5,000 streams at once")
    print(
        f"  resident memory, MiB       {after:,.0f} at most ({before:,.0f} before), {one.failures} failures"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--cores", default="0,1", help="the generator's and the server's")
    options.add_argument("--only", choices=["wide", "bunched", "alone", "whole", "paced"])
    given = options.parse_args()
    client, server = (int(core) for core in given.cores.split(","))
    os.sched_setaffinity(0, {client})
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(files, 12_000), most), most))
    steps = {
        "wide": lambda: wide(server),  # first, while nothing else has grown the process
        "bunched": lambda: bunched(given.repeats, server),
        "alone": lambda: alone(given.repeats, server),
        "whole": lambda: whole(given.repeats, server),
        "paced": lambda: paced(given.repeats, server),
    }
    for name, step in steps.items():
        if given.only in (None, name):
            step()


if __name__ == "__main__":
    main()

"""How fast and how small is the analysis, and does DuckDB compute the same figures faster?

    python benchmarks/analysis.py [--rows 10_000_000] [--directory /tmp/raybench-analysis] [--keep]
    python benchmarks/analysis.py --times 10        # a run ten times as large, from the same tables

Method. A run of ROWS requests is made from seeded random numbers, by two generators whose batches hold as
many rows as one second of 1,000 requests/s gives, then compacted (`raybench compact`). Three programs compute
the same figures, each in a process of its own, in turns, warm cache:

- raybench, from the compacted run: `summarise`, which is everything a report prints
- raybench, from the streams as they were written
- DuckDB with two threads, over the compacted tables through pyarrow datasets: counts by outcome, then n,
  mean, min, max and the exact discrete percentiles 50, 90, 95, 99 of lateness, TTFT and E2E from scheduled
  and from sent, TPOT and 1/TPOT, tokens, goodput within two objectives; fewer figures than the report has

Printed: wall and CPU seconds from opening the run to the figures, imports left out (on a machine with other
work the CPU seconds are the ones to compare), and the largest resident memory of the process (ru_maxrss),
imports included. The programs' percentiles are compared; a difference is an error.

With `--times`, raybench alone reads the compacted tables so many times over, each time with other request
ids: as many rows as a run of that size has, without a disk for it. What it shows is time and memory;
percentiles have to stay what they are once over, and sums to be so many times as large.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raybench.rundir import LocalSink, create
from raybench.schema import LoadKind, Manifest, Outcome, Phase, Requests, RunStatus, Schedule
from raybench.schema.tables import OUTCOMES, PHASES

BATCH = 500  # rows: one second of one of two generators at 1,000 requests/s together
PERCENTS = (50.0, 90.0, 95.0, 99.0)
LIMITS_S = {"ttft": 1.0, "e2e": 5.0}
R = Requests


def requests(first: int, n: int, generator: int, rng: np.random.Generator) -> pa.RecordBatch:
    """`n` requests from `first` on, every second one of them this generator's; 1% time out, 1% fail."""
    ids = first + 2 * np.arange(n) + generator
    anchor = ids * 1_000_000
    sent = anchor + rng.exponential(200_000, n).astype(np.int64)
    first_token = sent + rng.lognormal(18.5, 0.6, n).astype(np.int64)
    tokens = rng.integers(1, 300, n).astype(np.int32)
    last = first_token + (tokens - 1) * rng.normal(15e6, 5e5, n).astype(np.int64)
    fate = rng.random(n)
    timed_out, failed = fate < 0.01, fate > 0.99
    done = np.where(timed_out, sent + 300_000_000_000, last + 50_000)
    gone = timed_out | failed
    codes = np.where(timed_out, 2, np.where(failed, 1, 0)).astype(np.int8)

    def unless(missing: Any, values: Any, kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind, mask=missing)

    none = np.zeros(n, bool)
    columns = {
        R.request_id: pa.array(ids, pa.int64()),
        R.generator: pa.array(np.full(n, generator), pa.int16()),
        R.stage: pa.array(np.zeros(n), pa.int16()),
        R.phase: pa.DictionaryArray.from_arrays(
            pa.array(np.full(n, list(Phase).index(Phase.STEADY)), pa.int8()), PHASES
        ),
        R.anchor_ns: pa.array(anchor, pa.int64()),
        R.sent_ns: pa.array(sent, pa.int64()),
        R.connected_ns: pa.array(sent + 20_000, pa.int64()),
        R.headers_ns: unless(timed_out, first_token - 10_000, pa.int64()),
        R.first_token_ns: unless(gone, first_token, pa.int64()),
        R.last_token_ns: unless(gone, last, pa.int64()),
        R.done_ns: pa.array(done, pa.int64()),
        R.outcome: pa.DictionaryArray.from_arrays(pa.array(codes), OUTCOMES),
        R.http_status: unless(timed_out, np.where(failed, 503, 200), pa.int16()),
        R.error: unless(~gone, np.where(timed_out, "no answer in 300 s", "503: overloaded"), pa.utf8()),
        R.prompt_tokens: unless(gone, np.full(n, 17), pa.int32()),
        R.output_tokens: unless(gone, tokens, pa.int32()),
        R.chunks: pa.array(np.where(gone, 0, tokens), pa.int32()),
        R.bytes: pa.array(np.where(gone, 0, tokens * 180), pa.int64()),
        R.finish_reason: unless(gone, np.full(n, "stop"), pa.utf8()),
        R.replica: unless(none, np.where(ids % 4 < 2, "replica-1", "replica-2"), pa.utf8()),
        R.chunk_ns: pa.nulls(n, pa.list_(pa.int64())),
    }
    return pa.record_batch(columns, schema=R.schema)


def make(path: Path, rows: int) -> None:
    """The run as its generators would have left it."""
    scenario = {
        "load": {"record_chunks": False, "stages": [{"duration": 1.0}], "request": {"timeout": 300.0}},
        "objectives": {"ttft_p99": LIMITS_S["ttft"], "e2e_p99": LIMITS_S["e2e"]},
    }
    manifest = Manifest(
        "bench", LoadKind.OPEN, scenario, "0" * 64, rows, RunStatus.COMPLETE, load_total_s=rows / 1000
    )
    create(path, manifest)
    rng = np.random.default_rng(1)
    with LocalSink(path, "g000") as zero, LocalSink(path, "g001") as one, LocalSink(path, "plan") as plan:
        for first in range(0, rows, 2 * BATCH):
            zero.write(R, requests(first, BATCH, 0, rng))
            one.write(R, requests(first, BATCH, 1, rng))
            plan.write(Schedule, planned(first, 2 * BATCH))


def planned(first: int, n: int) -> pa.RecordBatch:
    ids = np.arange(first, first + n)
    columns = {
        name: pa.nulls(n, field.type)
        for name, field in zip(Schedule.schema.names, Schedule.schema, strict=True)
    }
    columns |= {
        Schedule.request_id: pa.array(ids, pa.int64()),
        Schedule.scheduled_ns: pa.array(ids * 1_000_000, pa.int64()),
        Schedule.stage: pa.array(np.zeros(n), pa.int16()),
        Schedule.prompt_id: pa.array(np.zeros(n), pa.int32()),
    }
    return pa.record_batch(columns, schema=Schedule.schema)


# --- the programs -----------------------------------------------------------------------------------


class Again:
    """A run whose requests and schedule are those of another, several times over. A `Source`."""

    def __init__(self, run: Any, times: int) -> None:
        self._run, self._times = run, times
        self.manifest = dataclasses.replace(run.manifest, planned=run.manifest.planned * times)

    def batches(self, table: Any, columns: Any) -> Iterator[pa.RecordBatch]:
        for time_ in range(self._times if table in (Requests, Schedule) else 1):
            for batch in self._run.batches(table, columns):
                if time_ and R.request_id in columns:
                    at = list(columns).index(R.request_id)
                    ids = pa.array(batch.column(at).to_numpy() + time_ * self._run.manifest.planned)
                    batch = batch.set_column(at, batch.schema.field(at), ids)
                yield batch


def by_raybench(path: Path, times: int = 1) -> dict[str, Any]:
    from raybench.analysis import summarise
    from raybench.rundir import keep_freed_memory, open_run

    keep_freed_memory()  # as `raybench analyze` does
    start = time.perf_counter()
    run = open_run(path)
    s = summarise(run if times == 1 else Again(run, times))
    wall = time.perf_counter() - start
    found = {
        "lateness": s.lateness,
        "ttft_scheduled": s.latencies.ttft_scheduled,
        "ttft_sent": s.latencies.ttft_sent,
        "e2e_scheduled": s.latencies.e2e_scheduled,
        "e2e_sent": s.latencies.e2e_sent,
        "tpot": s.latencies.tpot,
    }
    figures = {
        name: [None if d.at(p).censored else d.at(p).value for p in PERCENTS]  # type: ignore[union-attr]
        for name, d in found.items()
        if d
    }
    return {
        "wall_s": wall,
        "figures": figures | {"good": s.goodput.good, "tokens": s.throughput.output_tokens},
    }


def by_duckdb(path: Path) -> dict[str, Any]:
    import duckdb
    import pyarrow.dataset as ds

    start = time.perf_counter()
    sql = duckdb.connect()
    sql.execute("set threads to 2")
    sql.register("requests", ds.dataset(path / "requests.arrow", format="ipc"))
    sql.execute("select outcome, error, count(*) from requests group by all").fetchall()
    expressions = {
        "lateness": "sent_ns - anchor_ns",
        "ttft_scheduled": _censored("first_token_ns - anchor_ns"),
        "ttft_sent": _censored("first_token_ns - sent_ns"),
        "e2e_scheduled": _censored("done_ns - anchor_ns"),
        "e2e_sent": _censored("done_ns - sent_ns"),
        "tpot": "case when outcome = 'ok' then "
        "(last_token_ns - first_token_ns) / nullif(output_tokens - 1, 0) end",
    }
    chosen = [p / 100 for p in PERCENTS]
    parts = [
        f"count({e}), avg({e}), min({e}), max({e}), quantile_disc({e}, {chosen})"
        for e in [*expressions.values(), "1e9 / nullif(tpot, 0)"]
    ]
    row = sql.execute(
        f"select {', '.join(parts)}, sum(output_tokens), count(*) filter (outcome = 'ok' and "
        f"first_token_ns - anchor_ns <= {LIMITS_S['ttft'] * 1e9:.0f} and "
        f"done_ns - anchor_ns <= {LIMITS_S['e2e'] * 1e9:.0f}) "
        f"from (select *, {expressions['tpot']} tpot from requests)"
    ).fetchone()
    wall = time.perf_counter() - start
    assert row is not None
    figures: dict[str, Any] = {
        name: [None if v > 1e18 else v / 1e9 for v in row[5 * i + 4]] for i, name in enumerate(expressions)
    }
    return {"wall_s": wall, "figures": figures | {"good": row[-1], "tokens": int(row[-2])}}


def _censored(expression: str) -> str:
    """Of those that ended well, with timeouts beyond every value."""
    return (
        f"case outcome when '{Outcome.OK}' then {expression} "
        f"when '{Outcome.TIMEOUT}' then 9000000000000000000 end"
    )


PROGRAMS = {
    "raybench, compacted": (by_raybench, "compact"),
    "raybench, streams": (by_raybench, "streams"),
    "DuckDB, compacted": (by_duckdb, "compact"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=lambda s: int(s.replace("_", "")), default=10_000_000)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=list(PROGRAMS), action="append")
    parser.add_argument("--times", type=int, default=1, help="read the compacted tables so many times over")
    parser.add_argument("--program", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        cpu = time.process_time()
        program = PROGRAMS[options.program][0]
        found = program(options.path) if options.times == 1 else by_raybench(options.path, options.times)
        found["cpu_s"] = time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(found | {"peak_bytes": peak}))
        return
    directory = options.directory or Path(tempfile.mkdtemp(prefix="raybench-analysis-"))
    try:
        only = options.only or list(PROGRAMS)[: 1 if options.times > 1 else None]
        measure(directory, options.rows, options.repeats, only, options.times)
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)


def measure(directory: Path, rows: int, repeats: int, programs: list[str], times: int) -> None:
    from raybench.rundir import compact, open_run

    if not (directory / "streams").exists():
        make(directory / "streams", rows)
    if not (directory / "compact").exists():
        shutil.copytree(directory / "streams", directory / "compact")
        compact(open_run(directory / "compact"))
    size = sum(f.stat().st_size for f in (directory / "streams" / R.name).iterdir())
    tight = (directory / "compact" / "requests.arrow").stat().st_size
    print(f"{rows:,} requests: {size / rows:.0f} bytes a row in streams, {tight / rows:.0f} compacted")

    def once(name: str, times: int) -> dict[str, Any]:
        path = str(directory / PROGRAMS[name][1])
        command = [sys.executable, __file__, "--program", name, "--path", path, "--times", str(times)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    results: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name in programs:
            results[name].append(once(name, times))
    if times > 1:
        expected = once(programs[0], 1)["figures"]
        expected |= {key: times * expected[key] for key in ("good", "tokens")}
        figures = [r["figures"] for runs in results.values() for r in runs]
        if any(one != expected for one in figures):
            raise SystemExit(f"{figures} and {expected}")
    for name, runs in results.items():
        wall, cpu = (sorted(r[key] for r in runs) for key in ("wall_s", "cpu_s"))
        peak = max(r["peak_bytes"] for r in runs) / 2**20
        print(
            f"{name:20} wall {wall[0]:5.2f} s (all: {', '.join(f'{w:.2f}' for w in wall)}), "
            f"CPU {cpu[0]:5.2f} s, peak {peak:,.0f} MiB"
        )
    figures = [r["figures"] for runs in results.values() for r in runs]
    for other in figures[1:]:
        for key, value in figures[0].items():
            if not np.allclose(
                np.array(value, float), np.array(other[key], float), rtol=1e-12, equal_nan=True
            ):
                raise SystemExit(f"{key}: {value} and {other[key]}")
    print("all programs agree on every percentile")


if __name__ == "__main__":
    main()

"""Does a kill at any instant ever cost a whole batch, a right total or a readable run?

    python benchmarks/kills.py [--kills 50] [--seed 1]

Method. A child process writes a run: two writers, a batch every few milliseconds, streams rolled at 64 KiB,
the manifest renewed all the while. After each batch it says so through a pipe. It is killed with SIGKILL
after a random time; then the run is opened and analysed. Wrong is: an exception, a batch said to be written
and is not read, rows of a batch that was never begun, or planned ≠ accounted for. Prints what was found; exit
code 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from raybench.analysis import summarise
from raybench.rundir import LocalSink, create, open_run
from raybench.schema import LoadKind, Manifest, Requests, Schedule
from raybench.schema.tables import OUTCOMES, PHASES

ROWS = 20
BATCHES = 5000


def batch(number: int) -> pa.RecordBatch:
    ids = np.arange(number * ROWS, (number + 1) * ROWS)
    zeros = np.zeros(ROWS, np.int64)
    columns = {f.name: pa.nulls(ROWS, f.type) for f in Requests.schema}
    columns |= {
        Requests.request_id: pa.array(ids),
        Requests.generator: pa.array(zeros, pa.int16()),
        Requests.stage: pa.array(zeros, pa.int16()),
        Requests.phase: pa.DictionaryArray.from_arrays(pa.array(zeros + 1, pa.int8()), PHASES),
        Requests.anchor_ns: pa.array(ids * 1000),
        Requests.sent_ns: pa.array(ids * 1000),
        Requests.done_ns: pa.array(ids * 1000 + 500),
        Requests.outcome: pa.DictionaryArray.from_arrays(pa.array(zeros, pa.int8()), OUTCOMES),
        Requests.chunks: pa.array(zeros, pa.int32()),
        Requests.bytes: pa.array(zeros),
    }
    return pa.record_batch(columns, schema=Requests.schema)


def write(path: Path) -> None:
    """The child: never ends by itself before it is killed."""
    manifest = Manifest("kills", LoadKind.OPEN, {}, "0" * 64, ROWS * BATCHES)
    run = create(path, manifest)
    ids = np.arange(ROWS * BATCHES)
    columns = {
        n: pa.nulls(len(ids), f.type) for n, f in zip(Schedule.schema.names, Schedule.schema, strict=True)
    }
    columns |= {
        Schedule.request_id: pa.array(ids),
        Schedule.scheduled_ns: pa.array(ids * 1000),
        Schedule.stage: pa.array(np.zeros(len(ids)), pa.int16()),
        Schedule.prompt_id: pa.array(np.zeros(len(ids)), pa.int32()),
    }
    run.write_schedule(pa.table(columns, schema=Schedule.schema))
    sinks = [LocalSink(path, "g000", roll_bytes=2**16), LocalSink(path, "g001", roll_bytes=2**16)]
    print("ready", flush=True)
    for number in range(BATCHES):
        sinks[number % 2].write(Requests, batch(number))
        print(number, flush=True)
        if number % 10 == 0:
            run.save(manifest)
    time.sleep(60)


def one(path: Path, chance: random.Random) -> tuple[int, list[str]]:
    """(batches written, what was wrong)."""
    command = [sys.executable, __file__, "--child", str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(chance.uniform(0.0, 0.7))
    child.send_signal(signal.SIGKILL)
    said = [int(word) for word in child.stdout.read().split()]
    child.wait()
    wrong = []
    run = open_run(path)
    ids = [i for b in run.batches(Requests, [Requests.request_id]) for i in b.column(0).to_pylist()]
    found = {i // ROWS for i in ids}
    if missing := set(said) - found:
        wrong.append(f"batches {sorted(missing)} were written and are not read")
    if more := found - set(said) - {len(said)}:
        wrong.append(f"batches {sorted(more)} are read and were never written")
    if len(ids) != len(set(ids)) or len(ids) != ROWS * len(found):
        wrong.append("a batch is read in part, or twice")
    accounting = summarise(run).accounting
    if not accounting.balances:
        wrong.append(f"{accounting}")
    return len(said), wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        write(options.child)
        return 0
    chance = random.Random(options.seed)
    written, failures = [], 0
    with tempfile.TemporaryDirectory(prefix="raybench-kills-") as directory:
        for number in range(options.kills):
            batches, wrong = one(Path(directory) / str(number), chance)
            written.append(batches)
            failures += bool(wrong)
            for text in wrong:
                print(f"kill {number}: {text}")
    print(f"{options.kills} kills after {min(written)} to {max(written)} batches; {failures} runs were wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

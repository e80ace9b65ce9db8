"""What a long plan costs a generator in memory.

    python benchmarks/plan_memory.py [--rows 8_640_000] [--seconds 5]

Method. The plan (by default a day at 100 requests a second, Poisson) is built from a scenario and written
into a run directory by a process of its own, which ends. Then, each in a fresh process, a generator's part
of the work is done as the actor does it, all rows being its own: the plan is read piece by piece, mapped
from the temporary directory or (for comparison) kept in memory, phases are told, and the drive sends for
`--seconds` to a null server. Linux's own account is read before the plan is read and after those seconds:

  private      RssAnon: memory that belongs to the process and cannot be given back
  of files     RssFile less what it was: pages of the mapped plan that happen to be in memory
  peak         VmHWM less what was resident before: the most at any time, in between too

Printed are MiB and the seconds of the preparation. The temporary directory must not be in memory itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pyarrow as pa

from raybench import schedule as scheduling
from raybench.client import Endpoint
from raybench.client.null_server import Answer
from raybench.generator import Drive, Slice
from raybench.generator.selftest import Kept, null_server
from raybench.rundir import Mapped, create, mapped, open_run
from raybench.scenario import Scenario
from raybench.schema import LoadKind, Manifest, Schedule
from raybench.workload import Workload

RATE_PER_S = 100.0


def scenario(rows: int) -> Scenario:
    stage = {"duration": f"{rows / RATE_PER_S:g}s", "arrival": {"process": "poisson", "rate": "100/s"}}
    load = {"stages": [stage], "request": {"prompt": "Describe it.", "max_tokens": 4}}
    return Scenario.model_validate({"name": "day", "target": {"url": "http://x", "model": "m"}, "load": load})


def plan(path: Path, rows: int) -> None:
    table = scheduling.build(scenario(rows))
    create(path, Manifest("day", LoadKind.OPEN, {}, "0" * 64, len(table))).write_schedule(table)


def memory() -> dict[str, float]:
    """MiB of this process by Linux's account."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0][:-1]: int(words[1]) / 1024 for words in lines if words[0][:3] in ("Rss", "VmH", "VmR")}


def generator(path: Path, rows: int, seconds: float, in_memory: bool) -> None:
    """Prints what one generator took, as JSON, and ends without ceremony."""
    checked = scenario(rows)
    body = Workload(checked).body
    with null_server(Answer(tokens=4)) as (url, _):
        before, begin_s = memory(), time.monotonic()
        pieces = scheduling.part_of(open_run(path).batches(Schedule, Schedule.schema.names), 0, 1)
        if in_memory:
            held = Mapped(pa.Table.from_batches(pieces, schema=Schedule.schema))
        else:
            held = mapped(pieces, Schedule.schema)
        slice = Slice(
            generator=0,
            schedule=held.table,
            phases=scheduling.phases(checked, scheduling.planned_ns(held.table)),
            bodies=body,
            endpoints=[Endpoint.parse(url, "/v1/chat/completions")],
            timeout_s=60.0,
            load_kind=LoadKind.OPEN,
            passed=held.passed,
        )
        drive = Drive(slice, Kept())
        ready_s = time.monotonic() - begin_s

        def watch() -> None:
            time.sleep(seconds + 1.0)
            after, progress = memory(), drive.progress()
            assert progress.sent > 0 and set(progress.outcomes) == {"ok"}, progress
            print(
                json.dumps(
                    {
                        "private": after["RssAnon"] - before["RssAnon"],
                        "of files": after["RssFile"] - before["RssFile"],
                        "peak": after["VmHWM"] - before["VmRSS"],
                        "ready_s": ready_s,
                        "sent": progress.sent,
                    }
                ),
                flush=True,
            )
            os._exit(0)  # an ordinary end would write millions of rows that were not sent

        threading.Thread(target=watch).start()
        drive.run(time.monotonic_ns() + 1_000_000_000)


def main() -> None:
    options = argparse.ArgumentParser(description="What a long plan costs a generator in memory.")
    options.add_argument("--rows", type=lambda text: int(text.replace("_", "")), default=8_640_000)
    options.add_argument("--seconds", type=float, default=5.0, help="how long it sends")
    options.add_argument("--part", choices=["plan", "mapped", "memory"], help=argparse.SUPPRESS)
    options.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.part == "plan":
        plan(given.path, given.rows)
    elif given.part is not None:
        generator(given.path, given.rows, given.seconds, given.part == "memory")
    else:
        with tempfile.TemporaryDirectory() as directory:
            own = [sys.executable, __file__, "--path", directory, "--rows", str(given.rows)]
            own += ["--seconds", str(given.seconds), "--part"]
            subprocess.run([*own, "plan"], check=True)
            size = sum(file.stat().st_size for file in Path(directory).rglob("*.arrows"))
            print(f"{given.rows:,} rows; the plan in the run directory: {size / 2**20:.0f} MiB")
            for part in ("memory", "mapped"):
                done = subprocess.run([*own, part], stdout=subprocess.PIPE, check=False)
                seen = json.loads(done.stdout)
                print(
                    f"{part:>7}: private {seen['private']:.0f} MiB, of files {seen['of files']:.0f} MiB,"
                    f" peak {seen['peak']:.0f} MiB, ready in {seen['ready_s']:.1f} s, {seen['sent']} sent"
                )


if __name__ == "__main__":
    main()

"""raybench's generator as a run's actor drives it, without Ray: scenario, schedule, bodies, rows on disk.

    python raybench_generator.py SCENARIO RUN_DIRECTORY

Prints t0 on the monotonic clock, ns, as JSON: the schedule is known to the nanosecond.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from raybench import schedule
from raybench.client import Endpoint
from raybench.generator import Drive, Slice
from raybench.rundir import LocalSink
from raybench.scenario import load
from raybench.schema import LoadKind
from raybench.workload import Workload

LEAD_NS = 200_000_000


def main(path: str, run: str) -> None:
    scenario = load(Path(path))
    assert scenario.target is not None and isinstance(scenario.target.url, str)
    workload = Workload(scenario)
    rows = schedule.build(scenario)
    slice = Slice(
        generator=0,
        schedule=rows,
        phases=schedule.phases(scenario, schedule.planned_ns(rows)),
        bodies=workload.body,
        endpoints=[Endpoint.parse(scenario.target.url, workload.path)],
        timeout_s=scenario.load.request.timeout,
        load_kind=LoadKind(schedule.load_kind(scenario)),
        concurrency=scenario.load.concurrency,
        load_end_ns=schedule.duration_ns(scenario),
    )
    t0_ns = time.monotonic_ns() + LEAD_NS
    print(json.dumps({"t0_ns": t0_ns}), flush=True)
    Drive(slice, LocalSink(run, "g000")).run(t0_ns)


if __name__ == "__main__":
    main(*sys.argv[1:])

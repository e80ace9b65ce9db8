"""Does anything grow? A soak in minutes: memory of every process against time, and bytes of a row.

    python benchmarks/soak.py [--minutes 10] [--rate 100] [--generators 1]

Method. One run on a private Ray against a server that costs nothing: constant load, no chunk times, streams
rolled every five seconds instead of every ten minutes, so that a few minutes see as many rolls as half a day.
Resident memory of the coordinator (this process), each generator, the monitor and, for comparison, an actor
of the same Ray that does nothing is read from /proc every two seconds. Printed for each: memory at the start
and the end of what counts, and Theil and Sen's slope with its 99% interval (which takes samples as
independent, so it is narrower than it should be), as bytes per second and as what that would make of a day.
The first half of the load does not count: connections open, pools fill, and Ray's own processes grow in
their first minutes, idle ones too. Last the size of the requests table on disk, per row.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import yaml

from raybench.analysis import Question, summarise
from raybench.analysis.trend import theil_sen
from raybench.fleet.conductor import Conductor, Snapshot
from raybench.fleet.output import Output
from raybench.generator.selftest import Answer, null_server
from raybench.rundir import open_run
from raybench.scenario import load
from raybench.schema import Requests, Timeline

SAMPLE_S = 2.0
DAY_S = 86_400
MIB = 2**20


def roll_often() -> None:
    """In every worker of the cluster, before it does anything."""
    from raybench.rundir import segments

    segments.LocalSink.__init__.__kwdefaults__["roll_s"] = 5.0


def rss_bytes(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


class Watcher:
    """Takes a sample of every process at most each SAMPLE_S."""

    def __init__(self, path: Path, idle_pid: int) -> None:
        self._path, self._idle_pid, self._next = path, idle_pid, 0.0
        self.samples: dict[str, list[tuple[float, int]]] = {}

    def __call__(self, conductor: Conductor, s: Snapshot) -> None:
        if s.stage != "load" or s.t_s < self._next:
            return
        self._next = s.t_s + SAMPLE_S
        pids = {"coordinator": os.getpid()}
        for host in conductor.manifest.hosts:
            pids[f"generator {host.number}"] = host.pid
        monitors = sorted((self._path / Timeline.name).glob("monitor*"))
        if monitors:
            pids["monitor"] = int(monitors[-1].name.split("-")[1])
        pids["idle actor"] = self._idle_pid
        for name, pid in pids.items():
            if (found := rss_bytes(pid)) is not None:
                self.samples.setdefault(name, []).append((s.t_s, found))


def line(name: str, samples: list[tuple[float, int]]) -> str:
    counted = samples[len(samples) // 2 :]
    slope = theil_sen([t for t, _ in counted], [float(b) for _, b in counted])
    assert slope is not None and slope.low is not None and slope.high is not None
    first, last, day = counted[0][1] / MIB, counted[-1][1] / MIB, slope.value * DAY_S / MIB
    return (
        f"{name:<12} {first:7.1f} MiB {last:7.1f} MiB   {slope.value:7.0f} B/s "
        f"({slope.low:.0f} to {slope.high:.0f})   {day:+7.0f} MiB a day"
    )


@ray.remote(num_cpus=0)
class Idle:
    """What a process of Ray's costs that does nothing."""

    def pid(self) -> int:
        return os.getpid()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--generators", type=int, default=1)
    given = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    directory = Path(tempfile.mkdtemp(prefix="rb", dir="/tmp"))
    hook: dict[str, Any] = {"worker_process_setup_hook": roll_often}
    ray.init(
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200 * MIB,
        runtime_env=hook,
        _temp_dir=str(directory / "ray"),
    )
    try:
        with null_server(Answer(tokens=8)) as (url, _):
            stage = {
                "duration": f"{given.minutes}m",
                "arrival": {"process": "poisson", "rate": f"{given.rate}/s"},
            }
            settings = {
                "stages": [stage],
                "generators": given.generators,
                "record_chunks": False,
                "request": {"prompt": "x", "max_tokens": 8, "timeout": "30s"},
            }
            scenario = directory / "scenario.yaml"
            target = {"url": url, "model": "m"}
            scenario.write_text(yaml.safe_dump({"name": "soak", "target": target, "load": settings}))
            path = directory / "run"
            conductor = Conductor(load(scenario), Output(path))
            idle = Idle.remote()  # type: ignore[attr-defined]
            watcher = Watcher(path, ray.get(idle.pid.remote()))
            conductor.watch(lambda s: watcher(conductor, s))
            started = time.monotonic()
            conductor.run()
            took_s = time.monotonic() - started
        files = list((path / Requests.name).glob("*"))
        size = sum(f.stat().st_size for f in files)
        found = open_run(path)
        rows = sum(b.num_rows for b in found.batches(Requests, [Requests.request_id]))
        a = summarise(found, Question()).accounting
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in a.outcomes.items() if n)
        print(f"{a.planned} planned: {outcomes}; balances: {a.balances}; {took_s:.0f} s in all")
        print("process       from half of the load to its end;    slope with 99% interval")
        for name, samples in watcher.samples.items():
            print(line(name, samples))
        print(f"requests: {rows} rows in {len(files)} streams, {size / rows:.1f} bytes a row")
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()

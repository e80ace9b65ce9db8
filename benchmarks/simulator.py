"""How fast is the simulator? A day at 10 requests a second, on one core.

    python benchmarks/simulator.py
    python benchmarks/simulator.py --hours 2 --profile

Method. One process, nothing else running. The scenario: Poisson arrivals at 10/s for 24 h (about 864,000
requests), answers of 128 tokens on average (exponential), 32 slots, the queue-depth policy between 1 and 2
replicas, no chunks recorded. Timed by CPU time, whole: from the scenario to the six tables, every column of
every batch once made. Parts are timed as well, then the run is repeated; the least of two counts, as noise
only ever adds. Memory is the process's largest resident size, less what it had before.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import time
from typing import Any

from raybench import schedule as scheduling
from raybench.scenario import Scenario
from raybench.schema import TABLES
from raybench.simulator import simulate
from raybench.simulator.run import Run

ROUNDS = 2


def scenario(hours: float, **autoscaling: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "a-day",
            "deployment": {
                "model": "m",
                "slots_per_replica": 32,
                "emulated": {"output_tokens": {"distribution": "exponential", "mean": 128}},
                "autoscaling": {"min_replicas": 1, "max_replicas": 2, **autoscaling},
            },
            "load": {
                "stages": [{"duration": hours * 3600, "arrival": {"process": "poisson", "rate": 10.0}}],
                "request": {"prompt": "Describe in a few sentences how an autoscaler decides."},
                "record_chunks": False,
            },
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--profile", action="store_true", help="show where the time of the event loop goes")
    given = parser.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if given.profile:
        profile(scenario(given.hours))
        return
    for name, made in {
        "1 to 2 replicas": scenario(given.hours),
        "2 replicas, nothing to decide": scenario(given.hours, min_replicas=2),
        "every tick gone through": scenario(given.hours),
    }.items():
        tick_all = name.startswith("every")
        rounds = 1 if tick_all else ROUNDS
        whole = min(once(made, tick_all) for _ in range(rounds))
        planned = scheduling.build(made).num_rows
        print(f"{name:<30} {planned:>9,} requests  {whole:>6.2f} s  {whole / planned * 1e6:>5.1f} µs each")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"memory: {(after - before) / 1024:,.0f} MiB beyond the {before / 1024:,.0f} MiB of the start")
    began = time.process_time()
    scheduling.build(scenario(given.hours))
    print(f"of which the schedule {time.process_time() - began:.2f} s")


def once(made: Scenario, tick_all: bool) -> float:
    """CPU seconds from a scenario to its tables."""
    began = time.process_time()
    run = simulate(made, tick_all=tick_all)
    rows = sum(b.num_rows for table in TABLES for b in run.batches(table, list(table.columns)))
    assert rows > 0
    return time.process_time() - began


def profile(made: Scenario) -> None:
    run = Run(made, scheduling.build(made))
    profiler = cProfile.Profile()
    profiler.runcall(run.go)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(20)


if __name__ == "__main__":
    main()

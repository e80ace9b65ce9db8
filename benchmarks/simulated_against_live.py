"""Is a simulation like life? A scenario on the emulated engine, live and simulated, beside each other.

    python benchmarks/simulated_against_live.py --repeats 2
    python benchmarks/simulated_against_live.py outputs/demo-…  outputs/demo-…     live runs that are there

Method. Each live run is a whole `raybench run` on a Ray of its own; nothing else should run. The scenario is
simulated SIMULATED times, each with another phase of Serve's ticks, which a live run draws by chance as well.
Printed are, for each scaling event in order of time, its instant (median over the live runs, median over the
simulations) and the difference; for E2E the ratio of p50 and of p90; and what Serve itself added, which is
where the defaults of `simulation.serve` are from. Events are paired by their order: where a live run has
other steps than the simulation, that is said and the pair is left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from raybench.analysis import Question, Summary, summarise
from raybench.analysis.figures import Scaling
from raybench.rundir import open_run
from raybench.scenario import load
from raybench.simulator import simulate

SIMULATED = 50
PERCENTS = (50.0, 90.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--scenario", type=Path, default=Path("scenarios/demo.yaml"))
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    scenario, question = load(given.scenario), Question(percentiles=PERCENTS)
    with tempfile.TemporaryDirectory(prefix="live-") as directory:
        paths = given.runs or [
            run_live(given.scenario, Path(directory) / str(i)) for i in range(given.repeats)
        ]
        live = [summarise(open_run(path), question) for path in paths]
    made = [summarise(simulate(scenario, repeat=repeat), question) for repeat in range(SIMULATED)]
    startup_s = (scenario.deployment.emulated.startup if scenario.deployment else 0.0) or 0.0
    print(f"{given.scenario}: {len(live)} live runs, {len(made)} simulations")
    events(live, made)
    latencies(live, made)
    delays(live, startup_s)


def run_live(scenario: Path, where: Path) -> Path:
    command = [sys.executable, "-m", "raybench", "run", str(scenario), "-o", str(where)]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=600)
    return where


def happened(summary: Summary) -> list[tuple[str, float]]:
    """(what, when) of every step and every replica's change of state, replicas named by their order."""
    scaling = summary.scaling
    assert scaling is not None, "a run with a deployment"
    names: dict[str, int] = {}
    found = [(f"{s.from_replicas} -> {s.to_replicas}", s.t_s) for s in scaling.steps]
    for change in scaling.changes:
        number = names.setdefault(change.replica, len(names) + 1)
        found.append((f"replica {number} {change.state}", change.t_s))
    return sorted(found, key=lambda event: event[1])


def events(live: Sequence[Summary], made: Sequence[Summary]) -> None:
    expected: dict[str, list[float]] = {}
    for summary in made:
        for what, at_s in happened(summary):
            expected.setdefault(what, []).append(at_s)
    seen: dict[str, list[float]] = {}
    for summary in live:
        for what, at_s in happened(summary):
            seen.setdefault(what, []).append(at_s)
    print(f"\n{'event':<22} {'live':>9} {'simulated':>10} {'(least to most)':>18} {'difference':>11}")
    for what in dict.fromkeys([*expected, *seen]):
        if what not in seen or what not in expected:
            print(f"{what:<22} only {'simulated' if what in expected else 'live'}")
            continue
        there, here = median(seen[what]), median(expected[what])
        least, most = min(expected[what]), max(expected[what])
        span = f"({least:.2f} to {most:.2f})"
        print(f"{what:<22} {there:>7.2f} s {here:>8.2f} s {span:>18} {there - here:>+9.2f} s")


def latencies(live: Sequence[Summary], made: Sequence[Summary]) -> None:
    print(f"\n{'E2E':<6} {'live':>9} {'simulated':>10} {'ratio':>7}")
    for percent in PERCENTS:
        pair = []
        for summaries in (live, made):
            values = [s.latencies.e2e_sent.at(percent) for s in summaries]
            pair.append(median(v.value for v in values if v is not None))
        print(f"p{percent:<5g} {pair[0]:>7.3f} s {pair[1]:>8.3f} s {pair[0] / pair[1]:>7.3f}")


def delays(live: Sequence[Summary], startup_s: float) -> None:
    """What Serve added in the live runs: medians, and each run's."""
    found: dict[str, list[float]] = {}
    for summary in live:
        assert summary.scaling is not None
        for name, value in _delays(summary.scaling, startup_s):
            found.setdefault(name, []).append(value)
        fastest = summary.latencies.e2e_sent.min
        if fastest is not None:
            found.setdefault("fastest E2E", []).append(fastest)
    print("\nServe's own delays, from the live runs")
    for name, values in found.items():
        print(f"{name:<44} {median(values):>6.2f} s   of {', '.join(f'{v:.2f}' for v in values)}")


def _delays(scaling: Scaling, startup_s: float) -> list[tuple[str, float]]:
    found = []
    for chain in scaling.chains:
        at = {link.name: link.at_s for link in chain.links}
        decision, ready = at.get("decision"), at.get("ready")
        if chain.up and decision is not None and ready is not None:
            found.append(("decision to able to serve, beyond start-up", ready - decision - startup_s))
        stopping, stopped = at.get("replica stopping"), at.get("stopped")
        if not chain.up and stopping is not None and stopped is not None:
            found.append(("stopping to gone, drain included", stopped - stopping))
        if not chain.up and decision is not None and stopping is not None:
            found.append(("decision to stopping", stopping - decision))
    return found


if __name__ == "__main__":
    main()

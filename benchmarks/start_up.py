"""From Ray's own start to the first request: what `raybench run` adds with a target and a kept calibration.

    python benchmarks/start_up.py [--repeats 5] [--generators 1]

Method. In a process of its own for each repeat: Ray is started as `raybench run` starts a private one
(`fleet.cluster.attached`), which is not counted; then the clock runs from there until the null server, in
another process on the same machine, notes the arrival of the first request, whose planned instant is t0. The
steps in between are timed by wrapping the conductor's own calls: modules imported, plan made, monitor
there, generators ready (their processes started, raybench imported, slices and bodies made), clocks
measured and everybody told t0, and the wait for t0. In turn with it, as the floor, an actor that does nothing
on a Ray started in the same way: until it answers, Ray itself is still starting processes. Printed are
medians, with the least and greatest behind. Nothing else should run on the machine: worker processes import
for a second of CPU each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLOOR = "Ray's own: an empty actor answers"
STEPS = ("import", "plan", "monitor", "ready", "told", "first request")


def once(generators: int) -> dict[str, float]:
    """Seconds after Ray was there at which each step was done."""
    import yaml

    from raybench.client.null_server import Answer
    from raybench.fleet.cluster import attached
    from raybench.generator.selftest import null_server
    from raybench.scenario import load

    stage = {"duration": "1s", "arrival": {"process": "constant", "rate": "10/s"}}
    keys = {"stages": [stage], "request": {"prompt": "x", "max_tokens": 4}, "generators": generators}
    with (
        tempfile.TemporaryDirectory() as directory,
        null_server(Answer(tokens=4), log=True) as (url, _),
        attached() as _private,
    ):
        path = Path(directory) / "s.yaml"
        path.write_text(yaml.safe_dump({"name": "s", "target": {"url": url, "model": "m"}, "load": keys}))
        scenario = load(path)
        begin_ns = time.monotonic_ns()
        at: dict[str, float] = {}

        def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any, **more: Any) -> Any:
                result = call(*arguments, **more)
                at[name] = (time.monotonic_ns() - begin_ns) / 1e9
                return result

            return wrapped

        from raybench.fleet import crew
        from raybench.fleet.conductor import Conductor
        from raybench.fleet.output import Output

        at["import"] = (time.monotonic_ns() - begin_ns) / 1e9
        crew.start_monitor = noted("monitor", crew.start_monitor)
        crew.Crew.prepare = noted("ready", crew.Crew.prepare)  # type: ignore[method-assign]
        crew.Crew.start = noted("told", crew.Crew.start)  # type: ignore[method-assign]
        conductor = noted("plan", Conductor)(scenario, Output(Path(directory) / "run"))
        conductor.run()
        with urllib.request.urlopen(f"{url}/log", timeout=10) as answered:
            first_ns = min(stamps[0] for stamps in json.load(answered).values())
        at["first request"] = (first_ns - begin_ns) / 1e9
        return at


def empty_actor() -> dict[str, float]:
    """Seconds from the same start of Ray until an actor without anything in it answers."""
    import ray

    from raybench.fleet.cluster import attached

    class Empty:
        def answer(self) -> bool:
            return True

    with attached():
        begin_ns = time.monotonic_ns()
        actor = ray.remote(num_cpus=0.1)(Empty).remote()
        ray.get(actor.answer.remote())
        return {FLOOR: (time.monotonic_ns() - begin_ns) / 1e9}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--generators", type=int, default=1)
    options.add_argument("--once", choices=["run", "empty"], help="one repeat, as JSON")
    given = options.parse_args()
    if given.once:
        print(json.dumps(empty_actor() if given.once == "empty" else once(given.generators)))
        return
    runs: list[dict[str, float]] = []
    for _ in range(given.repeats):
        found: dict[str, float] = {}
        for what in ("empty", "run"):
            command = [sys.executable, __file__, "--once", what, "--generators", str(given.generators)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
            found |= json.loads(done.stdout.strip().splitlines()[-1])
        runs.append(found)
    print(f"{given.generators} generator(s), {given.repeats} times; seconds since Ray was there")
    for step in (FLOOR, *STEPS):
        values = [run[step] for run in runs]
        print(f"  {step:<36} {statistics.median(values):6.2f}  ({min(values):.2f}–{max(values):.2f})")


if __name__ == "__main__":
    main()

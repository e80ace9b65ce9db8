"""What watching costs: CPU of the monitor's process over a steady minute of a run.

    python benchmarks/monitor_cost.py [--seconds 60] [--replicas 2] [--metrics-page]

Method. A private Ray, the emulated engine with so many replicas (as minimum and maximum), a request every
quarter of a second, samples once a second as always. From ten seconds after t0 on, the CPU time of the whole
monitor process (all its threads, Ray's own among them) is read from the kernel before and after the minute;
start-up and end are outside it. Beside it: Serve's controller, which answers the monitor's polls but has its
own control loop. With `--metrics-page` the run is against the null server as a target, and the monitor reads
a page of a vLLM server's size once a second instead of asking Serve. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

AFTER_S = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time of all threads of a process, from its `stat`."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def processes_of(parent: int) -> dict[int, str]:
    """Every process that descends from `parent`, with its title."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(entry.name)] = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()
            except (OSError, IndexError):
                continue
    found: set[int] = {parent}
    while more := {pid for pid, above in parents.items() if above in found} - found:
        found |= more
    return {pid: titles.get(pid, "") for pid in found}


def page(engines: int) -> bytes:
    """About as much as a vLLM server exports: three gauges an engine, and histograms around them."""
    lines = []
    for name, value in (
        ("num_requests_running", 3.0),
        ("num_requests_waiting", 1.0),
        ("kv_cache_usage_perc", 0.25),
    ):
        lines += [f"# HELP vllm:{name} x", f"# TYPE vllm:{name} gauge"]
        lines += [f'vllm:{name}{{engine="{e}",model_name="m"}} {value}' for e in range(engines)]
    for number in range(20):
        lines.append(f"# TYPE vllm:figure_{number}_seconds histogram")
        for e in range(engines):
            label = f'engine="{e}",model_name="m"'
            lines += [f'vllm:figure_{number}_seconds_bucket{{{label},le="{b}"}} {b}.0' for b in range(25)]
    return "\n".join(lines).encode() + b"\n"


@contextmanager
def metrics_page() -> Iterator[str]:
    body = page(2)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()


def scenario(seconds: float, replicas: int, target: dict[str, Any] | None) -> dict[str, Any]:
    stage = {
        "duration": f"{AFTER_S + seconds + 5}s",
        "arrival": {"process": "constant", "rate": "4/s"},
    }
    under_test: dict[str, Any] = {"target": target}
    if target is None:
        under_test = {
            "deployment": {
                "engine": "emulated",
                "model": "m",
                "slots_per_replica": 4,
                "emulated": {"startup": "1s", "output_tokens": {"distribution": "fixed", "mean": 16}},
                "autoscaling": {"min_replicas": replicas, "max_replicas": replicas},
            }
        }
    return {
        "name": "watched",
        **under_test,
        "load": {"stages": [stage], "request": {"prompt": "x", "max_tokens": 16}, "generators": 1},
    }


def measure(seconds: float, keys: dict[str, Any]) -> dict[str, float]:
    """{title: CPU seconds per second of wall time} of the monitor and of Serve's controller."""
    import yaml

    from raybench.fleet.cluster import attached
    from raybench.fleet.conductor import Conductor, Snapshot
    from raybench.fleet.output import Output
    from raybench.scenario import load

    begun: dict[int, float] = {}
    since = 0.0
    found: dict[str, float] = {}

    def watch(snapshot: Snapshot) -> None:
        nonlocal since
        if snapshot.stage != "load" or snapshot.t_s < AFTER_S or found:
            return
        if not begun:
            watched = {p: t for p, t in processes_of(os.getpid()).items() if "Monitor" in t or "ServeC" in t}
            titles.update(watched)
            begun.update({pid: cpu_s(pid) for pid in watched})
            since = time.monotonic()
        elif time.monotonic() - since >= seconds:
            took = time.monotonic() - since
            found.update({titles[pid]: (cpu_s(pid) - before) / took for pid, before in begun.items()})

    titles: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as directory, attached() as private:
        path = Path(directory) / "s.yaml"
        path.write_text(yaml.safe_dump(keys))
        conductor = Conductor(load(path), Output(Path(directory) / "run"), private=private)
        conductor.watch(watch)
        conductor.run()
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--replicas", type=int, default=2)
    options.add_argument("--metrics-page", action="store_true", help="a target with a page, no deployment")
    given = options.parse_args()
    if given.metrics_page:
        from raybench.client.null_server import Answer
        from raybench.generator.selftest import null_server

        with null_server(Answer(tokens=16)) as (url, _), metrics_page() as metrics_url:
            target = {"url": url, "model": "m", "metrics_url": metrics_url}
            found = measure(given.seconds, scenario(given.seconds, given.replicas, target))
    else:
        found = measure(given.seconds, scenario(given.seconds, given.replicas, None))
    for title, share in sorted(found.items()):
        print(f"{title:<40} {share:7.2%} of a core over {given.seconds:g} s")


if __name__ == "__main__":
    main()

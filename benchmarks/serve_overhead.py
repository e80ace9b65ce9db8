"""What Ray Serve adds to the latency of vLLM: the same load on the bare engine and through Serve.

    python benchmarks/serve_overhead.py [--ingress proxy|haproxy] [--rate 4] [--seconds 20] [--repeats 3]

Method. Two servers on this machine run the same tiny Llama with the same engine arguments and environment:
vLLM's own HTTP server, and a raybench deployment behind Serve. Both stay up for the whole measurement, each
idle while the other is loaded; the loads alternate (bare, Serve, bare, Serve, …) so that whatever else the
machine does meets both. One load is a constant-rate schedule from this process, through raybench's own
client, of short chat requests; each server answers a few before the first that counts.

Printed are exact percentiles of TTFT and of the time per output token over the requests of all repeats, and
the difference of the medians in each repeat. The differences are Serve's: its HTTP proxy, its router, and the
way of every chunk through both. They hold for a machine as busy as this one, and are upper bounds where the
engine has a GPU of its own.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tools")]

MODEL = "tiny-llama"
SERVER = "vllm.entrypoints.launchers.api_server.entry"
START_S = 180
WARM_UP = 8  # requests


def scenario(weights: Path, rate: float, seconds: float, url: str | None) -> Any:
    """The deployment and its load, or the load alone on a server that is there."""
    from raybench.scenario import Scenario

    deployment = {
        "engine": "vllm",
        "model": MODEL,
        "replica": {"cpus": 1, "memory": 2**30, "gpus": 0},
        "slots_per_replica": 64,
        "autoscaling": {"min_replicas": 1, "max_replicas": 1},
        "engine_args": {"model": str(weights), "max_model_len": 2048, "kv_cache_memory_bytes": 64 * 2**20},
    }
    where = {"target": {"url": url, "model": MODEL}} if url else {"deployment": deployment}
    load = {
        "stages": [{"duration": seconds, "arrival": {"process": "constant", "rate": rate}}],
        "request": {
            "prompt": "Describe in a few sentences how an autoscaler decides.",
            "max_tokens": 32,
            "temperature": 0,
            "timeout": 120,
            "extra": {"ignore_eos": True},
        },
    }
    serving = {"application": "serve-overhead", "route": "/serve-overhead"}
    return Scenario.model_validate({"name": "serve-overhead", "serving": serving, "load": load} | where)


class Kept:
    """A sink that keeps the rows."""

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []

    def write(self, table: Any, batch: pa.RecordBatch) -> None:
        if table.name == "requests":
            self.batches.append(batch)

    def close(self) -> None:
        pass


def loaded(url: str, rate: float, seconds: float) -> pa.Table:
    """The `requests` rows of one load on `url`."""
    from raybench import schedule as scheduling
    from raybench.client import Endpoint
    from raybench.generator import Drive, Slice
    from raybench.schema import Schedule
    from raybench.workload import Workload

    asked = scenario(Path(), rate, seconds, url)
    plan = scheduling.build(asked)
    workload, sink = Workload(asked), Kept()
    work = Slice(
        generator=0,
        schedule=plan,
        phases=scheduling.phases(asked, plan.column(Schedule.scheduled_ns).to_numpy()),
        bodies=workload.body,
        endpoints=[Endpoint.parse(url, workload.path, {}, None)],
        timeout_s=asked.load.request.timeout,
        load_kind=scheduling.load_kind(asked),
    )
    Drive(work, sink).run(t0_ns=time.monotonic_ns() + 200_000_000)
    return pa.Table.from_batches(sink.batches)


def milliseconds(name: str, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(TTFT from scheduled, time per output token) of a load. Ends the program if a request failed."""
    from raybench.schema import Outcome, Requests

    def column(name: str) -> np.ndarray:
        return rows.column(name).to_numpy().astype(float)

    outcomes, errors = (rows.column(c).to_pylist() for c in (Requests.outcome, Requests.error))
    failed = [error for outcome, error in zip(outcomes, errors, strict=True) if outcome != Outcome.OK]
    if failed:
        raise SystemExit(f"{name}: {len(failed)} of {len(outcomes)} requests failed: {failed[0]}")
    first, tokens = column(Requests.first_token_ns), column(Requests.output_tokens)
    ttft = (first - column(Requests.anchor_ns)) / 1e6
    tpot = (column(Requests.last_token_ns) - first) / (tokens - 1) / 1e6
    return ttft, tpot


def percentile(values: np.ndarray, p: float) -> float:
    """Nearest rank, as everywhere in raybench."""
    return float(np.sort(values)[math.ceil(p * len(values)) - 1])


@contextmanager
def bare(weights: Path) -> Iterator[str]:
    """vLLM's own server with the arguments and the environment of a replica."""
    from raybench.serving.ports import free_port
    from raybench.serving.vllm_args import arguments, environment

    deployment = scenario(weights, 1, 1, None).deployment
    given = arguments(deployment) | {"served_model_name": MODEL, "host": "127.0.0.1", "port": free_port()}
    words = [
        f"--{key.replace('_', '-')}" + ("" if value is True else f"={value}") for key, value in given.items()
    ]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    process = subprocess.Popen(
        ["nice", "-n", "15", sys.executable, "-m", SERVER, "--disable-uvicorn-access-log", *words],
        env=os.environ | environment(deployment) | offline,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{given['port']}"
    try:
        end = time.monotonic() + START_S
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"vLLM's own server did not start: {' '.join(words)}")
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def served(weights: Path) -> Iterator[str]:
    """The same engine behind Serve. Ray gives its workers a niceness of 15, hence that of the bare one."""
    import ray

    from raybench.serving import deployer

    directory = tempfile.mkdtemp(prefix="rb", dir="/tmp")
    ray.init(
        num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=directory
    )
    try:
        deployed = deployer.deploy(scenario(weights, 1, 1, None))
        yield deployed.url
        deployer.remove(deployed.application, shutdown_serve=True)
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ingress", choices=("proxy", "haproxy"), default="proxy")
    parser.add_argument("--rate", type=float, default=4.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of one load")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if options.ingress == "haproxy":
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"  # read when Ray is imported
    from tiny_llama import make

    weights = make(Path(tempfile.gettempdir()) / f"raybench-tiny-llama-{os.getuid()}")
    names = ("bare engine", f"Serve, {options.ingress}")
    figures: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
    with bare(weights) as first, served(weights) as second:
        for url in (first, second):
            loaded(url, WARM_UP, 1)
        for _ in range(options.repeats):
            for name, url in zip(names, (first, second), strict=True):
                figures[name].append(milliseconds(name, loaded(url, options.rate, options.seconds)))
    print(f"{options.rate:g} requests/s, {options.seconds:g} s, {options.repeats} repeats, milliseconds\n")
    print("|  | requests | TTFT p50 | TTFT p90 | TTFT p99 | TPOT p50 | TPOT p90 |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        ttft, tpot = (np.concatenate([pair[i] for pair in figures[name]]) for i in (0, 1))
        cells = [percentile(ttft, p) for p in (0.5, 0.9, 0.99)] + [percentile(tpot, p) for p in (0.5, 0.9)]
        print(f"| {name} | {len(ttft)} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    for i, what in enumerate(("TTFT", "TPOT")):
        differences = [
            percentile(through[i], 0.5) - percentile(alone[i], 0.5)
            for alone, through in zip(*figures.values(), strict=True)
        ]
        print(f"\nadded to the median {what}, each repeat: " + ", ".join(f"{d:+.1f} ms" for d in differences))


if __name__ == "__main__":
    main()

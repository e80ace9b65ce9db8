"""Fifty kills of random processes of real runs, at random instants: what is left, and does it add up?

    python benchmarks/fifty_kills.py [--kills 50] [--seed 1] [--seconds 5]

Method. One Ray is started for all of them. Each run is `raybench run` as a process of its own: two
generators, 50 requests a second for a few seconds, at a server that costs nothing. At a random instant of
its load a process picked at random is killed with SIGKILL: one of the generators, the monitor, or the
coordinator. Whatever goes on is left to end by itself. Then the run is opened and analysed. Wrong is: an
exception, a batch that could be read before the kill and cannot be read whole after it, a row that is
there twice, planned ≠ accounted for, rows lost by a process that was not killed, or another exit code than
the kill must lead to. Exit code 1 if anything was wrong. (`kills.py` beside this kills a bare writer of
tables, some hundred times faster.)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml

from raybench.analysis import summarise
from raybench.generator.selftest import Answer, null_server
from raybench.rundir import Run
from raybench.rundir import manifest as manifests
from raybench.schema import Exit, Outcome, Requests, Timeline

RATE = 50
ROLES = ("generator", "monitor", "coordinator")
LONGEST_S = 180.0


@dataclass
class Found:
    """One kill and what was left."""

    role: str
    at_s: float  # after t0
    status: str
    planned: int
    ok: int
    lost: int
    other: int
    exit_code: int
    wall_s: float
    wrong: list[str]


def opened(path: Path, later_s: float = 0.0) -> Run:
    """The run as it reads `later_s` from now."""
    return Run(path, manifests.read(path, now_unix_ns=time.time_ns() + int(later_s * 1e9)))


def batches(run: Run) -> dict[tuple[int, ...], int]:
    """The request ids of each whole batch there is -> how often it is there."""
    count: dict[tuple[int, ...], int] = {}
    for batch in run.batches(Requests, [Requests.request_id]):
        key = tuple(batch.column(0).to_pylist())
        count[key] = count.get(key, 0) + 1
    return count


def monitor_pid(path: Path) -> int | None:
    found = sorted((path / Timeline.name).glob("monitor-*"))
    return int(found[-1].name.split("-")[1]) if found else None


def started(path: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The manifest, once the load goes and the monitor has written."""
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            found = json.loads((path / "manifest.json").read_text())
        except OSError:
            found = {}
        if found.get("t0_monotonic_ns") and found["hosts"] and monitor_pid(path):
            return found
        time.sleep(0.05)
    process.kill()
    raise RuntimeError("the load did not start")


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def one(where: Path, scenario: Path, address: str, seconds: float, chance: random.Random) -> Found:
    role, at_s, which = chance.choice(ROLES), chance.uniform(0.0, seconds), chance.randrange(2)
    begun = time.monotonic()
    path = where / "run"
    log = (where / "log").open("wb")
    command = [sys.executable, "-m", "raybench", "run", str(scenario), "-o", str(path), "--address", address]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    manifest = started(path, process)
    generators = {h["number"]: h["pid"] for h in manifest["hosts"] if h["role"] == "generator"}
    monitor = monitor_pid(path) or 0
    time.sleep(max(0.0, (manifest["t0_monotonic_ns"] - time.monotonic_ns()) / 1e9 + at_s))
    before = batches(opened(path))
    victim = {"generator": generators[which], "monitor": monitor, "coordinator": process.pid}[role]
    os.kill(victim, signal.SIGKILL)
    code: int | None = process.wait(LONGEST_S)
    wrong = []
    if role == "coordinator":
        code = None
        if not gone([*generators.values(), monitor]):
            wrong.append("processes of the run live on without their coordinator")
    run = opened(path, later_s=60)
    summary = summarise(run)
    after, a = batches(run), summary.accounting
    if missing := [b for b in before if b not in after]:
        wrong.append(f"{len(missing)} batches could be read before the kill and are gone")
    if any(n > 1 for n in after.values()) or a.duplicates:
        wrong.append("a batch is there twice")
    if not a.balances:
        wrong.append(f"does not balance: {a}")
    rows = {i for batch in after for i in batch}
    lost = set(range(a.planned)) - rows
    if len(lost) != a.outcomes[Outcome.LOST]:
        wrong.append(f"{len(lost)} rows are missing, {a.outcomes[Outcome.LOST]} counted as lost")
    if role == "monitor" and lost:
        wrong.append(f"{len(lost)} rows are lost, though no generator died")
    if role == "generator" and any(i % 2 != which for i in lost):
        wrong.append("rows of the other generator are lost")
    status = str(run.status)
    if status != ("killed" if role == "coordinator" else "complete"):
        wrong.append(f"reads as {status}")
    if code is None:
        code = int(summary.exit_code)
        if code != Exit.INCOMPLETE:
            wrong.append(f"exit code {code}")
    elif code not in (Exit.GOOD, Exit.INVALID) or (lost and code != Exit.INVALID):
        wrong.append(f"exit code {code}: {(where / 'log').read_text()[-500:]}")
    ok, lost_n = a.outcomes[Outcome.OK], a.outcomes[Outcome.LOST]
    other = a.planned - ok - lost_n
    return Found(role, at_s, status, a.planned, ok, lost_n, other, code, time.monotonic() - begun, wrong)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="of load in each run")
    given = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    chance = random.Random(given.seed)
    directory = Path(tempfile.mkdtemp(prefix="rb", dir="/tmp"))
    results: list[Found] = []
    try:
        context = ray.init(
            num_cpus=8,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=200 * 2**20,
            _temp_dir=str(directory / "ray"),
        )
        address = str(context.address_info["gcs_address"])
        with null_server(Answer(tokens=4)) as (url, _):
            stage = {"duration": f"{given.seconds}s", "arrival": {"process": "constant", "rate": f"{RATE}/s"}}
            load = {
                "stages": [stage],
                "generators": 2,
                "request": {"prompt": "x", "max_tokens": 4, "timeout": "5s"},
            }
            scenario = directory / "scenario.yaml"
            scenario.write_text(
                yaml.safe_dump({"name": "kills", "target": {"url": url, "model": "m"}, "load": load})
            )
            print("kill  process       at  reads as  planned    ok  lost  other  exit  took")
            for number in range(given.kills):
                where = directory / str(number)
                where.mkdir()
                r = one(where, scenario, address, given.seconds, chance)
                results.append(r)
                print(
                    f"{number:4}  {r.role:<11} {r.at_s:4.1f}s  {r.status:<8}  {r.planned:7} {r.ok:5}"
                    f" {r.lost:5}  {r.other:5}  {r.exit_code:4}  {r.wall_s:3.0f}s",
                    flush=True,
                )
                for text in r.wrong:
                    print(f"      WRONG: {text}", flush=True)
                if not r.wrong:
                    shutil.rmtree(where)
    finally:
        ray.shutdown()
        if not any(r.wrong for r in results):
            shutil.rmtree(directory, ignore_errors=True)
    failures = sum(bool(r.wrong) for r in results)
    for role in ROLES:
        of = [r for r in results if r.role == role]
        print(f"{role}: {len(of)} kills, {sum(bool(r.wrong) for r in of)} wrong")
    print(f"{len(results)} kills, {failures} runs were wrong")
    return 1 if failures or len(results) < given.kills else 0


if __name__ == "__main__":
    sys.exit(main())

"""One load by one peer: the command on its core, the null server's record, and the figures of both."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raybench.client.null_server import Answer
from raybench.generator.selftest import null_server, quantile

LIMIT_S = 100.0  # for one command


@dataclass(frozen=True)
class Load:
    """What a generator is asked to send: `requests` by `concurrency` callers, or at `rate_per_s`."""

    name: str
    answer: Answer
    requests: int
    concurrency: int | None = None
    rate_per_s: float | None = None


@dataclass(frozen=True)
class Seen:
    """One repeat of one load by one peer."""

    cpu_s: float  # user and system, of every process of the peer
    wall_s: float  # from the command's start to its exit
    requests: int  # by the server's record, as are the following
    chunks: int
    span_s: float  # from the first request received to the last write
    server_cpu_s: float
    left_over: int = 0  # processes of the peer that outlived its command
    lateness_ns: tuple[int, int] | None = None  # p50, p99 of received − scheduled, where that is known
    grid_ns: tuple[int, int] | None = None  # p50, p99 of the distance from the grid that fits best


class Failed(Exception):
    """The peer did not do what it was asked to do; the message says what it did."""


def grid_error_ns(received_ns: Sequence[int], rate_per_s: float) -> np.ndarray:
    """How far each arrival is from the constant grid of this rate that fits them best, sorted ns.

    The i-th arrival belongs to the i-th line. The rate is the one asked for; where the grid begins is
    chosen so that the sum of the distances is least, which is the median of received − i/rate.
    """
    offsets = np.sort(np.asarray(received_ns, np.int64)) - _grid_ns(len(received_ns), rate_per_s)
    return np.sort(np.abs(offsets - int(np.median(offsets))))


def lateness_ns(received_ns: Sequence[int], t0_ns: int, rate_per_s: float) -> np.ndarray:
    """received − scheduled of a schedule that begins at `t0_ns`, sorted ns."""
    return np.sort(np.asarray(received_ns, np.int64) - t0_ns - _grid_ns(len(received_ns), rate_per_s))


def _grid_ns(n: int, rate_per_s: float) -> np.ndarray:
    return np.rint(np.arange(n) * 1e9 / rate_per_s).astype(np.int64)


def points(ordered: np.ndarray) -> tuple[int, int]:
    return quantile(ordered, 0.5), quantile(ordered, 0.99)


def t0_of(output: str) -> int | None:
    """The instant at which a peer's schedule begins, where its output tells: a line of JSON with t0_ns."""
    for line in output.splitlines():
        if line.startswith('{"t0_ns"'):
            return int(json.loads(line)["t0_ns"])
    return None


def figures(
    load: Load, log: Mapping[str, Sequence[int]], cost: Mapping[str, Any], output: str, server_cpu_s: float
) -> Seen:
    """What the server's record (per request: received, then each write) and the launcher's report say.

    Raises Failed where no request came.
    """
    if not log:
        raise Failed("no request arrived")
    received = sorted(stamps[0] for stamps in log.values())
    late = grid = None
    if load.rate_per_s:
        grid = points(grid_error_ns(received, load.rate_per_s))
        t0_ns = t0_of(output)
        late = None if t0_ns is None else points(lateness_ns(received, t0_ns, load.rate_per_s))
    return Seen(
        cpu_s=cost["cpu_s"],
        wall_s=cost["wall_s"],
        requests=len(log),
        chunks=len(log) * load.answer.tokens,
        span_s=(max(stamps[-1] for stamps in log.values()) - received[0]) / 1e9,
        server_cpu_s=server_cpu_s,
        left_over=cost["left_over"],
        lateness_ns=late,
        grid_ns=grid,
    )


def net(load: Seen, few: Sequence[Seen], unit: str) -> float:
    """CPU seconds per request or per chunk (`unit`): what the load took above the median of the `few`."""
    cpu_s, units = load.cpu_s, getattr(load, unit)
    if few:
        cpu_s -= statistics.median(seen.cpu_s for seen in few)
        units -= statistics.median(getattr(seen, unit) for seen in few)
    return float(cpu_s / units)


def measure(
    command: Sequence[str],
    environment: Mapping[str, str],
    load: Load,
    url: str,
    server_pid: int,
    core: int,
    scratch: Path,
    *,
    exact: bool,
    asks_first: int = 0,
) -> Seen:
    """Runs the command against the null server at `url`, which serves this load's answers and keeps a log.

    The first `asks_first` arrivals are not part of the load. With `exact`, Failed is raised unless just the
    requests asked for arrived.
    """
    report, out = scratch / "cost.json", scratch / "output.txt"
    report.unlink(missing_ok=True)
    launcher = [sys.executable, "-I", str(Path(__file__).with_name("launch.py"))]
    before_s = process_cpu_s(server_pid)
    with out.open("wb") as file:
        subprocess.run(
            [*launcher, str(core), str(LIMIT_S), str(report), *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=scratch,
            check=True,
        )
    server_cpu_s = process_cpu_s(server_pid) - before_s
    cost, output = json.loads(report.read_text()), out.read_text(errors="replace")
    if cost["rc"] != 0:
        raise Failed(f"exit code {cost['rc']}\n{output[-1500:]}")
    with urllib.request.urlopen(f"{url}/log", timeout=60) as told:
        log = sorted(json.load(told).items(), key=lambda item: item[1][0])
    seen = figures(load, dict(log[asks_first:]), cost, output, server_cpu_s)
    if exact and seen.requests != load.requests:
        raise Failed(f"{seen.requests} requests arrived, {load.requests} were asked for\n{output[-1500:]}")
    return seen


def served(load: Load, core: int) -> Any:
    """A null server for this load: a context manager that yields (url, pid)."""
    return null_server(load.answer, log=True, core=core)


def process_cpu_s(pid: int) -> float:
    """CPU time of a process so far, in ticks of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def keep(path: Path, kept: dict[str, dict[str, list[Seen]]]) -> None:
    """Write what was measured: load → peer → repeats."""
    plain = {load: {peer: [asdict(s) for s in all] for peer, all in by.items()} for load, by in kept.items()}
    path.write_text(json.dumps(plain, indent=1) + "\n")


def kept(path: Path) -> dict[str, dict[str, list[Seen]]]:
    """What `keep` wrote; nothing where there is no file yet."""
    if not path.exists():
        return {}
    plain = json.loads(path.read_text())
    return {load: {peer: [_seen(s) for s in all] for peer, all in by.items()} for load, by in plain.items()}


def _seen(plain: dict[str, Any]) -> Seen:
    for name in ("lateness_ns", "grid_ns"):
        plain[name] = None if plain[name] is None else tuple(plain[name])
    return Seen(**plain)

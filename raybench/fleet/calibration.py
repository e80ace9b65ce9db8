"""The client's own floor on this machine: measured by self-tests, kept in a cache, used by runs.

A calibration is true of one machine, one set of versions and one number of generators working at the
same time; a cached one that was made with anything else is not used. docs/calibration.md says what is
measured and what a run does with it.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import raybench
from raybench.fleet import facts
from raybench.generator.selftest import Floor
from raybench.schema import Schedule

FORMAT_VERSION = 1
DEFAULT_RATE_PER_S = 100.0
RATES_PER_S = (20.0, 1000.0)
"""Rates tried for one generator: below, a second holds too few requests for a percentile; above, streams
of 32 chunks measure the null server as well."""
TRIAL_S = 1.0
"""About the length of each trial."""
TIMEOUT_S = 60.0
AUTO_SHARE = 0.5
"""`generators: auto`: of a core, what the busiest second of the plan may take of one generator."""
TOKENS_UNKNOWN = 256
"""Chunks expected of an answer that the plan does not limit."""
_VERSIONS = ("raybench", "python", "uvloop", "httptools", "numpy", "pyarrow")


class CalibrationError(Exception):
    """The machine could not be calibrated; the text says why."""


@dataclass(frozen=True)
class Calibration:
    """What each of so many generators at once could do at the least. Flat, as it stands in a manifest."""

    hostname: str
    generators: int
    cores: int
    measured_unix_s: float
    floor: Floor

    def as_dict(self) -> dict[str, Any]:
        own = asdict(self)
        return {**{k: v for k, v in own.items() if k != "floor"}, **own["floor"]}


def identity() -> dict[str, Any]:
    """What a calibration is true of, but for the number of generators."""
    versions = facts.versions()
    machine = facts.machine()
    return {
        "hostname": socket.gethostname(),
        "kernel": platform.release(),
        "cpu": machine["processor"],
        "cores": machine["cores"],
        **{name: versions.get(name) for name in _VERSIONS},
    }


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "raybench"


def cache_path(generators: int) -> Path:
    host = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
    return cache_directory() / f"calibration-{host}-{generators}.json"


def cached(generators: int) -> Calibration | None:
    """The kept calibration, if it is of this machine, these versions and this number; else None."""
    try:
        kept = json.loads(cache_path(generators).read_text(encoding="utf-8"))
        if kept["format_version"] != FORMAT_VERSION or kept["identity"] != identity():
            return None
        values = kept["calibration"]
        floor = Floor(**{f.name: values.pop(f.name) for f in fields(Floor)})
        found = Calibration(floor=floor, **values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        return None
    return found if found.generators == generators and _is_sound(floor) else None


def keep(calibration: Calibration) -> Path:
    """Writes it into the cache, whole or not at all. Raises OSError."""
    path = cache_path(calibration.generators)
    kept = {"format_version": FORMAT_VERSION, "identity": identity(), "calibration": calibration.as_dict()}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
    return path


def tried_rate(rate_per_s: float) -> float:
    """The rate for one generator's trial that comes nearest to the wanted one."""
    return min(max(rate_per_s, RATES_PER_S[0]), RATES_PER_S[1])


def measure(generators: int = 1, rate_per_s: float = DEFAULT_RATE_PER_S) -> Calibration:
    """Self-tests in so many processes at once, each against a null server of its own; some 5 to 15 s.

    `rate_per_s` is for one generator. Of every figure the worst generator's counts. Raises
    CalibrationError when a process fails or any request did.
    """
    machine = identity()
    # Generator and null server take a core each; with fewer cores all get through less in a second.
    seconds = TRIAL_S * min(1.0, machine["cores"] / (2 * generators))
    command = [sys.executable, "-m", "raybench.generator.selftest"]
    command += ["--rate", str(tried_rate(rate_per_s)), "--seconds", str(seconds)]
    package = str(Path(raybench.__file__).parents[1])
    path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p)
    deadline = time.monotonic() + TIMEOUT_S
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        for _ in range(generators)
    ]
    try:
        found = [_floor(p, deadline) for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    floor = worst(found)
    if floor.failures:
        raise CalibrationError(f"{floor.failures} requests to the null server failed: nothing was measured")
    return Calibration(machine["hostname"], generators, machine["cores"], time.time(), floor)


def _floor(process: subprocess.Popen[str], deadline: float) -> Floor:
    try:
        out, err = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise CalibrationError(
            f"the self-test did not end within {TIMEOUT_S:g} s: the machine is too busy to be calibrated"
        ) from None
    if process.returncode:
        last = (err.strip().splitlines() or ["no reason given"])[-1]
        raise CalibrationError(f"the self-test failed: {last}")
    return Floor(**json.loads(out))


_MORE_IS_BETTER = ("requests_per_s", "chunks_per_s", "server_chunks_per_s")


def worst(floors: list[Floor]) -> Floor:
    """Of each figure the worst of all; failures add up."""
    values = {
        f.name: (min if f.name in _MORE_IS_BETTER else max)(getattr(one, f.name) for one in floors)
        for f in fields(Floor)
    }
    return replace(Floor(**values), failures=sum(one.failures for one in floors))


def _is_sound(floor: Floor) -> bool:
    values = asdict(floor)
    return values.pop("failures") == 0 and all(
        isinstance(v, int | float) and math.isfinite(v) and v >= 0 for v in values.values()
    )


# --- what a plan needs ------------------------------------------------------------------------------------


def busiest_second(plan: pa.Table) -> tuple[int, float]:
    """The most requests planned in one second, and the most chunks that those of one second ask for.

    An answer may be as long as its `max_tokens`, or `TOKENS_UNKNOWN`; its chunks are counted where it is
    asked for, since in a load that goes on as many come back in a second as were asked for in one. Rows
    without an instant do not count; (0, 0.0) where none has one.
    """
    timed = plan.filter(plan.column(Schedule.scheduled_ns).is_valid())
    if not timed.num_rows:
        return 0, 0.0
    second = timed.column(Schedule.scheduled_ns).to_numpy() // 1_000_000_000
    tokens = timed.column(Schedule.max_tokens).fill_null(TOKENS_UNKNOWN).to_numpy()
    return int(np.bincount(second).max()), float(np.bincount(second, weights=tokens).max())


def enough(plan: pa.Table, one: Calibration) -> int:
    """Generators of which none takes more than `AUTO_SHARE` of a core in the busiest second of the plan.

    `one` is the calibration of a single generator. Chunks count as arriving one by one, which is dearest.
    """
    requests, chunks = busiest_second(plan)
    floor = one.floor
    busy = requests * floor.cpu_s_per_request + chunks * floor.cpu_s_per_1000_lone_chunks / 1000
    return max(1, math.ceil(busy / AUTO_SHARE))

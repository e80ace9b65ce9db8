"""The crew: the generator actors of a run and the monitor, as the conductor handles them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raybench.fleet import clocks
from raybench.generator import Progress
from raybench.scenario import Scenario
from raybench.schema import Host, Schedule

RESOURCE = "generator"
"""Nodes that declare this custom resource take the generators; without any, all nodes may."""
ROWS_PER_S_EACH = 1000.0
"""`generators: auto`: planned requests a second that one generator is trusted with."""
ASK_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 15.0


class CrewError(Exception):
    """No generator could be started or none is left."""


def how_many(scenario: Scenario, plan: pa.Table) -> int:
    """The scenario's number, or enough for the busiest second of the plan; never more than rows."""
    wanted = scenario.load.generators
    if wanted == "auto":
        scheduled = plan.column(Schedule.scheduled_ns).drop_null().to_numpy()
        busiest = int(np.bincount(scheduled // 1_000_000_000).max()) if len(scheduled) else 1
        wanted = max(1, min(-(-busiest // int(ROWS_PER_S_EACH)), os.cpu_count() or 1))
    return max(1, min(int(wanted), plan.num_rows))


def ask(actor: Any, method: str, *arguments: Any, timeout_s: float = ASK_TIMEOUT_S) -> Any:
    """A call that a dead or slow actor answers with None."""
    if actor is None:
        return None
    with suppress(ray.exceptions.RayError, TimeoutError):
        return ray.get(getattr(actor, method).remote(*arguments), timeout=timeout_s)
    return None


def start_monitor(path: Path, application: str | None) -> Any:
    from raybench.fleet.monitor import start_monitor as start
    from raybench.serving.deployer import DEPLOYMENT_NAME

    monitor = start(str(path), application, DEPLOYMENT_NAME)
    ray.get(monitor.who.remote())
    return monitor


def stop_monitor(monitor: Any) -> list[str]:
    """Ends the monitor and returns the problems it met."""
    try:
        problems: list[str] = ray.get(monitor.stop.remote(), timeout=STOP_TIMEOUT_S)
    except (ray.exceptions.RayError, TimeoutError) as error:
        problems = [f"the monitor did not answer at the end: {type(error).__name__}"]
    ray.kill(monitor)
    return problems


def _placement(scenario: Scenario) -> dict[str, Any]:
    """Where generators may run. A server on loopback has them on its own node: the head's proxy, or here."""
    if scenario.deployment is not None and scenario.serving.listen == "loopback":
        head = next((n["NodeID"] for n in ray.nodes() if _is_head(n)), None)
        node = head or ray.get_runtime_context().get_node_id()
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
    options: dict[str, Any] = {"scheduling_strategy": "SPREAD"}
    if ray.cluster_resources().get(RESOURCE):
        options["resources"] = {RESOURCE: 0.001}
    return options


def _is_head(node: dict[str, Any]) -> bool:
    return bool(node.get("Alive")) and "node:__internal_head__" in node.get("Resources", {})


class Crew:
    """A fixed number of generators, numbered from 0. One that dies is reported once by `lost()`."""

    def __init__(self, scenario: Scenario, monitor: Any, *, generators: int) -> None:
        from raybench.fleet.actor import Generator

        self.size = generators
        self._scenario, self._monitor = scenario, monitor
        options = _placement(scenario)
        self._actors = [Generator.options(**options).remote(n) for n in range(generators)]  # type: ignore[attr-defined]
        self._runs: dict[Any, int] = {}  # ref of start() -> generator number
        self._ended: dict[int, Progress] = {}
        self._last: dict[int, Progress] = {}
        self._lost: list[tuple[int, str]] = []
        self._hosts: list[Host] = []

    def prepare(self, url: str | list[str], path: Path, *, run_prefix: str) -> None:
        """Builds slices and bodies in every generator; raises CrewError naming the one that could not."""
        scenario = self._scenario
        key_env = scenario.target.api_key_env if scenario.target else None
        key = os.environ.get(key_env) if key_env else None  # goes as an argument: never into an environment
        dump = scenario.model_dump(mode="json")
        refs = [
            a.prepare.remote(dump, self.size, url, run_prefix, str(path), self._monitor, key)
            for a in self._actors
        ]
        for number, ref in enumerate(refs):
            try:
                ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                raise CrewError(f"generator {number} could not be prepared: {error.cause}") from error
            except ray.exceptions.RayError as error:
                raise CrewError(f"generator {number} died while preparing: {error}") from error

    def meet(self, t0_ns: int) -> list[Host]:
        """Who and where everybody is, each with a first clock sample."""
        for number, actor in enumerate(self._actors):
            who: clocks.Identity = ray.get(actor.who.remote())
            self._hosts.append(Host("generator", number, who.hostname, who.boot_id, who.pid, who.node))
        self.measure_clocks(t0_ns)
        return self._hosts

    def measure_clocks(self, t0_ns: int) -> None:
        """Adds one clock sample per generator; those on this boot have no offset and are not asked."""
        here = clocks.boot_id()
        for host, actor in zip(self._hosts, self._actors, strict=True):
            if host.boot_id == here:
                if not host.clock:
                    host.clock.append(clocks.same_clock())
                continue
            with suppress(ray.exceptions.RayError):
                host.clock.append(clocks.measure(_asking(actor), t0_ns=t0_ns))

    def start(self, t0_ns: int) -> None:
        """Releases everybody towards one t0, told on each one's own clock."""
        for host, actor in zip(self._hosts, self._actors, strict=True):
            offset_ns = host.clock[-1].offset_ns if host.clock else 0
            self._runs[actor.start.remote(t0_ns + offset_ns)] = host.number

    def running(self) -> bool:
        return bool(self._runs)

    def wait(self, seconds: float) -> None:
        """Waits until somebody has finished or died, at most so long."""
        done, _ = ray.wait(list(self._runs), num_returns=1, timeout=seconds)
        for ref in done:
            number = self._runs.pop(ref)
            try:
                self._ended[number] = ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                self._lost.append((number, f"it failed: {error.cause}"))
            except ray.exceptions.RayError as error:
                self._lost.append((number, f"its process is gone ({type(error).__name__})"))

    def wait_all(self, timeout_s: float) -> None:
        if self._runs:
            ray.wait(list(self._runs), num_returns=len(self._runs), timeout=timeout_s)
            while self._runs:
                before = len(self._runs)
                self.wait(0)
                if len(self._runs) == before:
                    return

    def lost(self) -> list[tuple[int, str]]:
        """Generators found dead since the last call, with what was seen."""
        lost, self._lost = self._lost, []
        return lost

    def progress(self) -> Progress:
        """All generators together. One that does not answer counts as it last stood."""
        for ref, number in list(self._runs.items()):
            del ref
            found = ask(self._actors[number], "progress", timeout_s=1.0)
            if isinstance(found, Progress):
                self._last[number] = found
        return merge([(self._ended.get(n) or self._last.get(n)) for n in range(self.size)])

    def stop(self) -> None:
        """Asks everybody to give up; their `start` returns once what they have is written."""
        for number in self._runs.values():
            with suppress(ray.exceptions.RayError):
                self._actors[number].stop.remote()

    def dismiss(self) -> None:
        for actor in self._actors:
            with suppress(Exception):
                ray.kill(actor)


def _asking(actor: Any) -> Callable[[], int]:
    def clock_ns() -> int:
        found: int = ray.get(actor.clock_ns.remote(), timeout=ASK_TIMEOUT_S)
        return found

    return clock_ns


def merge(parts: list[Progress | None]) -> Progress:
    """Counts add up; a live median over generators is the weighted mean of theirs, for display only."""
    known = [p for p in parts if p is not None]
    counts: Counter[Any] = Counter()
    for part in known:
        counts.update(part.counts)

    def middle(name: str) -> int | None:
        pairs = [(getattr(p, name), max(p.sent, 1)) for p in known if getattr(p, name) is not None]
        return int(sum(v * w for v, w in pairs) / sum(w for _, w in pairs)) if pairs else None

    def highest(name: str) -> int | None:
        return max((getattr(p, name) for p in known if getattr(p, name) is not None), default=None)

    return Progress(
        planned=sum(p.planned for p in known),
        sent=sum(p.sent for p in known),
        in_flight=sum(p.in_flight for p in known),
        counts=counts,
        lateness_p50_ns=middle("lateness_p50_ns"),
        lateness_p99_ns=highest("lateness_p99_ns"),
        lateness_max_ns=highest("lateness_max_ns"),
        ttft_p50_ns=middle("ttft_p50_ns"),
        e2e_p50_ns=middle("e2e_p50_ns"),
        finished=len(known) == len(parts) and all(p.finished for p in known),
        problems=[text for p in known for text in p.problems],
    )

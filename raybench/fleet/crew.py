"""The crew: the generator actors of a run and the monitor, as the conductor handles them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

import raybench
from raybench.fleet import calibration, clocks, placement
from raybench.fleet.metrics import add_up
from raybench.generator import Progress
from raybench.scenario import Scenario
from raybench.schema import Host

ROWS_PER_S_EACH = 1000.0
"""`generators: auto`: planned requests a second that one generator is trusted with."""
ASK_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 15.0
REPLACE_TIMEOUT_S = 60.0
MOST_REPLACEMENTS = 100
"""In one run; beyond that something kills generators faster than replacing them can help."""


class CrewError(Exception):
    """No generator could be started or none is left."""


def how_many(scenario: Scenario, plan: pa.Table) -> int:
    """The scenario's number, or enough for the busiest second of the plan; never more than rows.

    `auto` asks the calibration of one generator; without one, a generator is trusted with `ROWS_PER_S_EACH`.
    It never takes more than this machine's cores.
    """
    wanted = scenario.load.generators
    if wanted == "auto":
        one = calibration.cached(1)
        busiest, _ = calibration.busiest_second(plan)
        needed = -(-busiest // int(ROWS_PER_S_EACH)) if one is None else calibration.enough(plan, one)
        wanted = max(1, min(needed, os.cpu_count() or 1))
    rows: int = plan.num_rows
    places = scenario.load.max_in_flight or scenario.load.concurrency or rows
    return max(1, min(int(wanted), rows, places))


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

    try:
        monitor = start(str(path), application, DEPLOYMENT_NAME)
    except ValueError as error:  # an actor of that name is alive
        raise CrewError(
            f"serving.application: {application!r} is in use by another raybench run on this Ray; "
            "wait for it, or give this scenario another serving.application and serving.route"
        ) from error
    ray.get(monitor.who.remote())
    return monitor


def is_gone(actor: Any) -> bool:
    """Whether the actor's process has died (one that is merely slow has not)."""
    try:
        ray.get(actor.who.remote(), timeout=ASK_TIMEOUT_S)
    except ray.exceptions.RayActorError:
        return True
    except (ray.exceptions.RayError, TimeoutError):
        return False
    return False


def stop_monitor(monitor: Any) -> list[str]:
    """Ends the monitor and returns the problems it met."""
    try:
        problems: list[str] = ray.get(monitor.stop.remote(), timeout=STOP_TIMEOUT_S)
    except (ray.exceptions.RayError, TimeoutError) as error:
        problems = [f"the monitor did not answer at the end: {type(error).__name__}"]
    ray.kill(monitor)
    return problems


class Crew:
    """A fixed number of generators, numbered from 0. One that dies is reported once by `lost()`."""

    def __init__(self, scenario: Scenario, *, generators: int) -> None:
        from raybench.fleet.actor import Generator

        self.size = generators
        self._scenario = scenario

        def make(number: int) -> Any:
            options = placement.options(scenario, number)  # by the nodes of now: one may have gone
            return Generator.options(**options).remote(number)  # type: ignore[attr-defined]

        self._make = make
        self._actors = [make(n) for n in range(generators)]
        self._replaced = 0
        self._arguments: tuple[Any, ...] = ()
        self._runs: dict[Any, int] = {}  # ref of start() -> generator number
        self._ended: dict[int, Progress] = {}
        self._last: dict[int, Progress] = {}
        self._lost: list[tuple[int, str]] = []
        self._gone: list[Progress] = []  # how generators that were replaced last stood
        self._hosts: list[Host] = []

    def prepare(self, url: str | list[str], path: Path, monitor: Any, *, run_prefix: str) -> None:
        """Builds slices and bodies in every generator; raises CrewError naming the one that could not."""
        scenario = self._scenario
        key_env = scenario.target.api_key_env if scenario.target else None
        key = os.environ.get(key_env) if key_env else None  # goes as an argument: never into an environment
        dump = scenario.model_dump(mode="json")
        self._arguments = (dump, self.size, url, run_prefix, str(path), monitor, key)
        refs = [actor.prepare.remote(*self._arguments) for actor in self._actors]
        for number, ref in enumerate(refs):
            try:
                ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                raise CrewError(f"generator {number} could not be prepared: {error.cause}") from error
            except ray.exceptions.RayError as error:
                raise CrewError(f"generator {number} died while preparing: {error}") from error

    def meet(self, t0_ns: int) -> list[Host]:
        """Who and where everybody is, each with a first clock sample."""
        self._hosts = [self._host(number) for number in range(self.size)]
        self.measure_clocks(t0_ns)
        return self._hosts

    def _host(self, number: int) -> Host:
        who: clocks.Identity = ray.get(self._actors[number].who.remote())
        if who.version != raybench.__version__:
            raise CrewError(
                f"generator {number} on {who.hostname} runs raybench {who.version}, this process "
                f"{raybench.__version__}: install one version on every node, or none and submit a job"
            )
        return Host("generator", number, who.hostname, who.boot_id, who.pid, who.node, writer=who.writer)

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

    def report_to(self, monitor: Any) -> None:
        """Generators ship their rows to this monitor from now on, where they ship."""
        for actor in self._actors:
            with suppress(Exception):
                actor.report_to.remote(monitor)
        self._arguments = (*self._arguments[:-2], monitor, self._arguments[-1])

    def start(self, t0_ns: int) -> None:
        """Releases everybody towards one t0, told on each one's own clock."""
        for host, actor in zip(self._hosts, self._actors, strict=True):
            host.t0_offset_ns = host.clock[-1].offset_ns if host.clock else 0
            self._runs[actor.start.remote(t0_ns + host.t0_offset_ns)] = host.number

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

    def replace(self, number: int, t0_ns: int) -> Host | None:
        """A new generator in the place of a dead one, going on with the rows whose instants are still to
        come; its host, or None where that is not possible (any more)."""
        if self._replaced >= MOST_REPLACEMENTS:
            return None
        self._replaced += 1
        last = self._last.get(number)
        if last is not None:
            self._gone.append(last)
        self._last.pop(number, None)
        self._actors[number] = self._make(number)
        try:
            ray.get(self._actors[number].prepare.remote(*self._arguments), timeout=REPLACE_TIMEOUT_S)
            host = self._host(number)
            if host.boot_id == clocks.boot_id():
                host.clock.append(clocks.same_clock())
            else:
                host.clock.append(clocks.measure(_asking(self._actors[number]), t0_ns=t0_ns))
        except (ray.exceptions.RayError, TimeoutError):
            return None
        self._hosts[number] = host
        host.t0_offset_ns = host.clock[-1].offset_ns
        sent = last.sent if last else 0
        self._runs[self._actors[number].start.remote(t0_ns + host.t0_offset_ns, sent)] = number
        return host

    def progress(self) -> Progress:
        """All generators together. One that does not answer counts as it last stood."""
        for number in list(self._runs.values()):
            found = ask(self._actors[number], "progress", timeout_s=1.0)
            if isinstance(found, Progress):
                self._last[number] = found
        return merge([*self._gone, *((self._ended.get(n) or self._last.get(n)) for n in range(self.size))])

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
    """Counts add up, memory is the largest one's; a live median over generators is the weighted mean of
    theirs, for display only."""
    known = [p for p in parts if p is not None]
    outcomes: Counter[str] = Counter()
    for part in known:
        outcomes.update(part.outcomes)

    def middle(name: str) -> int | None:
        pairs = [(getattr(p, name), max(p.sent, 1)) for p in known if getattr(p, name) is not None]
        return int(sum(v * w for v, w in pairs) / sum(w for _, w in pairs)) if pairs else None

    def highest(name: str) -> int | None:
        return max((getattr(p, name) for p in known if getattr(p, name) is not None), default=None)

    return Progress(
        planned=sum(p.planned for p in known),
        sent=sum(p.sent for p in known),
        in_flight=sum(p.in_flight for p in known),
        outcomes=dict(outcomes),
        lateness_p50_ns=middle("lateness_p50_ns"),
        lateness_p99_ns=highest("lateness_p99_ns"),
        lateness_max_ns=highest("lateness_max_ns"),
        ttft_p50_ns=middle("ttft_p50_ns"),
        e2e_p50_ns=middle("e2e_p50_ns"),
        finished=len(known) == len(parts) and all(p.finished for p in known),
        problems=tuple(text for p in known for text in p.problems),
        rss_bytes=max((p.rss_bytes for p in known), default=0),
        not_written=tuple(text for p in known for text in p.not_written),
        counted=add_up([p.counted for p in known]),
    )

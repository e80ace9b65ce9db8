"""The conductor plans, deploys, starts, watches and ends a run.

    plan → run directory → deploy → monitor and generators → clocks → barrier at t0
         → watch until every request is accounted for → settle → end → remove what was deployed

Whatever stops it, the run directory is left readable: generators and monitor write as they go, the
manifest is renewed every second, and its last state says how the run ended.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raybench import schedule as scheduling
from raybench.fleet import calibration, clocks, crew, facts
from raybench.fleet.metrics import Publisher
from raybench.fleet.output import Output
from raybench.fleet.record import Record
from raybench.fleet.snapshot import Snapshot as Snapshot
from raybench.fleet.snapshot import snapshot_of
from raybench.fleet.timekeeper import Now
from raybench.generator import Progress
from raybench.scenario import Scenario
from raybench.scenario.models import Settle
from raybench.schema import EventKind, Exit, LoadKind, Manifest, RunStatus, Schedule

if TYPE_CHECKING:
    from raybench.serving.deployer import Deployed

CLOCK_PERIOD_S = 60.0
WATCH_PERIOD_S = 0.5
BARRIER_S = 0.2
"""From the barrier's release to t0: every generator is told its t0 before it comes."""
STOP_S = 10.0
"""How long generators may take to write what they have when the run ends early."""
STEADY_AFTER_S = 2.0
"""Settled means: at the minimum, and nothing in motion, for this long."""


class Interrupted(Exception):
    """Somebody asked the run to stop."""


class Conductor:
    """One run. `run()` blocks; `interrupt()` may be called from a signal handler or another thread."""

    def __init__(
        self,
        scenario: Scenario,
        output: Output,
        *,
        private: bool = False,
        deployed: Deployed | None = None,
    ) -> None:
        """`private`: the Ray cluster was started for this run and goes with it, Serve and all. `deployed`:
        the scenario's application as it stands already; it is used and left there."""
        self.scenario, self.output, self._private, self._standing = scenario, output, private, deployed
        self._watch: Callable[[Snapshot], None] = lambda snapshot: None
        self._interrupt = threading.Event()
        plan = scheduling.build(scenario)
        self._plan: pa.Table | None = plan  # until it is written: a day's is half a gigabyte
        self._scheduled_ns = plan.column(Schedule.scheduled_ns).drop_null().to_numpy()
        self._generators = crew.how_many(scenario, plan)
        known = calibration.cached(self._generators)
        self.manifest = Manifest(
            name=scenario.name,
            load_kind=LoadKind(scheduling.load_kind(scenario)),
            scenario=scenario.model_dump(mode="json"),
            schedule_sha256=scheduling.digest(plan),
            planned=plan.num_rows,
            created_unix_ns=time.time_ns(),
            boot_id=clocks.boot_id(),
            versions=facts.versions(),
            calibration=known.as_dict() if known else None,
        )
        self._record = Record(
            self.manifest, output, lambda who, text: self._event(EventKind.WRITE_FAILED, who, reason=text)
        )
        self._metrics = Publisher(output.shown.rstrip("/").rpartition("/")[2], self._record.problem)
        self._monitor: Any = None
        self._monitor_answers = True
        self._crew: crew.Crew | None = None
        self._deployed: Any = None
        self.deploying = False  # while true, only an exception ends the wait: see `cli.run`
        self._t0_ns = 0

    def watch(self, watcher: Callable[[Snapshot], None]) -> None:
        """Tells `watcher` how the run stands, about twice a second."""
        self._watch = watcher

    def interrupt(self) -> None:
        """Ends the run early and cleanly: nothing more is sent, what is in flight is given up."""
        self._interrupt.set()

    # --- the run -------------------------------------------------------------------------------

    def run(self) -> Manifest:
        """The whole run, Ray being initialised already. Raises only what happened before there was a run
        directory; later failures are in the manifest, and raised after everything was put away."""
        assert self._plan is not None, "a conductor runs once"
        self._record.begin(self._plan)
        self._plan = None
        pa.default_memory_pool().release_unused()
        status, failure = RunStatus.FAILED, None
        try:
            self._deploy_and_drive()
            status = RunStatus.COMPLETE
        except (Interrupted, KeyboardInterrupt):
            status = RunStatus.INTERRUPTED
        except Exception as error:
            failure = error
            self._record.problem(f"{type(error).__name__}: {error}")
        finally:
            self._show(Snapshot("ending", planned=self.manifest.planned))
            self._close_tables(status)
            # The last word on the run comes before the clean-up: whoever ends a job gives it seconds.
            self.manifest.status = status
            self.manifest.ended_unix_ns = time.time_ns()
            if status is not RunStatus.COMPLETE:
                self.manifest.exit_code = Exit.FAILURE if failure else Exit.INCOMPLETE
            self._record.end()
            self._remove()
        if failure is not None:
            raise failure
        return self.manifest

    def close(self, exit_code: int) -> bool:
        """Writes the exit code into the manifest and brings everything to where `output` says.

        False where some of it could not be brought there; the staging directory then has it.
        """
        self.manifest.exit_code = exit_code
        self._record.save_with_patience()
        return self._record.deliver()

    def _deploy_and_drive(self) -> None:
        scenario = self.scenario
        if scenario.deployment is not None:
            from raybench.serving import deployer

            if self._standing is None:
                self._show(Snapshot("deploying", planned=self.manifest.planned))
                self.deploying = True
            # The monitor is there first, so that it sees the deployment from its first replica on.
            self._monitor = crew.start_monitor(self.output.path, scenario.serving.application)
            self._event(EventKind.RUN_STARTED, scenario.name)
            self._deployed = self._standing or deployer.deploy(scenario)
            self.deploying = False
            url: str | list[str] = self._deployed.url
        else:
            assert scenario.target is not None
            # The generators' processes come up at the same time as the monitor's.
            self._crew = crew.Crew(scenario, generators=self._generators)
            self._monitor = crew.start_monitor(self.output.path, None)
            self._read_page()
            self._event(EventKind.RUN_STARTED, scenario.name)
            url = scenario.target.url
        self.manifest.measured = facts.measured(scenario, url)
        self._check()
        self._show(Snapshot("preparing", planned=self.manifest.planned))
        self._crew = self._crew or crew.Crew(scenario, generators=self._generators)
        self._crew.prepare(url, self.output.path, self._monitor, run_prefix=uuid.uuid4().hex[:8])
        self._check()
        self._start()
        self._drive()
        self._settle()

    def _start(self) -> None:
        """The barrier: everybody is ready, then everybody is told one t0 on its own clock."""
        assert self._crew
        now_ns = time.monotonic_ns()
        t0_ns = now_ns + int(BARRIER_S * 1e9) + self._crew.size * 10_000_000
        self._t0_ns = t0_ns
        hosts = self._crew.meet(t0_ns)
        if time.monotonic_ns() > t0_ns - 100_000_000:  # measuring far clocks took longer: a later t0
            later = time.monotonic_ns() + int(BARRIER_S * 1e9)
            for host in hosts:
                for sample in host.clock:
                    sample.t_ns -= later - t0_ns
            self._t0_ns = t0_ns = later
        self.manifest.hosts = list(hosts)  # the crew puts a replacement in its own list
        self.manifest.generators = self._crew.size
        self.manifest.t0_monotonic_ns = t0_ns
        self.manifest.t0_unix_ns = time.time_ns() + (t0_ns - time.monotonic_ns())
        self._tell_monitor("start", t0_ns)
        self._event(EventKind.LOAD_STARTED, self.scenario.name, t_ns=t0_ns, planned=self.manifest.planned)
        self._crew.start(t0_ns)
        self._record.save()

    def _drive(self) -> None:
        """Watches until every generator has accounted for its rows."""
        assert self._crew
        duration_s = scheduling.duration_ns(self.scenario) / 1e9
        next_clock = time.monotonic() + CLOCK_PERIOD_S
        last: tuple[float, int, int] = (0.0, 0, 0)
        stopping = False
        while self._crew.running():
            if self._interrupt.is_set() and not stopping:
                stopping = True
                self._crew.stop()
            self._crew.wait(WATCH_PERIOD_S)
            self._supervise(stopping)
            progress = self._crew.progress()
            self.manifest.counts = dict(progress.outcomes)
            now = self._now(progress.in_flight)
            self._look_for_problems(progress, now)
            t_s = (time.monotonic_ns() - self._t0_ns) / 1e9
            offered = int(np.searchsorted(self._scheduled_ns, int(t_s * 1e9), side="right"))
            since = max(t_s - last[0], 1e-9)
            self._show(
                replace(
                    snapshot_of("load", progress, t_s, now),
                    planned=self.manifest.planned,
                    offered=offered,
                    left_s=max(0.0, duration_s - t_s),
                    offered_per_s=(offered - last[1]) / since,
                    sent_per_s=(progress.sent - last[2]) / since,
                )
            )
            if t_s - last[0] >= 5.0 or last[0] == 0.0:
                last = (t_s, offered, progress.sent)
            if time.monotonic() >= next_clock:
                next_clock += CLOCK_PERIOD_S
                self._crew.measure_clocks(self._t0_ns)
        self._crew.measure_clocks(self._t0_ns)
        self.manifest.load_total_s = (time.monotonic_ns() - self._t0_ns) / 1e9
        progress = self._crew.progress()
        self.manifest.counts = dict(progress.outcomes)
        now = self._now(progress.in_flight)
        self._look_for_problems(progress, now)
        last_state = snapshot_of("load", progress, self.manifest.load_total_s, now)
        self._show(replace(last_state, planned=self.manifest.planned, offered=len(self._scheduled_ns)))
        self._event(EventKind.LOAD_ENDED, self.scenario.name)
        self._check()

    def _supervise(self, stopping: bool) -> None:
        """Replaces what has died. Rows of a dead generator whose instants have passed stay lost."""
        assert self._crew
        for number, reason in self._crew.lost():
            self._record.problem(f"generator {number} was lost: {reason}")
            self._event(EventKind.GENERATOR_LOST, str(number), reason=reason)
            if stopping:
                continue
            host = self._crew.replace(number, self._t0_ns)
            if host is None:
                self._record.problem(f"generator {number} could not be replaced; its remaining rows are lost")
            else:
                self.manifest.hosts = [*self.manifest.hosts, host]
        if not self._monitor_answers and crew.is_gone(self._monitor):
            self._record.problem("the monitor died and was started again; the timeline has a gap")
            application = self.scenario.serving.application if self._deployed else None
            self._monitor = crew.start_monitor(self.output.path, application)
            self._read_page()
            self._crew.report_to(self._monitor)
            self._tell_monitor("start", self._t0_ns)
            self._event(EventKind.NOTE, "monitor", text="started again after it died")

    def _look_for_problems(self, progress: Progress, now: Now) -> None:
        for text in (*progress.problems, *(now.page.problems if now.page else ())):
            self._record.problem(text)
        for text in (*progress.not_written, *now.problems):
            self._record.not_written(text.split(":")[0], text)

    def _settle(self) -> None:
        """Goes on observing until the deployment is back at its minimum, or `at_most` is over."""
        deployment = self.scenario.deployment
        if deployment is None:
            return
        settle = self.scenario.load.settle or Settle()
        started = time.monotonic()
        steady_since: float | None = None
        while (elapsed := time.monotonic() - started) < settle.at_most:
            self._check()
            now = self._now()
            low = deployment.autoscaling.min_replicas
            at_rest = (now.target, now.starting, now.available, now.stopping) == (low, 0, low, 0)
            steady_since = (steady_since or time.monotonic()) if at_rest else None
            if steady_since and time.monotonic() - steady_since >= STEADY_AFTER_S:
                return
            t_s = (time.monotonic_ns() - self._t0_ns) / 1e9
            assert self._crew
            snapshot = snapshot_of("settling", self._crew.progress(), t_s, now)
            self._show(replace(snapshot, planned=self.manifest.planned, left_s=settle.at_most - elapsed))
            self._interrupt.wait(WATCH_PERIOD_S)
        self._record.problem(
            f"the deployment was not back at {deployment.autoscaling.min_replicas} replicas "
            f"{settle.at_most:g} s after the load ended (load.settle.at_most)"
        )

    # --- the end -------------------------------------------------------------------------------

    def _close_tables(self, status: RunStatus) -> None:
        """Ends everybody who writes, each step whatever became of the one before."""
        if self._crew is not None:
            with suppress(Exception):
                self._crew.stop()
                self._crew.wait_all(timeout_s=STOP_S)
                self.manifest.counts = dict(self._crew.progress().outcomes)
            if self.manifest.load_total_s is None and self.manifest.t0_monotonic_ns is not None:
                self.manifest.load_total_s = (time.monotonic_ns() - self._t0_ns) / 1e9
        deployment = self.scenario.deployment
        if self._deployed is not None and deployment is not None and deployment.engine == "vllm":
            with suppress(Exception):
                self.manifest.measured["engines"] = facts.engines(self._deployed.application)
        if page := self._now().page:
            self.manifest.measured["server_metrics"] = page.in_words()
        if self._monitor is not None:
            if self.manifest.t0_monotonic_ns is None:  # never started: instants count from now
                crew.ask(self._monitor, "start", time.monotonic_ns())
            ended = (str(EventKind.RUN_ENDED), self.scenario.name, {"status": str(status)})
            crew.ask(
                self._monitor, "event", time.monotonic_ns(), *ended
            )  # waits: `stop` must not overtake it
            for text in crew.stop_monitor(self._monitor):
                self._record.problem(text)
        if self._crew is not None:
            self._crew.dismiss()

    def _remove(self) -> None:
        """Takes the application away again, and Serve with it where it was started for this run."""
        if self._deployed is None or self._private or self._standing:
            return  # `deploy` removes what it could not finish
        from raybench.serving import deployer

        try:
            deployer.remove(self._deployed.application, shutdown_serve=self._deployed.started_serve)
        except Exception as error:
            self._record.problem(f"the application was not removed: {error}")

    # --- small things --------------------------------------------------------------------------

    def _check(self) -> None:
        if self._interrupt.is_set():
            raise Interrupted

    def _now(self, in_flight: int | None = None) -> Now:
        found = crew.ask(self._monitor, "now", in_flight)
        self._monitor_answers = isinstance(found, Now)
        return found if isinstance(found, Now) else Now()

    def _read_page(self) -> None:
        if (target := self.scenario.target) and target.metrics_url:
            self._tell_monitor("read_page", target.metrics_url, target.model)

    def _event(self, kind: EventKind, subject: str, t_ns: int | None = None, **detail: Any) -> None:
        self._tell_monitor("event", time.monotonic_ns() if t_ns is None else t_ns, str(kind), subject, detail)

    def _tell_monitor(self, method: str, *arguments: Any) -> None:
        with suppress(Exception):  # a dead monitor must not stop the load; its absence is seen at the end
            getattr(self._monitor, method).remote(*arguments)

    def _show(self, snapshot: Snapshot) -> None:
        snapshot = replace(snapshot, problems=tuple(self.manifest.problems))
        self._metrics.show(snapshot)
        self._watch(snapshot)

"""Measuring what one replica sustains: deploy it once, then one short run after another, each a normal run.

    alone → a rate → judged → the next rate → … → the bracket is narrow enough

`analysis.sustained` says which rate comes next and for how long, `analysis.probe` whether one was sustained;
here they are run, and after each of them `capacity.json` says what is known so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from raybench.analysis import Question, Summary, summarise
from raybench.analysis.probe import Judged, Judgement, hopeless, judge
from raybench.analysis.question import METRICS, SUCCESS_RATE, Objective, scenario_objectives
from raybench.analysis.sustained import (
    Bracket,
    Length,
    bracket,
    enough_requests,
    first_rate,
    length,
    lowest_rate,
    next_rate,
)
from raybench.fleet import facts
from raybench.fleet.conductor import Conductor, Snapshot
from raybench.fleet.output import Output
from raybench.rundir import Run, RunError, open_run
from raybench.rundir import capacity as files
from raybench.scenario import Scenario
from raybench.schema import RunStatus
from raybench.schema.capacity import CapacityProbe, CapacityRun
from raybench.schema.vocabulary import Exit

if TYPE_CHECKING:
    from raybench.serving.deployer import Deployed

ALONE = "alone"
ALONE_REQUESTS = 5
MOST_PROBES = 30
LOOK_S = 2.0
"""How often a probe that is going is looked at for being hopeless."""
INTERRUPTED = "interrupted"


class CapacityError(ValueError):
    """This scenario has no capacity that could be measured so; the text says what would be right."""


@dataclass(frozen=True)
class Settings:
    """How the search is made. Rates are requests a second."""

    precision: float
    at_most_s: float  # that a probe is judged over
    start_per_s: float | None = None  # None: from an answer's time alone


def one_replica(scenario: Scenario) -> Scenario:
    """The same with exactly one replica and nobody who would change that. Raises CapacityError."""
    if not scenario_objectives(scenario.model_dump(mode="json")):
        raise CapacityError(
            "objectives: none are stated, so that any rate would be sustained; "
            "state some, such as objectives: {ttft_p95: 2s, success_rate: 99%}"
        )
    if scenario.load.request.conversation is not None:
        raise CapacityError(
            "load.request.conversation: a rate of single requests is searched for; leave the conversation out"
        )
    if scenario.load.request.prompts and scenario.load.request.prompt_column in ("messages", "conversations"):
        raise CapacityError(
            "load.request.prompt_column: a rate of single requests is searched for, not of conversations; "
            "name a column of prompts"
        )
    if not scenario.load.request.sources:
        raise CapacityError(
            "load.request: its prompts come from a trace, whose instants are not used here; give a prompt, a "
            "data file of prompts, or input_tokens"
        )
    if scenario.deployment is None:
        return scenario
    single = {"policy": "fixed", "policy_options": {}, "min_replicas": 1, "max_replicas": 1}
    autoscaling = scenario.deployment.autoscaling.model_copy(update=single)
    deployment = scenario.deployment.model_copy(update={"autoscaling": autoscaling})
    return scenario.model_copy(update={"deployment": deployment})


def arrival_of(scenario: Scenario) -> dict[str, Any]:
    """The arrival process of the probes, but for its rate: as even, as random or as bursty as the scenario's
    first stage; random where that replays a trace or bursts, even in a closed loop.
    """
    arrival = scenario.load.stages[0].arrival
    process = arrival.process if arrival is not None else "constant"
    if process == "gamma":
        return {"process": "gamma", "burstiness": getattr(arrival, "burstiness", 1.0)}
    random = process in ("poisson", "bursts", "trace") or getattr(arrival, "spacing", "") == "poisson"
    return {"process": "poisson" if random else "constant"}


class Bracketing:
    """One measurement. `run()` blocks; `interrupt()` may be called from a signal handler."""

    def __init__(
        self,
        scenario: Scenario,
        directory: Path,
        settings: Settings,
        *,
        private: bool = False,
        tell: Callable[[str], None] = lambda text: None,
        watch: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> None:
        """`directory` is new or empty. `private`: Ray was started for this and goes with it. `tell` is given
        a line for each thing that happens, `watch` how the probe of the moment stands.
        """
        self.scenario = one_replica(scenario)
        self._directory, self._settings, self._private = directory, settings, private
        self._tell, self._watch = tell, watch
        self._objectives = scenario_objectives(self.scenario.model_dump(mode="json"))
        self._wanted = enough_requests(self._objectives)
        self._conductor: Conductor | None = None
        self._deployed: Deployed | None = None
        self._stopped = False
        self.deploying = False  # while true, only an exception ends the wait
        self.found = CapacityRun(
            name=scenario.name,
            scenario=self.scenario.model_dump(mode="json"),
            precision=settings.precision,
            arrival=arrival_of(scenario),
            created_unix_ns=time.time_ns(),
            versions=facts.versions(),
        )

    def interrupt(self) -> None:
        """Ends the probe of the moment and the search with it; what was found stays."""
        self._stopped = True
        if self._conductor is not None:
            self._conductor.interrupt()

    def run(self) -> CapacityRun:
        """The whole search, Ray being initialised already. Raises what a deployment or a run raises, after
        what was found until then is written.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._save()
        except OSError as error:
            raise RunError(
                f"{self._directory}: cannot be written: {error.strerror or error}; "
                "name a directory on a disk with space that you may write to"
            ) from error
        status = RunStatus.FAILED
        try:
            self._deploy()
            if not self._stopped:
                self._search()
            status = RunStatus.INTERRUPTED if self._stopped else RunStatus.COMPLETE
        except KeyboardInterrupt:
            status = RunStatus.INTERRUPTED
        except Exception as error:
            self._end(f"{type(error).__name__}: {error}", Exit.FAILURE)
            raise
        finally:
            if status is RunStatus.INTERRUPTED:
                self._end("by a signal", Exit.INCOMPLETE)
            self.found.status, self.found.ended_unix_ns = status, time.time_ns()
            self._save()
            self._remove()
        return self.found

    # --- the search ----------------------------------------------------------------------------

    def _search(self) -> None:
        alone_s = self._alone()
        if alone_s is None:
            return
        s = self._settings
        slots = self.scenario.deployment.slots_per_replica if self.scenario.deployment else None
        start = s.start_per_s or first_rate(alone_s, slots)
        least = min(lowest_rate(alone_s, s.at_most_s), start)
        tried: list[tuple[float, bool]] = []
        while len(self.found.probes) < MOST_PROBES and not self._stopped:
            known = self._note(tried)
            rate = next_rate(known, start, s.precision, least)
            if rate is None:
                self._conclude(known)
                return
            takes = length(rate, self._wanted, alone_s, s.at_most_s)
            word = self._probe(rate, takes)
            if word is Judgement.INVALID:  # once may be the machine's mood
                word = self._probe(rate, takes)
            if word is Judgement.INVALID:
                where = self.found.probes[-1].run
                told = f"at {rate:g}/s the generators did not do what the plan says, twice: see {where}"
                self._end(told, Exit.INVALID)
                return
            if word is not None:
                tried.append((rate, word is Judgement.SUSTAINED))
        self._note(tried)
        if not self._stopped:
            self._end(f"not narrowed down in {MOST_PROBES} probes", Exit.INCOMPLETE)

    def _note(self, tried: list[tuple[float, bool]]) -> Bracket:
        known = bracket(tried)
        self.found.requests_per_s, self.found.not_sustained_per_s = known.low, known.high
        self.found.found = known.is_within(self._settings.precision)
        self._save()
        return known

    def _conclude(self, known: Bracket) -> None:
        if known.low is not None:
            self._end("the bracket is as narrow as asked for", Exit.GOOD)
        else:
            told = f"hopeless: not even {known.high or 0:g}/s is sustained, where requests hardly meet"
            self._end(told, Exit.OBJECTIVES_MISSED)

    def _end(self, why: str, code: Exit) -> None:
        self.found.why_ended, self.found.exit_code = why, int(code)

    def _alone(self) -> float | None:
        """An answer's time while nothing else is asked; None where that says that there is no hope."""
        timeout_s = self.scenario.load.request.timeout
        stage = {"duration": min(ALONE_REQUESTS * timeout_s, 86400.0), "requests": ALONE_REQUESTS}
        self._tell(f"alone: {ALONE_REQUESTS} requests, one after another")
        conductor = self._made({"stages": [stage], "concurrency": 1, "generators": 1}, ALONE)
        source, summary = self._conduct(conductor, question=Question(percentiles=(50,)))
        self.found.measured = dict(source.manifest.measured)
        if self._stopped:
            return None
        value = summary.latencies.e2e_sent.at(50)
        if value is None or value.censored or value.value <= 0:
            told = ", ".join(f"{r.outcome}: {r.error}" for r in summary.reasons[:2])
            self._end(f"hopeless: no answer even alone ({told})", Exit.OBJECTIVES_MISSED)
            return None
        self.found.alone_s = value.value
        self._tell(f"alone: {value.value:.3g} s an answer")
        if (missed := _missed_alone(summary, self._objectives)) is not None:
            self._end(f"hopeless: {missed} even alone", Exit.OBJECTIVES_MISSED)
            return None
        return value.value

    def _probe(self, rate: float, takes: Length) -> Judgement | None:
        """One run at one rate; None where it was interrupted."""
        name = f"probe-{len(self.found.probes) + 1:02d}"
        stage = {"duration": takes.total_s, "arrival": self.found.arrival | {"rate": rate}}
        self._tell(f"{name}: {rate:g}/s for {takes.total_s:.3g} s")
        conductor = self._made({"stages": [stage], "warmup": takes.warmup_s}, name)
        doomed = _Doomed(self._directory / name, self._objectives, conductor)
        source, summary = self._conduct(conductor, doomed)
        probe = CapacityProbe(
            run=name,
            rate_per_s=rate,
            judged=INTERRUPTED,
            warmup_s=takes.warmup_s,
            judged_s=takes.judged_s,
            enough=takes.enough,
            planned=source.manifest.planned,
            objectives={r.objective.name: r.value.value if r.value else None for r in summary.objectives},
            beyond=[r.objective.name for r in summary.objectives if r.value and r.value.censored],
        )
        self.found.probes.append(probe)
        if self._stopped:
            probe.objectives, probe.beyond = {}, []
            return None
        judged = judge(source, summary, self._settings.precision)
        if doomed.why is not None:
            judged = Judged(Judgement.MISSED, (doomed.why,), judged.growth)
            probe.stopped_early = True
            probe.objectives |= dict.fromkeys({SUCCESS_RATE} & probe.objectives.keys())  # what was given up
        probe.judged, probe.reasons = str(judged.word), list(judged.reasons)
        if judged.growth is not None:
            probe.growth_per_s, probe.growth_error = judged.growth.per_s, judged.growth.error
        why = f": {'; '.join(judged.reasons)}" if judged.reasons else ""
        self._tell(f"{name}: {rate:g}/s {judged.word}{why}")
        return judged.word

    # --- one run -------------------------------------------------------------------------------

    def _made(self, load: dict[str, Any], name: str) -> Conductor:
        """A conductor of the same request at another load."""
        own = self.scenario.load
        kept = {"api": own.api, "request": own.request.model_dump(), "record_chunks": own.record_chunks}
        dump = self.scenario.model_dump()
        dump |= {"name": f"{self.scenario.name}-{name}"[-80:].lstrip("-._"), "load": kept | load}
        dump["load"].setdefault("generators", own.generators)
        try:
            scenario = Scenario.model_validate(dump)
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise CapacityError(f"{name} cannot be made of this scenario: {told}") from error
        return Conductor(
            scenario, Output(self._directory / name), private=self._private, deployed=self._deployed
        )

    def _conduct(
        self, conductor: Conductor, doomed: _Doomed | None = None, question: Question | None = None
    ) -> tuple[Run, Summary]:
        def watch(snapshot: Snapshot) -> None:
            self._watch(snapshot)
            if doomed is not None:
                doomed(snapshot)

        self._conductor = conductor
        conductor.watch(watch)
        if self._stopped:  # between two probes
            conductor.interrupt()
        try:
            conductor.run()
            source = open_run(conductor.output.path)
            summary = summarise(source, question)
            conductor.close(summary.exit_code)
        finally:
            self._conductor = None
        return source, summary

    def _deploy(self) -> None:
        if self.scenario.deployment is None:
            return
        from raybench.serving import deployer

        self._tell("deploying one replica")
        self.deploying = True
        if not self._stopped:
            self._deployed = deployer.deploy(self.scenario)
        self.deploying = False

    def _remove(self) -> None:
        if self._deployed is None or self._private:
            return
        from raybench.serving import deployer

        try:
            deployer.remove(self._deployed.application, shutdown_serve=self._deployed.started_serve)
        except Exception as error:
            self.found.problems.append(f"the application was not removed: {error}")
            with suppress(OSError):
                self._save()

    def _save(self) -> None:
        files.write(self._directory, self.found)


class _Doomed:
    """Looks at a probe that is going, and ends it once its objectives are out of reach; `why` says so."""

    def __init__(self, path: Path, objectives: tuple[Objective, ...], conductor: Conductor) -> None:
        self._path, self._objectives, self._conductor = path, objectives, conductor
        self._looked_s = time.monotonic()
        self.why: str | None = None

    def __call__(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if snapshot.stage != "load" or self.why is not None or now - self._looked_s < LOOK_S:
            return
        self._looked_s = now
        with suppress(RunError, OSError):  # it is being written; the next look may read it
            self.why = hopeless(open_run(self._path), self._objectives)
        if self.why is not None:
            self._conductor.interrupt()


def _missed_alone(summary: Summary, objectives: tuple[Objective, ...]) -> str | None:
    """An objective that half the answers miss while nothing else is asked; None where there is none."""
    of = {
        "ttft": summary.latencies.ttft_sent,
        "e2e": summary.latencies.e2e_sent,
        "tpot": summary.latencies.tpot,
    }
    for o in objectives:
        if o.metric == SUCCESS_RATE or o.metric not in METRICS or (o.percent or 0) < 50:
            continue
        value = of[o.metric].at(50)
        if value is not None and value.value > o.limit:
            return f"the median is {value.value:.3g} s where {o.name} may be {o.limit:g} s,"
    return None

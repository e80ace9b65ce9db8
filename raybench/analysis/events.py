"""Each scaling event taken apart: from the change of load, through the decision, to relief.

    up      load changed → threshold crossed → window elapsed → decision → replica starting (→ node joined)
            → ready → first token from it → objective met again
    down    load changed → threshold crossed → window elapsed → decision → stopping → stopped

Every instant comes from something recorded: the schedule, the timeline's samples, the events, the requests.
What was not recorded is said, never filled in. What each link takes counts from the link before it that was
seen, so that a chain always adds up from its first instant to its last. Inside, instants are ns after t0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raybench.analysis.answers import Answers, Course, FirstSent, Waiting, first_tokens, gather
from raybench.analysis.figures import Chain, Link
from raybench.analysis.load import Plan
from raybench.analysis.observed import Event, Life, Observed, is_down, real, replicas, stretches
from raybench.analysis.question import Anchor, Objective
from raybench.analysis.source import Source
from raybench.analysis.trigger import Trigger, trigger
from raybench.schema import EventKind, LoadKind

LOAD, CROSSED, WINDOW, DECISION = "load changed", "threshold crossed", "window elapsed", "decision"
STARTING, NODE, READY = "replica starting", "node joined", "ready"
FIRST_TOKEN, MET = "first token", "objective met"
STOPPING, STOPPED = "replica stopping", "stopped"

WINDOW_S = 10.0
"""How long an objective must be met to count as met again, where no autoscaling window is known."""


@dataclass
class _Event:
    """A step that changed the target, with the replicas that it brought or stopped."""

    number: int
    step: Event
    up: bool
    lives: Sequence[Life]
    until: int  # the next step, or the end of observation
    absent_since: int | None = None  # from zero: when the last replica went
    ready: int | None = None
    waited: Waiting | None = None
    cold: Waiting | None = None
    first_sent: FirstSent | None = None


def chains(
    source: Source, seen: Observed, plan: Plan, objectives: Sequence[Objective], anchor: Anchor
) -> tuple[tuple[Chain, ...], Answers]:
    """The chain of every step that changed the target, in order of time, and what the requests said on the
    way. Raises nothing of its own.
    """
    events = _events(seen)
    names = [life.replica for life in seen.lives]
    tokens, named = first_tokens(source, names)
    for e in (e for e in events if e.up):
        e.ready = min((r for life in e.lives if (r := _ready(life, tokens)) is not None), default=None)
        gone = min((life.stopped for life in e.lives if life.stopped is not None), default=seen.last)
        end = e.ready if e.ready is not None else gone
        span = [(e.step.t_ns, end)] if e.lives and end > e.step.t_ns else []
        e.waited = Waiting(span)
        e.cold = Waiting(_absent(seen, *span[0]) if span else [])
        if e.absent_since is not None:
            e.first_sent = FirstSent(e.absent_since, e.step.t_ns)
    answers = gather(
        source,
        objectives,
        anchor,
        [w for e in events for w in (e.waited, e.cold) if w is not None],
        [e.first_sent for e in events if e.first_sent is not None],
        seen.last,
        with_courses=any(e.up for e in events),
    )
    made, before = [], None
    for e in events:
        made.append(_chain(source, seen, plan, e, before, tokens, named, answers.courses))
        before = e.step
    return tuple(made), answers


def _events(seen: Observed) -> list[_Event]:
    """The steps that moved the target, told once though policy and host may both report one."""
    moved: list[tuple[int, Event, bool]] = []
    target: int | None = None
    for number, step in enumerate(seen.steps):
        before, after = replicas(step)
        before = target if target is not None else before
        if after is not None and before is not None and after != before:
            moved.append((number, step, after > before))
        target = after if after is not None else target
    stops = sorted((x for x in seen.lives if x.stopping is not None), key=lambda x: x.stopping or 0)
    found = []
    for i, (number, step, up) in enumerate(moved):
        until = moved[i + 1][1].t_ns if i + 1 < len(moved) else seen.last
        if up:
            lives = [life for life in seen.lives if life.step == number]
            from_zero = step.kind == EventKind.TARGET_CHANGED and replicas(step)[0] == 0
            absent = _absent_since(seen, step.t_ns) if from_zero else None
            found.append(_Event(number, step, up, lives, until, absent))
        else:
            before, after = replicas(step)
            count = (before or 0) - (after or 0)
            lives = [life for life in stops if (life.stopping or 0) >= step.t_ns][:count]
            stops = [life for life in stops if life not in lives]
            found.append(_Event(number, step, up, lives, until))
    return found


def _absent_since(seen: Observed, t: int) -> int:
    """Since when nothing has been available at `t`; a time long before the run where it never was."""
    points = [(at, n) for at, n in seen.available if at <= t]
    return points[-1][0] if len(points) > 1 else int(np.iinfo(np.int64).min)


def _absent(seen: Observed, start: int, end: int) -> list[tuple[int, int]]:
    points = [(min(start, seen.available[0][0]), 0), *seen.available] if seen.available else [(start, 0)]
    return stretches(points, 0, start, end)


def _ready(life: Life, tokens: dict[str, int]) -> int | None:
    """When it was seen running, or its first token where that came sooner: states are polled."""
    known = [t for t in (life.running, tokens.get(life.replica)) if t is not None]
    return min(known, default=None)


# --- one chain -----------------------------------------------------------------------------------------


class _Links:
    """Collects links; each takes its time from the one before it that was seen."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.first: int | None = None
        self.last: int | None = None

    def add(self, name: str, at: int | None, note: str = "", not_before: int | None = None) -> None:
        took = (at - self.last) / 1e9 if at is not None and self.last is not None else None
        earliest = None if not_before is None or at is None else not_before / 1e9
        self.links.append(Link(name, None if at is None else at / 1e9, took, earliest, note))
        if at is not None:
            self.first = at if self.first is None else self.first
            self.last = at

    @property
    def total_s(self) -> float | None:
        return None if self.first is None or self.last is None else (self.last - self.first) / 1e9


def _chain(
    source: Source,
    seen: Observed,
    plan: Plan,
    e: _Event,
    before: Event | None,
    tokens: dict[str, int],
    named: bool,
    courses: Sequence[Course],
) -> Chain:
    links = _Links()
    why = trigger(source.manifest, seen, e.step, e.up, before, e.first_sent)
    links.add(LOAD, *_load_changed(source, seen, plan, e, why))
    links.add(CROSSED, why.crossed, why.crossed_note, why.not_before)
    links.add(WINDOW, why.elapsed, why.elapsed_note)
    links.add(DECISION, e.step.t_ns, "by the policy" if e.step.kind == EventKind.DECISION else "by the host")
    if e.up:
        _upwards(links, seen, e, tokens, named)
        _relief(links, source, e, why, courses)
    else:
        _downwards(links, e)
    return Chain(
        step=e.number,
        up=e.up,
        replicas=tuple(life.replica for life in e.lives),
        links=tuple(links.links),
        total_s=links.total_s,
        waited=e.waited.figures() if e.waited is not None and e.lives else None,
        cold=e.cold.figures() if e.cold is not None and e.lives else None,
    )


def _load_changed(
    source: Source, seen: Observed, plan: Plan, e: _Event, why: Trigger
) -> tuple[int | None, str]:
    """The last change of the planned rate in the step's own direction before its threshold was crossed."""
    if source.manifest.load_kind is LoadKind.CLOSED:
        return None, "a closed loop has no planned rate"
    if not plan.stages:
        return None, "the schedule has no instants"
    crossed = why.crossed if why.crossed is not None else e.step.t_ns
    rates = [0.0, *(s.per_s for s in plan.stages), 0.0]
    starts = [*(s.start for s in plan.stages), plan.stages[-1].end]
    found: tuple[int, str] | None = None
    unsteady = ""
    for i, at in enumerate(starts):
        if at > crossed:
            break
        stage = plan.stages[i] if i < len(plan.stages) else None
        if stage is not None and not stage.steady:
            found = None
            unsteady = f"the load of stage {stage.number} ({stage.process}) changes all the time"
            continue
        unsteady = ""
        if (rates[i + 1] > rates[i]) if e.up else (rates[i + 1] < rates[i]):
            found = at, f"planned {rates[i]:.3g}/s → {rates[i + 1]:.3g}/s"
    if found is None:
        return None, unsteady or f"no planned {'rise' if e.up else 'fall'} before it"
    undone = [s.t_ns for s in seen.steps if found[0] < s.t_ns < e.step.t_ns and is_down(s) == e.up]
    if undone:
        turn = "down" if e.up else "up"
        return None, f"the planned rate had not changed since the step {turn} at {undone[-1] / 1e9:.2f} s"
    return found


def _upwards(links: _Links, seen: Observed, e: _Event, tokens: dict[str, int], named: bool) -> None:
    if not e.lives:
        for name in (STARTING, READY, FIRST_TOKEN):
            links.add(name, None, "no replica was seen that this step asked for")
        return
    many = f"the first of {len(e.lives)}" if len(e.lives) > 1 else ""
    starting = min((x.starting for x in e.lives if x.starting is not None), default=None)
    links.add(STARTING, starting, many if starting is not None else "it was not seen starting")
    _node(links, seen, e)
    if e.ready is None:
        links.add(READY, None, "it was never seen running")
    else:
        sooner = [x for x in e.lives if tokens.get(x.replica) == e.ready and x.running != e.ready]
        seen_at = sooner[0].running if sooner else None
        late = f"its first token came before it was seen running at {(seen_at or 0) / 1e9:.2f} s"
        links.add(READY, e.ready, late if seen_at is not None else many)
    first = min((tokens[x.replica] for x in e.lives if x.replica in tokens), default=None)
    none = "no answer came from it" if named else "the answers do not name their replicas"
    links.add(FIRST_TOKEN, first, many if first is not None else none)


def _node(links: _Links, seen: Observed, e: _Event) -> None:
    """Only where the number of nodes rose while the replica was awaited."""
    samples = seen.samples.at(~np.isnan(seen.samples.nodes))
    end = e.ready if e.ready is not None else e.until
    earlier = samples.t <= e.step.t_ns
    if not earlier.any():
        return
    had = samples.nodes[earlier][-1]
    more = (samples.t > e.step.t_ns) & (samples.t <= end) & (samples.nodes > had)
    if more.any():
        i = int(np.argmax(more))
        at, since = int(samples.t[i]), int(samples.t[i - 1])
        if links.last is not None and at < links.last:
            since = at = links.last
        links.add(NODE, at, f"{samples.nodes[i] - had:.0f} more", max(since, e.step.t_ns))


def _downwards(links: _Links, e: _Event) -> None:
    if not e.lives:
        for name in (STOPPING, STOPPED):
            links.add(name, None, "no replica was seen to stop")
        return
    links.add(STOPPING, min(life.stopping for life in e.lives if life.stopping is not None))
    stopped = [life.stopped for life in e.lives if life.stopped is not None]
    whole = len(stopped) == len(e.lives)
    links.add(STOPPED, max(stopped) if whole else None, "" if whole else "it was not seen to be gone")


def _relief(links: _Links, source: Source, e: _Event, why: Trigger, courses: Sequence[Course]) -> None:
    """The answer with which the last of the missed objectives begins to be met for a whole window."""
    if not courses:
        links.add(MET, None, "no objective is stated")
        return
    began = why.crossed if why.crossed is not None else e.step.t_ns
    autoscaling = (source.manifest.scenario.get("deployment") or {}).get("autoscaling") or {}
    # The scenario's, whatever window the policy of this run decides by: the same for every policy on it.
    known_s = real(autoscaling.get("autoscaling_window")) or real(e.step.detail.get("window_s"))
    window_s = known_s or WINDOW_S
    missed = [c for c in courses if c.is_missed_in(began, e.until)]
    if not missed:
        links.add(MET, None, "no answer missed an objective from the threshold to the next step")
        return
    if e.ready is None:
        links.add(MET, None, "no replica came to relieve")
        return
    start = links.last if links.last is not None else e.ready
    found = [c.met_from(start, e.until, round(window_s * 1e9)) for c in missed]
    names = ", ".join(c.objective.name for c in missed)
    instants = [t for t in found if t is not None]
    if len(instants) < len(missed):
        links.add(MET, None, f"{names}: not before {e.until / 1e9:.2f} s, the next step or the end")
    else:
        links.add(MET, max(instants), f"{names}: from here through {window_s:g} s")

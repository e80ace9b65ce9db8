"""What a search has found, as plain values: where every setting stands, and which one to take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from raybench.analysis.student import critical
from raybench.schema import Exit
from raybench.tuning.frontier import Point, dominates, frontier
from raybench.tuning.trial import Trial

OWN = 0
"""The scenario's own setting is the first."""


class Fate(StrEnum):
    FRONTIER = "frontier"  # nothing is as cheap and as good, and better in one
    DOMINATED = "dominated"  # by the setting named in `by`
    SAME = "same"  # did exactly as the setting named in `by` in every run that both have
    UNTRIED = "untried"  # the search was interrupted before


@dataclass(frozen=True)
class Standing:
    """A setting after the search. Means over its runs; of latencies the middle run's, since a timeout's is
    not known. None where it was never run.
    """

    fate: Fate
    by: int | None = None
    runs: int = 0  # of the search
    met: int = 0  # of these, those that met every objective
    invalid: int = 0  # of these, those whose verdict would be INVALID
    replica_seconds: float | None = None
    replica_seconds_half: float | None = None  # of the mean's interval; None with fewer than two runs
    goodput_per_s: float | None = None
    against: float | None = None
    values: tuple[float, ...] = ()  # of each objective
    missed: tuple[int, ...] = ()  # of each objective, the runs that missed it


@dataclass(frozen=True)
class Confirmation:
    """A candidate's fresh runs. `passed` is None where they were interrupted."""

    setting: int
    runs: int
    met: int
    allowed: int  # misses with which it passes
    error: float  # of saying so wrongly
    passed: bool | None


@dataclass(frozen=True)
class Saving:
    """What the chosen setting costs less than the scenario's own, paired by load. Positive: it is cheaper."""

    runs: int
    replica_seconds: float
    half: float | None  # of its interval; None where nothing is random
    share: float | None  # of the own setting's cost
    own_met: int  # of these runs, those in which the own setting met every objective


@dataclass(frozen=True)
class Tuned:
    random: bool  # False: repeats would draw nothing anew, and each setting has one run
    interrupted: bool
    simulated: int  # runs in all
    standings: tuple[Standing, ...]  # in the order of the settings
    frontier: tuple[int, ...]  # by rising cost
    confirmations: tuple[Confirmation, ...]
    chosen: int | None
    nearest: int | None  # where none was chosen: the one that comes closest
    saving: Saving | None

    @property
    def exit_code(self) -> Exit:
        codes = [Exit.INCOMPLETE] * self.interrupted + [Exit.OBJECTIVES_MISSED] * (self.chosen is None)
        return Exit.worst(codes)


def point(trials: Sequence[Trial], *, lower: bool) -> Point:
    """(mean cost, loss): the middle run's latency, or goodput's mean turned round."""
    against = [t.against for t in trials]
    return _mean(t.replica_seconds for t in trials), middle(against) if lower else -_mean(against)


def middle(values: Iterable[float]) -> float:
    """The median by nearest rank, the lower one of two."""
    ranked = sorted(values)
    return ranked[(len(ranked) - 1) // 2]


def found(
    trials: Sequence[Mapping[int, Trial]],
    level: tuple[int, Sequence[int]],
    confidence: float,
    confirmations: Sequence[Confirmation],
    *,
    lower: bool,
    random: bool,
    interrupted: bool,
    searched: int,
) -> Tuned:
    """`level`: the settings of the last whole round, and how many runs all of them have. `searched`: runs
    from this repeat on belong to the confirmation.
    """
    runs, alive = level
    made = [_leading(of, searched if random else 1) for of in trials]
    places = _places(trials, made, runs, alive, lower=lower)
    standings = tuple(
        _standing([of[r] for r in range(n)], *place, confidence)
        for of, n, place in zip(trials, made, places, strict=True)
    )
    chosen = next((c.setting for c in confirmations if c.passed), None)
    if not random and not interrupted:
        chosen = min(
            (i for i in alive if trials[i][0].met),
            key=lambda i: (*point([trials[i][0]], lower=lower), i),
            default=None,
        )
    on_it = [i for i in alive if places[i][0] is Fate.FRONTIER]
    return Tuned(
        random=random,
        interrupted=interrupted,
        simulated=sum(map(len, trials)),
        standings=standings,
        frontier=tuple(sorted(on_it, key=lambda i: (*_points(trials, [i], runs, lower)[i], i))),
        confirmations=tuple(confirmations),
        chosen=chosen,
        nearest=None if chosen is not None else _nearest(trials, alive, runs),
        saving=_saving(trials, chosen, confidence, random, searched),
    )


def _leading(of: Mapping[int, Trial], most: int) -> int:
    """Runs without a gap from repeat 0."""
    return next((r for r in range(most) if r not in of), most)


def _points(
    trials: Sequence[Mapping[int, Trial]], which: Iterable[int], runs: int, lower: bool
) -> dict[int, Point]:
    return {i: point([trials[i][r] for r in range(runs)], lower=lower) for i in which}


def _places(
    trials: Sequence[Mapping[int, Trial]],
    made: Sequence[int],
    runs: int,
    alive: Sequence[int],
    *,
    lower: bool,
) -> list[tuple[Fate, int | None]]:
    """Each setting's fate. Settings are compared over the runs that both have, which are the same loads."""
    places: list[tuple[Fate, int | None]] = [(Fate.UNTRIED, None)] * len(trials)
    firsts: dict[tuple[Trial, ...], int] = {}
    for i in alive:
        first = firsts.setdefault(tuple(trials[i][r] for r in range(runs)), i)
        if first != i:
            places[i] = Fate.SAME, first
    distinct = list(firsts.values())
    points = _points(trials, distinct, runs, lower)
    best = frontier(points)
    for i in best:
        places[i] = Fate.FRONTIER, None
    for i in distinct:
        if places[i][0] is Fate.UNTRIED:
            places[i] = Fate.DOMINATED, next(b for b in best if dominates(points[b], points[i]))
    members = set(alive)
    for i, n in enumerate(made):
        if n and i not in members:
            ordered = [*best, *(d for d in distinct if d not in best)]
            others = [j for j in range(len(trials)) if j not in members and j != i]
            others.sort(key=lambda j: -made[j])
            places[i] = _place_of_dropped(trials, made, i, [*ordered, *others], lower=lower)
    return places


def _place_of_dropped(
    trials: Sequence[Mapping[int, Trial]], made: Sequence[int], i: int, others: Sequence[int], *, lower: bool
) -> tuple[Fate, int | None]:
    """Of a setting that has fewer runs than the last round's: over its own runs, against each of `others`
    that has them too. One that nobody beats was left behind by an interruption only.
    """
    runs = made[i]
    mine = [trials[i][r] for r in range(runs)]
    at = point(mine, lower=lower)
    for j in others:
        if made[j] >= runs and (made[j] > runs or j < i) and [trials[j][r] for r in range(runs)] == mine:
            return Fate.SAME, j
    for j in others:
        if made[j] >= runs and dominates(point([trials[j][r] for r in range(runs)], lower=lower), at):
            return Fate.DOMINATED, j
    return Fate.FRONTIER, None


def _standing(of: Sequence[Trial], fate: Fate, by: int | None, confidence: float) -> Standing:
    if not of:
        return Standing(fate)
    costs = [t.replica_seconds for t in of]
    return Standing(
        fate=fate,
        by=by,
        runs=len(of),
        met=sum(t.met for t in of),
        invalid=sum(not t.valid for t in of),
        replica_seconds=_mean(costs),
        replica_seconds_half=_half(costs, confidence),
        goodput_per_s=_mean(t.goodput_per_s for t in of),
        against=middle(t.against for t in of),
        values=tuple(middle(column) for column in zip(*(t.values for t in of), strict=True)),
        missed=tuple(sum(column) for column in zip(*(t.missed for t in of), strict=True)),
    )


def distance(of: Sequence[Trial], i: int) -> tuple[float, ...]:
    """How far a setting is from its objectives: runs that missed them, then by how much, then cost."""
    return sum(not t.met for t in of), _mean(t.excess for t in of), _mean(t.replica_seconds for t in of), i


def _nearest(trials: Sequence[Mapping[int, Trial]], alive: Sequence[int], runs: int) -> int | None:
    return min(alive, key=lambda i: distance([trials[i][r] for r in range(runs)], i), default=None)


def _saving(
    trials: Sequence[Mapping[int, Trial]], chosen: int | None, confidence: float, random: bool, searched: int
) -> Saving | None:
    """Over the fresh loads that both have."""
    if chosen is None:
        return None
    both = [r for r in trials[chosen] if r >= searched and r in trials[OWN]] if random else [0]
    if not both:
        return None
    differences = [trials[OWN][r].replica_seconds - trials[chosen][r].replica_seconds for r in both]
    own = _mean(trials[OWN][r].replica_seconds for r in both)
    return Saving(
        runs=len(both),
        replica_seconds=_mean(differences),
        half=_half(differences, confidence) if random else None,
        share=_mean(differences) / own if own else None,
        own_met=sum(trials[OWN][r].met for r in both),
    )


def _half(values: Sequence[float], confidence: float) -> float | None:
    """Half of the interval of a mean (Student's t); None with fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    mean = _mean(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    return critical(confidence, n - 1) * math.sqrt(variance / n)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)

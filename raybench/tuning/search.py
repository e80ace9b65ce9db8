"""The cheapest way to scale a deployment that meets its objectives, and how sure that is.

    search   every setting with the same 3 simulated loads; the promising ones with 9, then with 27.
             Promising: the cheapest that may meet the objectives, and what nothing beats on cost and
             goodput (or a latency) together. So most of the time goes into the settings that matter
             (successive halving: Z. Karnin, T. Koren, O. Somekh, "Almost optimal exploration in multi-armed
             bandits", 2013).
    confirm  the cheapest candidate with many fresh loads, then the next cheapest, until one passes.

A setting passes when so few of its fresh runs miss an objective that, at a share of runs meeting them below
the one stated (90%), this would happen with a probability of at most the error: an exact one-sided binomial
test (see `confidence`). Choosing among noisy results favours the lucky ones, so that the runs of the
search do not count here; and since several candidates may be tried, the first has half of the error to spend,
the second a quarter, and so on (Bonferroni's inequality with weights): whatever is tried, a setting that does
not hold is chosen with a probability of at most 1 − confidence.

Repeats draw the same load for every setting. The result does not depend on the executor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import dataclass

from raybench.scenario import Autoscaling
from raybench.tuning.confidence import at_most, misses_allowed, runs_needed
from raybench.tuning.found import OWN, Confirmation, Tuned, distance, found, point
from raybench.tuning.frontier import Point, layers
from raybench.tuning.trial import Trial

ROUNDS = (3, 9, 27)
"""Runs that a setting has after each round of the search."""
KEPT_AT_LEAST, KEPT_ONE_IN = 12, 6
"""Of a round, the next takes at least a sixth for the frontier, and at least 12 of either kind."""
ENOUGH = 6.0
"""The cheapest go on until so many of them can be expected to be good enough."""
HOPELESS = 0.01
"""A setting with a lower chance than this to be good enough is not among them."""
LIKELY = 0.5
"""A setting with a lower chance than this after the search is no candidate: it would spend error in vain."""
CHUNK = 25
"""Runs of a candidate that are made before looking whether it can still pass."""
IN_FLIGHT = 256
"""Runs given to the executor at once."""

Run = Callable[[Autoscaling, int], Trial]
Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, how much there is."""


class TuneError(Exception):
    """A setting could not be simulated; the text says which, and why."""


@dataclass(frozen=True)
class Rules:
    """When a setting is good enough: at least `share` of all runs meet the objectives, with `confidence`,
    shown by up to `runs` runs of each candidate. Raises ValueError.
    """

    confidence: float = 0.95
    share: float = 0.9
    runs: int = 100

    def __post_init__(self) -> None:
        for name, value in (("confidence", self.confidence), ("share", self.share)):
            if not 0.5 <= value < 1:
                raise ValueError(f"{name} {value:.6g}: a share from 50% to below 100% is right")
        needed = runs_needed(self.share, (1 - self.confidence) / 2)
        if self.runs < needed:
            raise ValueError(
                f"repeats {self.runs}: too few to say with {100 * self.confidence:g}% confidence that "
                f"{100 * self.share:g}% of all runs meet the objectives, even if these do; {needed} or more "
                "are right"
            )

    def error(self, number: int) -> float:
        """What the candidate at this place, from 0, may spend of the probability of being wrong."""
        return (1 - self.confidence) / 2.0 ** (number + 1)

    def allowed(self, number: int) -> int | None:
        """Misses with which that candidate still passes; None where no number of met runs would do."""
        return misses_allowed(self.runs, self.share, self.error(number))

    def chance(self, met: int, runs: int) -> float:
        """How likely a setting is to be good enough, judged by the runs of the search alone: the probability
        that its share of met runs is at least `share`, where every share is as likely beforehand. That is
        P(Beta(met + 1, missed + 1) ≥ share) = P(at most `met` of runs + 1 happen | share). It only steers the
        search; what is chosen has to pass the test.
        """
        return at_most(met, runs + 1, self.share)


class Search:
    """One search. `run()` may be interrupted at any time; `found()` says what is known then.

    `settings`: the scenario's own first. `simulated`: one run of a setting, the same for the same arguments
    wherever it is called. `lower`: whether a lower `Trial.against` is better (a latency).
    """

    def __init__(
        self,
        settings: Sequence[Autoscaling],
        simulated: Run,
        executor: Executor,
        rules: Rules | None = None,
        *,
        lower: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.rules = rules or Rules()
        self._settings, self._simulated, self._executor = settings, simulated, executor
        self._lower = lower
        self._progress = progress or (lambda what, done, of: None)
        self.trials: list[dict[int, Trial]] = [{} for _ in settings]
        self._random = True
        self._level: tuple[int, list[int]] = (0, [])  # runs that all of these have
        self._candidates: list[int] = []
        self._finished = False

    def run(self) -> Tuned:
        """The whole search. Raises TuneError, and whatever stops it from outside."""
        self._make([(OWN, repeat) for repeat in range(ROUNDS[0])], "the scenario's own setting")
        first = self.trials[OWN]
        self._random = any(first[repeat] != first[0] for repeat in range(1, ROUNDS[0]))
        alive = list(range(len(self._settings)))
        for number, runs in enumerate(ROUNDS if self._random else (1,), 1):
            what = f"round {number}: {len(alive)} settings, {runs} loads" if self._random else "every setting"
            self._make([(i, repeat) for i in alive for repeat in range(runs)], what)
            self._level = runs, alive
            if runs != ROUNDS[-1]:
                alive = self._narrowed(alive, runs)
        if self._random:
            self._confirm()
        self._finished = True
        return self.found()

    def found(self) -> Tuned:
        """What is known by now."""
        confirmations = [self._confirmation(n, i) for n, i in enumerate(self._candidates)]
        level = self._level
        if not level[1]:  # interrupted before every setting had its first runs
            level = 1, [i for i, trials in enumerate(self.trials) if 0 in trials]
        return found(
            self.trials,
            level,
            self.rules.confidence,
            confirmations,
            lower=self._lower,
            random=self._random,
            interrupted=not self._finished,
            searched=ROUNDS[-1],
        )

    def _confirm(self) -> None:
        """Candidates in the order of their cost, until one passes or the error is spent."""
        runs, alive = self._level
        likely = [i for i in self._distinct(alive, runs) if self._chance(i, runs) >= LIKELY]
        for i in sorted(likely, key=lambda i: (*self._point(i, runs), i)):
            number = len(self._candidates)
            if self.rules.allowed(number) is None:
                return
            self._candidates.append(i)
            for start in range(0, self.rules.runs, CHUNK):
                self._fresh(i, start, f"confirming candidate {number + 1}")
                if self._confirmation(number, i).passed is False:
                    break
            else:
                for start in range(0, self.rules.runs, CHUNK):
                    self._fresh(OWN, start, "the scenario's own setting again")
                return

    def _fresh(self, i: int, start: int, what: str) -> None:
        end = min(start + CHUNK, self.rules.runs)
        self._make([(i, ROUNDS[-1] + repeat) for repeat in range(start, end)], what)

    def _confirmation(self, number: int, i: int) -> Confirmation:
        fresh = [t for repeat, t in self.trials[i].items() if repeat >= ROUNDS[-1]]
        allowed = self.rules.allowed(number)
        assert allowed is not None
        met = sum(t.met for t in fresh)
        passed = None if len(fresh) < self.rules.runs else True
        if len(fresh) - met > allowed:
            passed = False
        return Confirmation(i, len(fresh), met, allowed, self.rules.error(number), passed)

    # --- narrowing ------------------------------------------------------------------------------------

    def _narrowed(self, alive: Sequence[int], runs: int) -> list[int]:
        """What goes into the next round, in the order of the settings."""
        rest = self._distinct(alive, runs)
        wanted = max(KEPT_AT_LEAST, math.ceil(len(rest) / KEPT_ONE_IN))
        best = layers({i: self._point(i, runs) for i in rest}, wanted)
        return sorted({OWN, *best, *self._promising(rest, runs)})

    def _promising(self, rest: Sequence[int], runs: int) -> list[int]:
        """The cheapest that may be good enough; where that is few, those that come nearest besides."""
        found: list[int] = []
        expected = 0.0
        for i in sorted(rest, key=lambda i: (*self._point(i, runs), i)):
            chance = self._chance(i, runs)
            if chance >= HOPELESS:
                found.append(i)
                expected += chance
            if expected >= ENOUGH:
                break
        others = sorted(set(rest) - set(found), key=lambda i: self._distance(i, runs))
        return found + others[: max(0, KEPT_AT_LEAST - len(found))]

    def _distinct(self, alive: Iterable[int], runs: int) -> list[int]:
        """Without those that did exactly as one before them in every run: a maximum that is never reached,
        say.
        """
        seen: dict[tuple[Trial, ...], int] = {}
        for i in alive:
            seen.setdefault(tuple(self.trials[i][r] for r in range(runs)), i)
        return list(seen.values())

    def _point(self, i: int, runs: int) -> Point:
        return point([self.trials[i][r] for r in range(runs)], lower=self._lower)

    def _chance(self, i: int, runs: int) -> float:
        return self.rules.chance(sum(self.trials[i][r].met for r in range(runs)), runs)

    def _distance(self, i: int, runs: int) -> tuple[float, ...]:
        return distance([self.trials[i][r] for r in range(runs)], i)

    # --- simulating -----------------------------------------------------------------------------------

    def _make(self, jobs: Sequence[tuple[int, int]], what: str) -> None:
        """Every run of `jobs` that there is not yet. Their order of arrival changes nothing."""
        missing = [(i, repeat) for i, repeat in jobs if repeat not in self.trials[i]]
        pending: dict[Future[Trial], tuple[int, int]] = {}
        done = 0
        self._progress(what, done, len(missing))
        try:
            for i, repeat in missing:
                try:
                    future = self._executor.submit(self._simulated, self._settings[i], repeat)
                except Exception as error:  # a pool that lost a process takes no more work
                    raise TuneError(f"{what}: {_in_one_line(error)}") from error
                pending[future] = i, repeat
                if future.done() or len(pending) >= IN_FLIGHT:
                    done += self._collect(pending)
                    self._progress(what, done, len(missing))
            while pending:
                done += self._collect(pending)
                self._progress(what, done, len(missing))
        finally:
            for future in pending:
                future.cancel()

    def _collect(self, pending: dict[Future[Trial], tuple[int, int]]) -> int:
        """Takes what is ready, waiting for one; how many there were."""
        ready = wait(pending, return_when=FIRST_COMPLETED).done
        for future in ready:
            i, repeat = pending.pop(future)
            try:
                self.trials[i][repeat] = future.result()
            except (CancelledError, Exception) as error:
                raise TuneError(f"setting #{i}, repeat {repeat}: {_in_one_line(error)}") from error
        return len(ready)


def _in_one_line(error: BaseException) -> str:
    """Of an error that brings a traceback from another process, the last line: what went wrong there."""
    *before, last = str(error).strip().splitlines() or [""]
    return last if before else f"{type(error).__name__}: {last}"

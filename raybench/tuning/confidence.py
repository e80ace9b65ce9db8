"""How sure one can be, after so many simulated runs, that a setting meets its objectives.

A run either meets every objective or misses one, so that runs with independent draws are Bernoulli trials and
the number that met is binomial: no assumption about any latency's distribution is needed. The bound is the
exact one of C. J. Clopper and E. S. Pearson ("The use of confidence or fiducial limits illustrated in the
case of the binomial", Biometrika 26, 1934), one-sided.
"""

from __future__ import annotations

import math
from functools import lru_cache

_ROUNDING = 1e-12
"""Sums of logarithms: an error that is met but for the last bits is met."""


def at_most(most: int, trials: int, chance: float) -> float:
    """P(X ≤ most) of a binomial X: `trials` independent ones, each happening with probability `chance`."""
    if most < 0:
        return 0.0
    if most >= trials or chance <= 0:
        return 1.0
    if chance >= 1:
        return 0.0
    odds = math.log(chance) - math.log1p(-chance)
    term = trials * math.log1p(-chance)  # log P(X = 0); a product of many chances would leave the floats
    logs = [term]
    for k in range(1, most + 1):
        term += math.log(trials - k + 1) - math.log(k) + odds
        logs.append(term)
    highest = max(logs)
    return min(1.0, math.exp(highest) * math.fsum(math.exp(x - highest) for x in logs))


@lru_cache(maxsize=1024)
def misses_allowed(runs: int, share: float, error: float) -> int | None:
    """The most runs of `runs` that may miss for it to be said that at least `share` of all runs meet, with a
    probability of at most `error` of saying so where fewer do: the greatest c with P(at most c miss | exactly
    `share` meet) ≤ error. None where even no miss at all would be too little evidence.
    """
    chance = 1 - share
    odds = math.log(chance) - math.log1p(-chance)
    term = runs * math.log1p(-chance)  # log P(exactly `misses`), below that of at most so many
    total, limit = term, math.log(error) + _ROUNDING
    misses = 0
    while total <= limit and misses < runs:
        misses += 1
        term += math.log(runs - misses + 1) - math.log(misses) + odds
        total = max(total, term) + math.log1p(math.exp(-abs(total - term)))
    return misses - 1 if misses else None


def runs_needed(share: float, error: float) -> int:
    """The least number of runs with which `misses_allowed` allows any number at all: share ^ runs ≤ error."""
    runs = max(1, math.ceil(math.log(error) / math.log(share) - 1e-9))
    return runs if misses_allowed(runs, share, error) is not None else runs + 1


def least_share(met: int, runs: int, error: float) -> float:
    """The lower Clopper–Pearson bound: the share p at which P(at least `met` of `runs` meet | p) = error."""
    if met <= 0 or runs <= 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        # at least `met` meet = at most runs - met miss
        if at_most(runs - met, runs, 1 - middle) <= error:
            low = middle
        else:
            high = middle
    return low

"""The greatest rate that one replica sustains: which rate to try next, and for how long. Arithmetic only.

    rising    from the start ×2 until a rate is not sustained, or ÷2 until one is
    halving   then the geometric middle of the bracket [low, high), until high ≤ low · (1 + precision)

For a replica that sustains every rate up to some capacity c and none beyond, low ≤ c < high at every step and
the search takes about |log2(c / start)| + log2(1 / log2(1 + precision)) + 2 rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, sqrt

from raybench.analysis.quantiles import SUPPORT, share
from raybench.analysis.question import SUCCESS_RATE, Objective

PRECISION = 0.1
"""Relative width of the bracket at which the search ends, unless another is asked for."""
FINEST = 0.01
FEWEST_REQUESTS = 20
"""Of a probe, whatever its objectives: both halves of it are compared."""
ALONE_TIMES = 10
"""A probe lasts at least so many times as long as an answer alone."""
SHORTEST_S = 10.0
WARMUP_ALONE_TIMES, WARMUP_SHARE = 3, 0.2
"""The load's first part fills the replica and is not judged: so many answers, or this share if longer."""
OVERLAP = 0.05
"""Of the time, with a request being served, at the lowest rate that is tried: hardly two ever meet."""
FEWEST_AT_LOWEST = 10
"""Requests of the longest probe at the lowest rate that is tried."""


@dataclass(frozen=True)
class Bracket:
    """`low`: the greatest rate that was sustained; `high`: the least above it that was not. Requests per
    second; None where there was none.
    """

    low: float | None = None
    high: float | None = None

    def is_within(self, precision: float) -> bool:
        """Whether it is as narrow as that."""
        if self.low is None or self.high is None:
            return False
        return self.high <= self.low * (1 + precision) * (1 + 1e-9)

    @property
    def width(self) -> float:
        """(high − low) / low; infinite while one side is open."""
        return inf if self.low is None or self.high is None else self.high / self.low - 1


def bracket(tried: Sequence[tuple[float, bool]]) -> Bracket:
    """From every (rate, whether it was sustained). Of results that contradict each other the lowest rate that
    failed counts, so that what is found is never too much.
    """
    high = min((rate for rate, sustained in tried if not sustained), default=None)
    low = max((r for r, sustained in tried if sustained and (high is None or r < high)), default=None)
    return Bracket(low, high)


def next_rate(
    found: Bracket, start: float, precision: float = PRECISION, least: float = 0.0, most: float = inf
) -> float | None:
    """The rate to try next; None where the search is over: the bracket is narrow enough, `least` was not
    sustained or `most` was. Raises ValueError for what cannot be, a precision below `FINEST` among it.
    """
    if not (0 < start < inf and FINEST <= precision < inf and 0 <= least < most):
        raise ValueError(f"start {start:g}/s, precision {precision:g}, from {least:g} to {most:g}/s")
    low, high = found.low, found.high
    if high is None:
        if low is None:
            return min(max(_rounded(start), least), most)
        return min(low * 2, most) if low < most else None
    if low is None:
        return max(_rounded(high / 2), least) if high > least else None
    return None if found.is_within(precision) else _rounded(sqrt(low * high))


def _rounded(rate: float) -> float:
    """To four digits: nobody wants to read more, and no precision that can be asked for needs them."""
    return float(f"{rate:.4g}")


def enough_requests(objectives: Sequence[Objective]) -> int:
    """How many requests judge these objectives: ten beyond each percentile, and of a success rate so many
    that a single failure does not decide. At least `FEWEST_REQUESTS`.
    """
    wanted = [FEWEST_REQUESTS]
    for o in objectives:
        if o.percent is not None and o.percent < 100:
            wanted.append(ceil(SUPPORT / (1 - share(o.percent))))
        elif o.metric == SUCCESS_RATE and o.limit < 1:
            wanted.append(ceil(1 / (1 - share(round(o.limit * 100, 9)))))
    return max(wanted)


@dataclass(frozen=True)
class Length:
    """Of one probe, in seconds: `warmup_s` that is not judged, then `judged_s`. `enough`: whether so long a
    probe at its rate has the requests that its objectives want.
    """

    warmup_s: float
    judged_s: float
    enough: bool

    @property
    def total_s(self) -> float:
        return self.warmup_s + self.judged_s


def length(rate_per_s: float, wanted_requests: int, alone_s: float, at_most_s: float) -> Length:
    """How long a probe at this rate lasts: for the requests that are wanted, ten answers one after another
    (`alone_s` each) and `SHORTEST_S`, whichever is longest, but judged over no more than `at_most_s`.
    """
    needed_s = max(wanted_requests / rate_per_s, ALONE_TIMES * alone_s, SHORTEST_S)
    judged_s = min(needed_s, at_most_s)
    warmup_s = max(WARMUP_ALONE_TIMES * alone_s, WARMUP_SHARE * judged_s)
    return Length(
        warmup_s=min(warmup_s, at_most_s),
        judged_s=judged_s,
        enough=judged_s * rate_per_s >= wanted_requests * (1 - 1e-9),
    )


def first_rate(alone_s: float, slots: int | None) -> float:
    """Where to begin: a quarter of what the slots would get through if company cost nothing; with one slot,
    or where nobody knows how many, half of what one would.
    """
    return max(slots or 0, 2) / 4 / alone_s


def lowest_rate(alone_s: float, at_most_s: float) -> float:
    """Below it nothing is tried: requests hardly meet there, or a probe would have too few of them."""
    return max(OVERLAP / alone_s, FEWEST_AT_LOWEST / at_most_s)

"""Where the steady state begins, suggested from the data: MSER-5.

The latency under a load that does not change still starts with a transient: cold caches, a replica that is
not up yet, a queue that has to fill. Leaving out its first d values makes the mean of the rest
surer if those were transient and less sure if not; MSER takes the d that makes it surest:

    d* = argmin over d of  sum over j > d of (y_j − mean_d)² / (m − d)²

over the means y of batches of five, d up to the half: towards the end a few values that happen to lie close
together always win. A minimum at the half means that no steady state was seen.
Source: White, Cobb and Spratt (2000), A comparison of five steady-state truncation heuristics for simulation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raybench.analysis.columns import MISSING, OK, TIMEOUT, Rows
from raybench.analysis.figures import Steady

BIN_NS = 100_000_000
"""Requests are averaged within a tenth of a second of planned time, so that a day is 864,000 bins."""
BATCH = 5
MOST_BATCHES = 2000
FEWEST_BATCHES = 10
ROWS_AT_ONCE = 2**13
"""Of a larger piece of a run every so many-th row is enough to see a transient by."""
LONGEST_NS = 40 * 86_400 * 10**9
"""Instants beyond are no part of any load; a broken clock must not fill the memory."""


class Series:
    """Mean TTFT and E2E over planned time, gathered batch by batch."""

    def __init__(self) -> None:
        self._sums = {name: np.zeros(0) for name in ("ttft", "e2e")}
        self._counts = {name: np.zeros(0) for name in ("ttft", "e2e")}

    def add(self, rows: Rows, start: NDArray[np.int64]) -> None:
        """`start`: ns. A timeout counts with the time it was waited for: else a transient would hide."""
        stride = max(1, rows.n // ROWS_AT_ONCE)
        if stride > 1:
            every = np.arange(0, rows.n, stride)
            rows, start = rows.at(every), start[every]
        usable = ((rows.outcome == OK) | (rows.outcome == TIMEOUT)) & (start >= 0) & (start < LONGEST_NS)
        if not usable.any():
            return
        bins = start // BIN_NS
        low = int(bins[usable].min())
        late = np.where(rows.lateness == MISSING, 0, rows.lateness)
        ttft = np.where((rows.outcome == TIMEOUT) & (rows.ttft == MISSING), rows.e2e, rows.ttft)
        for name, values in (("ttft", ttft), ("e2e", rows.e2e)):
            at = usable & (values != MISSING)
            where = bins[at] - low
            self._counts[name] = _plus(self._counts[name], low, np.bincount(where))
            self._sums[name] = _plus(self._sums[name], low, np.bincount(where, (values[at] + late[at]) / 1e9))

    def suggest(self) -> Steady | None:
        """None where there is too little to judge by."""
        name = "ttft" if 2 * self._counts["ttft"].sum() >= self._counts["e2e"].sum() else "e2e"
        counts = self._counts[name]
        seen = np.flatnonzero(counts)
        means = self._sums[name][seen] / counts[seen]
        width = max(BATCH, -(-len(means) // MOST_BATCHES))
        m = len(means) // width
        if m < FEWEST_BATCHES:
            return None
        batches = means[: m * width].reshape(m, width).mean(axis=1)
        dropped = mser(batches)
        return Steady(
            metric=name,
            from_s=float(seen[dropped * width] * BIN_NS / 1e9) if dropped else 0.0,
            reached=dropped < m // 2,
        )


def mser(y: NDArray[np.float64]) -> int:
    """d* of a series of two or more: how many of its first values to leave out, at most half of them."""
    m = len(y)
    y = y - y.mean()  # keeps the squares from cancelling
    kept = m - np.arange(m // 2 + 1)
    sums, squares = (np.cumsum(v[::-1])[::-1][: len(kept)] for v in (y, y**2))
    return int(np.argmin((squares - sums**2 / kept) / kept**2))


def _plus(
    a: NDArray[np.float64], low: int, b: NDArray[np.float64] | NDArray[np.int64]
) -> NDArray[np.float64]:
    """`a` with `b` added from position `low` on, grown with zeros where it is too short."""
    end = low + len(b)
    if end > len(a):
        grown = np.zeros(max(end, len(a) * 3 // 2))
        grown[: len(a)] = a
        a = grown
    a[low:end] += b
    return a

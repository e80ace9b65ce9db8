"""Block bootstrap: how far two runs' figures may differ by chance when latencies remember one another.

Under load a slow request is followed by slow requests, so rows are no independent sample, and resampling
them one by one understates every error. Here whole blocks of consecutive rows are drawn, in the order of
the schedule (circular block bootstrap: D. N. Politis and J. P. Romano, "A circular block-resampling
procedure for stationary data", 1992).

- **Block length**: twice the length that D. N. Politis and H. White, "Automatic block-length selection for
  the dependent bootstrap", Econometric Reviews 23 (2004), with the correction by A. Patton, D. N. Politis
  and H. White, Econometric Reviews 28 (2009), find in the series of differences. Theirs minimises the error
  of the standard error, and leaves it too small; twice as long halves that bias, and what the fewer blocks
  cost is paid for by Student's t below. Their bound on the lags searched (about the root of n) is lifted to
  n/4: a busy server remembers longer.
- **Interval**: estimate ± t · (standard deviation over the resamples), Student's t with the degrees of
  freedom that the blocks leave (`_dof`).
- **Pairing**: runs of one schedule are resampled together, by the same rows, so that what the schedule
  does to both cancels. Different schedules are independent.

Everything is exact but one thing: a resampled quantile is picked from at most `CANDIDATES` order statistics
about the sample's quantile (all of them in small samples), so that the cost does not grow with the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK_FACTOR = 2.0
ATOMS = 1024
"""Most atoms a series is cut into; an atom is the smallest run of rows that is drawn as a whole."""
ATOMS_A_BLOCK = 8
CANDIDATES = 256


class Statistic(Protocol):
    """A figure of one run's rows, and what it becomes when rows are resampled."""

    @property
    def value(self) -> float: ...

    @property
    def influence(self) -> Floats:
        """What each row adds to the figure, up to a factor: its dependence is the figure's. Shape (rows,)."""
        ...

    def resampled(self, weights: NDArray[np.float32], starts: Ints, spread: float) -> Floats:
        """The figure in each resample.

        `weights`: how often each resample drew each atom, shape (resamples, atoms); `starts`: the first row
        of each atom; `spread`: the standard error of the mean of `influence`.
        """
        ...


@dataclass(frozen=True)
class Ratio:
    """Sum over sum: a mean where the denominator counts rows, a rate where it is seconds. Shapes (rows,)."""

    numerator: Floats
    denominator: Floats

    @property
    def value(self) -> float:
        below = float(self.denominator.sum())
        return float(self.numerator.sum()) / below if below > 0 else math.nan

    @property
    def influence(self) -> Floats:
        centred = self.numerator - self.value * self.denominator
        scale = float(np.abs(self.numerator).mean())
        return centred / scale if scale > 0 else centred

    def resampled(self, weights: NDArray[np.float32], starts: Ints, spread: float) -> Floats:
        above = weights @ np.add.reduceat(self.numerator, starts)
        below = weights @ np.add.reduceat(self.denominator, starts)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(below > 0, above / below, np.nan), np.float64)


class Quantile:
    """The nearest-rank quantile, `sorted[ceil(p·n) − 1]`, of the values that are not NaN."""

    def __init__(self, values: Floats, p: float) -> None:
        self._values, self.p = values, p
        self._sorted = np.sort(values[~np.isnan(values)])

    @property
    def count(self) -> int:
        return len(self._sorted)

    @property
    def rank(self) -> int:
        """From 1."""
        return _rank(self.p, self.count)

    @property
    def value(self) -> float:
        return float(self._sorted[self.rank - 1]) if self.count else math.nan

    @property
    def influence(self) -> Floats:
        """p − 1{x ≤ quantile}, over the density, which is left out (R. R. Bahadur, 1966)."""
        known = ~np.isnan(self._values)
        below = np.where(known, self._values <= self.value, False).astype(np.float64)
        # Centred by the share that is below: with ties it is more than p.
        return np.asarray(known * (below[known].mean() if self.count else 0.0) - below, np.float64)

    def resampled(self, weights: NDArray[np.float32], starts: Ints, spread: float) -> Floats:
        n = self.count
        if not n:
            return np.full(len(weights), math.nan)
        reach = math.ceil(8 * spread * len(self._values)) + 2
        middle = _rank(self.p, n)
        low, high = max(1, middle - reach), min(n, middle + reach)
        if high - low < CANDIDATES:
            ranks = np.arange(low, high + 1)
        else:
            ranks = np.unique(np.linspace(low, high, CANDIDATES).astype(np.int64))
        candidates = np.unique(self._sorted[ranks - 1])
        k = len(candidates)
        # Cell of a value: the first candidate that is not below it; k is above them all, k + 1 is missing.
        cell = np.searchsorted(candidates, self._values, side="left")
        cell[np.isnan(self._values)] = k + 1
        atom = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(cell)]))
        counts = np.bincount(atom * (k + 2) + cell, minlength=len(starts) * (k + 2)).reshape(-1, k + 2)
        up_to = np.cumsum(counts[:, :k], axis=1).astype(np.float32)
        drawn = weights @ up_to
        total = weights @ counts[:, : k + 1].sum(axis=1).astype(np.float32)
        enough = drawn >= np.ceil(self.p * total * (1 - 1e-12))[:, None]
        first = np.where(enough.any(axis=1), enough.argmax(axis=1), k - 1)
        return np.asarray(np.where(total > 0, candidates[first], math.nan), np.float64)


def _rank(p: float, n: int) -> int:
    """ceil(p·n), at least 1, not thrown off by p·n being a hair above a whole number in floating point."""
    return max(1, min(n, math.ceil(p * n * (1 - 1e-12))))


@dataclass(frozen=True)
class Member:
    """One run's figure with its part in the difference: +1/k for each of k new runs, −1/k for base runs."""

    share: float
    statistic: Statistic


@dataclass(frozen=True)
class Resampled:
    """A group of runs of one schedule, resampled together.

    `plain` and `logs` hold the group's part of the difference in each resample, as it is and of logarithms
    (NaN where a figure is not positive); shape (resamples,). `block` is in rows, `blocks` how many of them
    the series holds, `spread` the largest standard error of the mean of any member's influence.
    """

    plain: Floats
    logs: Floats
    block: int
    blocks: float
    dof: float
    spread: float


def resample(members: Sequence[Member], resamples: int, rng: np.random.Generator) -> Resampled:
    """Draw blocks of rows, the same for every member. All members' statistics are over the same rows."""
    influences = [m.statistic.influence for m in members]
    together = np.sum([m.share * i for m, i in zip(members, influences, strict=True)], axis=0)
    rows = len(together)
    block = choose_block(together)
    size = max(1, block // ATOMS_A_BLOCK, math.ceil(rows / ATOMS))
    starts = np.arange(0, rows, size)
    length = max(1, round(block / size))
    weights = draw(len(starts), length, resamples, rng)
    plain = np.zeros(resamples)
    logs = np.zeros(resamples)
    spreads = [math.sqrt(block_variance(influence, block) / rows) for influence in influences]
    for member, spread in zip(members, spreads, strict=True):
        figures = member.statistic.resampled(weights, starts, spread)
        plain += member.share * figures
        with np.errstate(divide="ignore", invalid="ignore"):
            logs += member.share * np.log(np.where(figures > 0, figures, math.nan))
    blocks = len(starts) / length
    # The weights' own sampling shrinks a variance by (blocks − 1)/blocks.
    inflate = math.sqrt(blocks / (blocks - 1)) if blocks > 1 else 1.0
    return Resampled(
        plain=plain.mean() + (plain - plain.mean()) * inflate,
        logs=logs.mean() + (logs - logs.mean()) * inflate,
        block=size * length,
        blocks=blocks,
        dof=_dof(together, block, blocks),
        spread=max(spreads),
    )


def draw(atoms: int, length: int, resamples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """How often each atom is drawn: blocks of `length` atoms from random starts, round the end, until as
    many atoms are drawn as there are. Shape (resamples, atoms); every row sums to `atoms`.
    """
    per = math.ceil(atoms / length)
    first = rng.integers(0, atoms, (resamples, per))
    last = first + length
    last[:, -1] = first[:, -1] + (atoms - length * (per - 1))
    width = 2 * atoms + 1
    row = np.arange(resamples)[:, None] * width
    steps = np.bincount((row + first).ravel(), minlength=resamples * width)
    steps -= np.bincount((row + last).ravel(), minlength=resamples * width)
    counts = np.cumsum(steps.reshape(resamples, width), axis=1)
    return np.asarray(counts[:, :atoms] + counts[:, atoms : 2 * atoms], np.float32)


def block_sums(series: Floats, block: int) -> Floats:
    """Sums over every block of `block` consecutive rows, round the end. Shape (rows,)."""
    run = np.r_[0.0, np.cumsum(np.r_[series, series[: block - 1]])]
    return np.asarray(run[block:] - run[:-block], np.float64)


def block_variance(series: Floats, block: int) -> float:
    """The long-run variance of a series of mean 0: n times the variance of its mean, by blocks."""
    return float(np.mean(block_sums(series, block) ** 2)) / block


def _dof(series: Floats, block: int, blocks: float) -> float:
    """Degrees of freedom of a variance estimated from `blocks` blocks.

    blocks − 1 for sums as good as normal. Where few blocks carry the sum (a percentile far out, a handful
    of failures) the variance is known less well: matched to the second moment of a χ² it has
    2·blocks/(kurtosis − 1), as F. E. Satterthwaite (1946) matches.
    """
    sums = block_sums(series - series.mean(), block)
    second = float(np.mean(sums**2))
    if second <= 0:
        return blocks - 1
    kurtosis = float(np.mean(sums**4)) / second**2
    return min(blocks, 2 * blocks / max(kurtosis - 1, 1e-9)) - 1


def choose_block(series: Floats) -> int:
    """Block length in rows, from 1 to a third of the rows: `BLOCK_FACTOR` times Politis and White's."""
    rows = len(series)
    return max(1, min(math.ceil(BLOCK_FACTOR * politis_white(series)), rows // 3))


def politis_white(series: Floats) -> float:
    """The block length that estimates the variance of the mean best, for the circular block bootstrap.

    b = (2 G² n / D)^(1/3) with G = Σ λ(k/M) |k| R(k), D = 4/3 (Σ λ(k/M) R(k))², R the autocovariance, λ the
    flat-top window (1 up to 1/2, then falling to 0 at 1), M = 2m, and m the last lag before K = max(5,
    log₁₀ n) in a row have |autocorrelation| < 2 √(log₁₀ n / n) (Politis and White 2004, with D as corrected
    in 2009).
    """
    n = len(series)
    if n < 8:
        return 1.0
    centred = series - series.mean()
    if not np.any(np.abs(centred) > 1e-12 * max(1e-300, float(np.abs(series).max()))):
        return 1.0
    spectrum = np.fft.rfft(centred, 1 << (2 * n - 1).bit_length())
    covariance = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:n] / n
    run = max(5, math.ceil(math.log10(n)))
    most = max(1, n // 4)
    small = np.abs(covariance[1 : most + run + 1]) < 2 * math.sqrt(math.log10(n) / n) * covariance[0]
    in_a_row = np.convolve(small, np.ones(run), "valid") > run - 0.5
    m = int(in_a_row.argmax()) if in_a_row.any() else most
    if m == 0:
        return 1.0
    width = min(2 * m, most)
    lags = np.arange(1, width + 1)
    window = np.minimum(1.0, 2 * (1 - lags / width))
    weighted = window * covariance[1 : width + 1]
    variance = covariance[0] + 2 * float(weighted.sum())
    slope = 2 * float((lags * weighted).sum())
    if variance <= 0:
        return 1.0
    return float(max(1.0, (1.5 * slope**2 / variance**2 * n) ** (1 / 3)))

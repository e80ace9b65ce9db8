"""One difference between two sides of runs, with its error: from the block bootstrap within runs and, where
there are repeats, from the differences between them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raybench.analysis import student
from raybench.analysis.bootstrap import Floats, Member, Statistic, resample


@dataclass(frozen=True)
class Measured:
    """One run's figure. Runs with the same `schedule` are resampled together."""

    schedule: str
    statistic: Statistic


@dataclass(frozen=True)
class Estimate:
    """A difference with its standard error; Student's t with `dof` degrees of freedom gives the rest."""

    value: float
    error: float
    dof: float

    @property
    def p(self) -> float:
        """How often chance alone would make a difference as large as this, in either direction."""
        if self.value == 0:
            return 1.0
        if self.error == 0:
            return 0.0
        return student.two_sided(self.value / self.error, self.dof) if self.dof > 0 else 1.0

    def interval(self, confidence: float) -> tuple[float, float]:
        if self.error == 0:
            return self.value, self.value
        if self.dof <= 0:
            return -math.inf, math.inf
        reach = student.critical(confidence, self.dof) * self.error
        return self.value - reach, self.value + reach


@dataclass(frozen=True)
class Contrast:
    """new − base, of means over each side's runs. `logs` is of logarithms (ln of the ratio of geometric
    means); None where a figure is not positive. `spread` is the largest standard error, as a share of the
    rows, of any run's place among its own values. `blocks` is the least that any group of runs has.
    """

    plain: Estimate
    logs: Estimate | None
    blocks: float
    block_rows: int
    within_dof: float
    spread: float


def contrast(
    base: Sequence[Measured], new: Sequence[Measured], *, resamples: int, seed: int, name: str
) -> Contrast:
    """The draws depend on the seed, the figure's name and the schedules, not on which side is which:
    exchanging the sides changes the sign and nothing else.
    """
    groups: dict[str, list[Member]] = {}
    for side, sign in ((base, -1), (new, 1)):
        for run in side:
            groups.setdefault(run.schedule, []).append(Member(sign / len(side), run.statistic))
    found = [resample(members, resamples, _draws(seed, name, key)) for key, members in groups.items()]
    before = {k: [m.statistic.value for m in side] for k, side in (("base", base), ("new", new))}
    pairs = matched([run.schedule for run in base], [run.schedule for run in new])
    plain = _estimate([g.plain for g in found], [g.dof for g in found], before, pairs)
    logs = None
    if min(before["base"] + before["new"]) > 0 and not any(np.isnan(g.logs).any() for g in found):
        logged = {k: [math.log(v) for v in values] for k, values in before.items()}
        logs = _estimate([g.logs for g in found], [g.dof for g in found], logged, pairs)
    return Contrast(
        plain=plain,
        logs=logs,
        blocks=min(g.blocks for g in found),
        block_rows=max(g.block for g in found),
        within_dof=_satterthwaite([g.plain for g in found], [g.dof for g in found]),
        spread=max(g.spread for g in found),
    )


def between_runs(
    base: Sequence[float], new: Sequence[float], pairs: Sequence[tuple[int, int]] = ()
) -> Estimate | None:
    """The difference of means over runs, judged by how runs differ from one another alone.

    `pairs` (positions in base and new) says which runs had the same schedule, where each has exactly one
    partner: then the differences within pairs are the sample (Student's paired t). Otherwise the runs of
    both sides are taken to vary alike (Student's two-sample t). None without a repeat on either side.
    """
    value = float(np.mean(new) - np.mean(base))
    if len(pairs) > 1:
        within = np.array([new[j] - base[i] for i, j in pairs])
        return Estimate(value, float(within.std(ddof=1)) / math.sqrt(len(within)), len(within) - 1)
    dof = len(base) + len(new) - 2
    if dof == 0:
        return None
    squares = sum(float(np.var(side)) * len(side) for side in (base, new))
    return Estimate(value, math.sqrt(squares / dof * (1 / len(base) + 1 / len(new))), dof)


def _estimate(
    parts: Sequence[Floats],
    dofs: Sequence[float],
    values: Mapping[str, Sequence[float]],
    pairs: Sequence[tuple[int, int]],
) -> Estimate:
    """The larger of the two errors: what varies within runs also varies between them. With repeats the few
    runs also bound the degrees of freedom.
    """
    value = float(np.mean(values["new"]) - np.mean(values["base"]))
    error = math.sqrt(sum(float(p.var()) for p in parts))
    if error <= 1e-12 * max(abs(v) for side in values.values() for v in side):
        error = 0.0  # rounding in sums, not variation
    dof = _satterthwaite(parts, dofs)
    runs = between_runs(values["base"], values["new"], pairs)
    if runs is None:
        return Estimate(value, error, dof)
    return Estimate(value, max(error, runs.error), runs.dof if runs.error >= error else min(dof, runs.dof))


def _satterthwaite(parts: Sequence[Floats], dofs: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent variances (F. E. Satterthwaite, 1946)."""
    variances = [float(p.var()) for p in parts]
    below = sum(v * v / d if d > 0 else math.inf for v, d in zip(variances, dofs, strict=True) if v > 0)
    return sum(variances) ** 2 / below if below > 0 else max(min(dofs), 0.0)


def matched(base: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """(i, j) for base[i] and new[j] of one schedule, if every run has exactly one such partner."""
    place = {schedule: j for j, schedule in enumerate(new)}
    if len(set(base)) < len(base) or len(place) < len(new) or set(base) != place.keys():
        return []
    return [(i, place[schedule]) for i, schedule in enumerate(base)]


def _draws(seed: int, name: str, schedule: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}\0{name}\0{schedule}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))

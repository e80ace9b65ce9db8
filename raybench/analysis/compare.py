"""Two sides of runs held against each other: every figure's difference with its interval, and what of it is
more than chance.

    found = compare([open_run("a")], [open_run("b")])
    found.verdict, [f.name for f in found.figures if f.finding is Finding.REGRESSION]

The verdict rests on the headline figures alone, and S. Holm's step-down rule (1979) over them keeps the
chance of a false alarm in any of them at 1 − confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from raybench.analysis.bootstrap import Quantile
from raybench.analysis.comparable import Difference, NotComparable, differences
from raybench.analysis.compared import Kind, Run, Sample, kinds, runs, share_rows
from raybench.analysis.contrast import Contrast, Estimate, Measured, between_runs, contrast, matched
from raybench.analysis.figures import Summary
from raybench.analysis.quantiles import SUPPORT, Value
from raybench.analysis.question import Question, scenario_objectives
from raybench.analysis.source import Source
from raybench.schema import Exit, LoadKind

LEAST_DOF = 2.0
"""With fewer degrees of freedom within the runs, and no repeats, nothing can be told from chance."""
ENOUGH_DOF = 5.0
"""With fewer, finding nothing says nothing: the word is then "cannot tell"."""


class Finding(StrEnum):
    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    WITHIN_THRESHOLD = "within threshold"  # significant, but smaller than asked for
    NO_DIFFERENCE = "no significant difference"
    UNDECIDED = "cannot tell"  # too little data for any answer
    NOT_TESTED = "not tested"  # shown, but no part of the verdict


@dataclass(frozen=True)
class Settings:
    """`threshold` is a ratio: a significant difference no larger than it is none. It does not apply to the
    success rate. `force`: compare runs that did not measure the same thing.
    """

    confidence: float = 0.95
    threshold: float = 0.0
    resamples: int = 2000
    seed: int = 1
    force: bool = False

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence {self.confidence:g}: a ratio from 0.5 to below 1 is right")
        if self.resamples < 100:
            raise ValueError(f"resamples {self.resamples}: at least 100 is right")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold {self.threshold:g}: a ratio from 0 to below 1 is right")


@dataclass(frozen=True)
class Figure:
    """One line of a comparison. `unit` is s, 1/s, tokens/s, ratio, tokens or replica-seconds.

    `base` and `new` are means over the side's runs; one that is censored is only known to be larger, and
    then so is, or is not, the difference. Interval ends that are None are open. `p` is of this figure alone,
    `p_adjusted` after Holm over the headline figures.
    """

    name: str
    unit: str
    better: str | None  # low, high, or None for neither
    headline: bool
    base: Value | None
    new: Value | None
    difference: float | None = None
    interval: tuple[float | None, float | None] | None = None
    ratio: float | None = None  # new / base − 1
    ratio_interval: tuple[float | None, float | None] | None = None
    p: float | None = None
    p_adjusted: float | None = None
    finding: Finding = Finding.NOT_TESTED
    note: str = ""
    block_rows: int | None = None
    blocks: float | None = None
    within_dof: float | None = None  # of one run a side; None with repeats


@dataclass(frozen=True)
class Comparison:
    settings: Settings
    base: tuple[Summary, ...]
    new: tuple[Summary, ...]
    paired: bool  # every run shares its schedule with one on the other side
    anchor: str
    differences: tuple[Difference, ...]
    figures: tuple[Figure, ...]

    def of(self, finding: Finding) -> tuple[Figure, ...]:
        return tuple(f for f in self.figures if f.headline and f.finding is finding)

    @property
    def verdict(self) -> Finding:
        """The worst of the headline figures; undecided only where none of them could be decided."""
        for finding in (Finding.REGRESSION, Finding.IMPROVEMENT, Finding.WITHIN_THRESHOLD):
            if self.of(finding):
                return finding
        return Finding.NO_DIFFERENCE if self.of(Finding.NO_DIFFERENCE) else Finding.UNDECIDED

    @property
    def exit_code(self) -> Exit:
        codes = [Exit.REGRESSION] if self.of(Finding.REGRESSION) else []
        for summary in (*self.base, *self.new):
            codes += [Exit.INCOMPLETE] if summary.verdict.unfinished else []
            codes += [] if summary.verdict.valid else [Exit.INVALID]
        return Exit.worst(codes)


def compare(
    base: Sequence[Source],
    new: Sequence[Source],
    question: Question | None = None,
    settings: Settings | None = None,
) -> Comparison:
    """Compare runs; at least one a side. Raises NotComparable, unless forced, and ValueError."""
    question, settings = question or Question(), settings or Settings()
    found = differences([s.manifest for s in base], [s.manifest for s in new])
    if not settings.force and (stop := [d for d in found if d.matters]):
        raise NotComparable(stop)
    # Where they differ and that is forced, both sides are held against the base's objectives.
    if question.objectives is None:
        question = replace(question, objectives=scenario_objectives(base[0].manifest.scenario))
    before, after = runs(base, question, "base"), runs(new, question, "new")
    closed = LoadKind.CLOSED in {s.manifest.load_kind for s in (*base, *new)}
    return Comparison(
        settings=settings,
        base=tuple(summary for _, summary in before),
        new=tuple(summary for _, summary in after),
        paired={r.schedule for r, _ in before} == {r.schedule for r, _ in after},
        anchor=str(before[0][0].rows.anchor),
        differences=found,
        figures=compare_runs([r for r, _ in before], [r for r, _ in after], kinds(closed), settings),
    )


def compare_runs(
    base: Sequence[Run], new: Sequence[Run], what: Sequence[Kind], settings: Settings
) -> tuple[Figure, ...]:
    """Each kind's figure and the replica-seconds, judged together; without those that neither side has."""
    base, new = share_rows(base, new)
    figures = [_figure(kind, base, new, settings) for kind in what]
    figures.append(_replica_seconds(base, new, settings))
    return tuple(f for f in holm(figures, settings) if f.base is not None or f.new is not None)


# --- one figure -------------------------------------------------------------------------------------


def _figure(kind: Kind, base: Sequence[Run], new: Sequence[Run], settings: Settings) -> Figure:
    before, after = [kind.of(run) for run in base], [kind.of(run) for run in new]
    figure = Figure(kind.name, kind.unit, kind.better, kind.headline, _mean(before), _mean(after))
    for side, samples in (("base", before), ("new", after)):
        if lacking := next((s.lacking for s in samples if s.value is None), None):
            return replace(figure, finding=Finding.UNDECIDED, note=f"{side}: {lacking}")
    c = contrast(
        _measured(base, before),
        _measured(new, after),
        resamples=settings.resamples,
        seed=settings.seed,
        name=kind.name,
    )
    figure = _filled(figure, c.plain, c.logs, settings)
    within_dof = c.within_dof if len(base) == len(new) == 1 else None
    figure = replace(figure, block_rows=c.block_rows, blocks=c.blocks, within_dof=within_dof)
    figure = _open_ended(figure, before, after, c)
    return _undecided(
        figure, kind, before, after, c, max(r.clock_s for r in base) + max(r.clock_s for r in new)
    )


def _measured(side: Sequence[Run], samples: Sequence[Sample]) -> list[Measured]:
    return [
        Measured(run.schedule, sample.statistic)
        for run, sample in zip(side, samples, strict=True)
        if sample.statistic is not None
    ]


def _mean(samples: Sequence[Sample]) -> Value | None:
    """Of a side's runs. With one of them censored all that is known is a bound."""
    values = [s.value for s in samples if s.value is not None]
    if len(values) < len(samples):
        return None
    return Value(math.fsum(v.value for v in values) / len(values), any(v.censored for v in values))


def _filled(figure: Figure, plain: Estimate, logs: Estimate | None, settings: Settings) -> Figure:
    """A difference counts only if it is significant both as it is and as a ratio, so that the two intervals
    never contradict the finding.
    """
    figure = replace(
        figure, difference=plain.value, interval=_finite(plain.interval(settings.confidence)), p=plain.p
    )
    if logs is None:
        return figure
    low, high = _finite(logs.interval(settings.confidence))
    return replace(
        figure,
        ratio=math.expm1(logs.value),
        ratio_interval=(
            None if low is None else math.expm1(low),
            None if high is None or high > 700 else math.expm1(high),
        ),
        p=max(plain.p, logs.p),
    )


def _finite(interval: tuple[float, float]) -> tuple[float | None, float | None]:
    low, high = (end if math.isfinite(end) else None for end in interval)
    return low, high


def _open_ended(figure: Figure, base: Sequence[Sample], new: Sequence[Sample], c: Contrast) -> Figure:
    """Where a percentile lies, or within its error may lie, among timeouts, waiting longer could only have
    made it larger: that end of the interval is open.
    """

    def among(samples: Sequence[Sample]) -> bool:
        return any(
            isinstance(s.statistic, Quantile) and s.edge < 1 and s.edge < s.statistic.p + 2 * c.spread
            for s in samples
        )

    def opened(
        ends: tuple[float | None, float | None] | None,
    ) -> tuple[float | None, float | None] | None:
        if ends is None:
            return None
        return (None if among(base) else ends[0]), (None if among(new) else ends[1])

    return replace(figure, interval=opened(figure.interval), ratio_interval=opened(figure.ratio_interval))


_TOO_SHORT = "too few independent stretches of load: a longer run or repeats would tell"


def _undecided(
    figure: Figure, kind: Kind, base: Sequence[Sample], new: Sequence[Sample], c: Contrast, clock_s: float
) -> Figure:
    """What keeps a figure from being tested; else NO_DIFFERENCE, until `holm` says otherwise."""
    assert figure.base is not None and figure.new is not None
    dof = math.inf if figure.within_dof is None else figure.within_dof
    reason = ""
    if figure.base.censored and figure.new.censored:
        reason = "both lie among the timeouts"
    elif kind.percent is not None and not all(s.supported for s in (*base, *new)):
        least = math.ceil(SUPPORT / (1 - kind.percent / 100) - 1e-9)
        reason = f"needs {least:,} answers in each run"
    elif c.plain.value == 0 == c.plain.error:
        return replace(figure, finding=Finding.NO_DIFFERENCE)
    elif c.plain.error > 0 and dof < LEAST_DOF:
        reason = _TOO_SHORT
    if reason:
        return replace(figure, finding=Finding.UNDECIDED, note=reason)
    if kind.unit == "s" and abs(c.plain.value) <= clock_s:
        note = "below the uncertainty of the clocks"
        return replace(figure, p=1.0, finding=Finding.NO_DIFFERENCE, note=note)
    return replace(figure, finding=Finding.NO_DIFFERENCE)


def _replica_seconds(base: Sequence[Run], new: Sequence[Run], settings: Settings) -> Figure:
    """One number a run: without repeats there is nothing to judge the difference by."""
    known = [r.replica_seconds for r in (*base, *new) if r.replica_seconds is not None]
    if len(known) < len(base) + len(new):
        return Figure("replica_seconds", "replica-seconds", "low", False, None, None)
    old, now = known[: len(base)], known[len(base) :]
    repeated = len(old) > 1 or len(now) > 1
    before, after = (Value(math.fsum(side) / len(side)) for side in (old, now))
    figure = Figure("replica_seconds", "replica-seconds", "low", repeated, before, after)
    pairs = matched([r.schedule for r in base], [r.schedule for r in new])
    plain = between_runs(old, now, pairs)
    if plain is None:
        difference = now[0] - old[0]
        ratio = difference / old[0] if old[0] > 0 else None
        return replace(figure, difference=difference, ratio=ratio, note="one run a side: no interval")
    logs = None
    if min(known) > 0:
        logs = between_runs([math.log(v) for v in old], [math.log(v) for v in now], pairs)
    return replace(_filled(figure, plain, logs, settings), finding=Finding.NO_DIFFERENCE)


# --- all figures together ---------------------------------------------------------------------------


def holm(figures: Sequence[Figure], settings: Settings) -> list[Figure]:
    """The headline figures' p-values adjusted for how many they are (S. Holm, "A simple sequentially
    rejective multiple test procedure", 1979), and what follows from them. Others stay untested.
    """
    tested = [f for f in figures if f.headline and f.finding is Finding.NO_DIFFERENCE and f.p is not None]
    adjusted: dict[str, float] = {}
    least = 0.0
    for i, f in enumerate(sorted(tested, key=lambda f: f.p or 0.0)):
        least = max(least, min(1.0, (len(tested) - i) * (f.p or 0.0)))
        adjusted[f.name] = least
    found = []
    for f in figures:
        if f.name in adjusted:
            found.append(_judged(replace(f, p_adjusted=adjusted[f.name]), settings))
        elif not f.headline and f.finding is Finding.NO_DIFFERENCE:
            found.append(replace(f, finding=Finding.NOT_TESTED))
        else:
            found.append(f)
    return found


def _judged(figure: Figure, settings: Settings) -> Figure:
    assert figure.p_adjusted is not None and figure.difference is not None and figure.interval is not None
    low, high = figure.interval
    apart = (low is not None and low >= 0) or (high is not None and high <= 0)
    if figure.p_adjusted > 1 - settings.confidence or not apart or figure.difference == 0:
        if figure.difference and figure.within_dof is not None and figure.within_dof < ENOUGH_DOF:
            return replace(figure, finding=Finding.UNDECIDED, note=_TOO_SHORT)
        return replace(figure, finding=Finding.NO_DIFFERENCE)
    within = figure.ratio is not None and figure.unit != "ratio" and abs(figure.ratio) <= settings.threshold
    if within:
        return replace(figure, finding=Finding.WITHIN_THRESHOLD)
    better = (figure.difference < 0) == (figure.better == "low")
    return replace(figure, finding=Finding.IMPROVEMENT if better else Finding.REGRESSION)

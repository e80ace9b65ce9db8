"""What a comparison compares: each run's figures as statistics that can be resampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raybench.analysis.aligned import Aligned, align
from raybench.analysis.bootstrap import Floats, Quantile, Ratio, Statistic
from raybench.analysis.figures import Summary
from raybench.analysis.quantiles import Value, is_supported
from raybench.analysis.question import Objective, Question
from raybench.analysis.source import Source
from raybench.analysis.summary import summarise

PERCENTS = (50.0, 90.0, 99.0)
HEADLINE_PERCENTS = (50.0, 99.0)

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """One run, ready to be compared. Runs with the same `schedule` line up, row by row. `at`: the rows that
    any of them has selected, so that no block is filled with warm-up. `clock_s`: its clocks' uncertainty.
    """

    schedule: str
    rows: Aligned
    at: NDArray[np.intp]
    objectives: tuple[Objective, ...] = ()
    clock_s: float = 0.0
    replica_seconds: float | None = None


def runs(sources: Sequence[Source], question: Question, side: str) -> list[tuple[Run, Summary]]:
    """Read one side's runs, each with its whole summary."""
    found = []
    for i, source in enumerate(sources):
        m = source.manifest
        rows = align(source, question)
        summary = summarise(source, question)
        run = Run(
            schedule=f"{m.schedule_sha256}/{m.planned}" if m.schedule_sha256 else f"{side} {i}",
            rows=rows,
            at=np.flatnonzero(rows.selected),
            objectives=question.objectives or (),
            clock_s=summary.header.clock_uncertainty_s or 0.0,
            replica_seconds=summary.scaling.replica_seconds if summary.scaling else None,
        )
        found.append((run, summary))
    return found


def share_rows(base: Sequence[Run], new: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """The same runs, those of one schedule with the same `at`."""
    chosen: dict[str, Mask] = {}
    for run in (*base, *new):
        mask = chosen.get(run.schedule)
        chosen[run.schedule] = run.rows.selected if mask is None else mask | run.rows.selected
    at = {schedule: np.flatnonzero(mask) for schedule, mask in chosen.items()}
    before, after = ([replace(run, at=at[run.schedule]) for run in side] for side in (base, new))
    return before, after


@dataclass(frozen=True)
class Sample:
    """One run's figure. Where `value` is censored, the statistic's own value is a bound from below.

    `edge`: the share of the values that were measured, 1 without timeouts. `lacking`: why there is none.
    """

    value: Value | None
    statistic: Statistic | None = None
    supported: bool = True
    edge: float = 1.0
    lacking: str = ""


@dataclass(frozen=True)
class Kind:
    """`better`: low, high, or None for neither. `percent`: of a percentile."""

    name: str
    unit: str
    better: str | None
    headline: bool
    of: Callable[[Run], Sample]
    percent: float | None = None


def kinds(closed: bool) -> list[Kind]:
    """Every figure that is compared, in the order of the table. In an open loop the schedule makes the
    throughput, in a closed loop the server does, so only there is it a headline.
    """
    found: list[Kind] = []
    for metric in ("ttft", "tpot", "e2e"):
        found += [
            Kind(f"{metric}_p{p:g}", "s", "low", p in HEADLINE_PERCENTS, _percentile(metric, p), p)
            for p in PERCENTS
        ]
        found.append(Kind(f"{metric}_mean", "s", "low", False, _mean(metric)))
    good = Kind("goodput", "1/s", "high", True, _rate(lambda r: r.rows.good(r.objectives)))
    ok = Kind("completed", "1/s", "high", closed, _rate(lambda r: r.rows.ok()))
    tokens = Kind("output_tokens", "tokens/s", "high", closed, _token_rate)
    return [*found, Kind("success_rate", "ratio", "high", True, _success), good, ok, tokens, _ANSWER]


def _values(run: Run, metric: str) -> tuple[Floats, float]:
    if metric == "tpot":
        return run.rows.tpot_s(), np.inf
    return run.rows.ttft_s() if metric == "ttft" else run.rows.e2e_s()


def _percentile(metric: str, percent: float) -> Callable[[Run], Sample]:
    def of(run: Run) -> Sample:
        values, censored_at = _values(run, metric)
        values = values[run.at]
        n, hidden = int((~np.isnan(values)).sum()), int(np.isinf(values).sum())
        if n == 0:
            return Sample(None, lacking="nothing measured")
        if hidden:
            largest = float(np.max(values, where=np.isfinite(values), initial=censored_at))
            values = np.where(np.isinf(values), largest, values)
        statistic = Quantile(values, percent / 100)
        censored = statistic.rank > n - hidden
        value = Value(censored_at, censored=True) if censored else Value(statistic.value)
        return Sample(value, statistic, is_supported(percent, n), edge=(n - hidden) / n)

    return of


def _mean(metric: str) -> Callable[[Run], Sample]:
    def of(run: Run) -> Sample:
        values, _ = _values(run, metric)
        values = values[run.at]
        if hidden := int(np.isinf(values).sum()):
            return Sample(None, lacking=f"a mean is unknown with {hidden} timeouts")
        known = ~np.isnan(values)
        return _ratio(np.where(known, values, 0.0), known.astype(np.float64), "nothing measured")

    return of


def _rate(mask: Callable[[Run], Mask]) -> Callable[[Run], Sample]:
    return lambda run: _ratio(_ones(mask(run)[run.at]), run.rows.gap_s()[run.at], "fewer than two requests")


def _token_rate(run: Run) -> Sample:
    tokens = _tokens(run) * run.rows.selected
    if not tokens.any():
        return Sample(None, lacking="no usage from the server")
    return _ratio(tokens[run.at], run.rows.gap_s()[run.at], "fewer than two requests")


def _success(run: Run) -> Sample:
    return _ratio(_ones(run.rows.ok()[run.at]), _ones(run.rows.selected[run.at]), "nothing was planned")


def _answer_length(run: Run) -> Sample:
    counted = run.rows.ok() & (run.rows.rows.tokens >= 0)
    return _ratio((_tokens(run) * counted)[run.at], _ones(counted[run.at]), "no usage from the server")


_ANSWER = Kind("output_tokens_mean", "tokens", None, False, _answer_length)


def _tokens(run: Run) -> Floats:
    return np.maximum(run.rows.rows.tokens, 0).astype(np.float64)


def _ones(mask: Mask) -> Floats:
    return mask.astype(np.float64)


def _ratio(numerator: Floats, denominator: Floats, lacking: str) -> Sample:
    if not denominator.sum() > 0:
        return Sample(None, lacking=lacking)
    statistic = Ratio(numerator, denominator)
    return Sample(Value(statistic.value), statistic)

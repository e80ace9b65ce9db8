"""Latencies of the selected rows, as a whole and in groups.

A latency is of a request that ended well. A timeout enters as a value known only to be larger than the time
it was waited for; every other failure is left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raybench.analysis.columns import MISSING, OK, ONE_TOKEN, PHASES, TIMEOUT
from raybench.analysis.figures import Group, Grouping, Latencies
from raybench.analysis.quantiles import Distribution, distribution
from raybench.analysis.question import Anchor, Objective, Question
from raybench.analysis.rows import Collected, Rows
from raybench.schema import Manifest, Requests

Mask = NDArray[np.bool_]
Index = NDArray[np.intp] | slice

EVERY = slice(None)


def request_timeout_s(scenario: Mapping[str, Any]) -> float:
    """The scenario's request timeout; 0 where it has none, as a bound that is never wrong."""
    request = (scenario.get("load") or {}).get("request") or {}
    return float(request.get("timeout") or 0.0)


def timed(
    rows: Rows,
    metric: NDArray[np.int64],
    anchor: Anchor,
    percents: Sequence[float],
    timeout_s: float,
    at: Index = EVERY,
) -> Distribution:
    """The distribution of `rows.ttft` or `rows.e2e`, from the anchor, of the rows at `at`.

    A timed-out request whose first token came has a TTFT like any other; its E2E is censored at the time
    when it was given up.
    """
    outcome, values, e2e = rows.outcome[at], metric[at], rows.e2e[at]
    measured = outcome == OK
    if metric is rows.ttft:
        measured |= outcome == TIMEOUT
    measured &= values != MISSING
    cut = (outcome == TIMEOUT) & ~measured
    given_up = np.where(e2e[cut] == MISSING, round(timeout_s * 1e9), e2e[cut])
    found = values[measured]
    if anchor is Anchor.SCHEDULED:
        late = rows.lateness[at]
        found, given_up = _shifted(found, late[measured]), given_up + np.maximum(late[cut], 0)
    lowest = float(given_up.min()) / 1e9 if len(given_up) else None
    return distribution(found, percents, censored=len(given_up), censored_at=lowest)


def _shifted(values: NDArray[np.int64], lateness: NDArray[np.int64]) -> NDArray[np.int64]:
    """From sent to from scheduled; rows without an anchor have no such latency."""
    known = lateness != MISSING
    return np.asarray(values[known] + lateness[known], np.int64)


def per_token(rows: Rows, percents: Sequence[float], at: Index = EVERY) -> Distribution:
    """TPOT of the requests that ended well and had a second token."""
    return distribution(_tpot(rows, at), percents)


def user_rates(rows: Rows) -> NDArray[np.float64]:
    """1/TPOT of each request, tokens per second; those whose tokens came all at once have none."""
    tpot = _tpot(rows, EVERY)
    return np.asarray(1e9 / tpot[tpot > 0], np.float64)


def _tpot(rows: Rows, at: Index) -> NDArray[np.float64]:
    tpot = rows.tpot[at]
    return np.asarray(tpot[(rows.outcome[at] == OK) & (tpot >= 0)], np.float64)


def lateness(rows: Rows, percents: Sequence[float], at: Index = EVERY) -> Distribution:
    late = rows.lateness[at]
    return distribution(late[late != MISSING], percents)


def latencies(
    data: Collected, percents: Sequence[float], manifest: Manifest, *, scheduled: bool
) -> Latencies:
    rows, timeout_s = data.rows, request_timeout_s(manifest.scenario)
    ok = rows.outcome == OK

    def of(metric: NDArray[np.int64], anchor: Anchor) -> Distribution:
        return timed(rows, metric, anchor, percents, timeout_s)

    return Latencies(
        ttft_scheduled=of(rows.ttft, Anchor.SCHEDULED) if scheduled else None,
        ttft_sent=of(rows.ttft, Anchor.SENT),
        e2e_scheduled=of(rows.e2e, Anchor.SCHEDULED) if scheduled else None,
        e2e_sent=of(rows.e2e, Anchor.SENT),
        tpot=per_token(rows, percents),
        inter_chunk=distribution(data.gaps, percents),
        failed_left_out=int((~ok & (rows.outcome != TIMEOUT)).sum()),
        without_first_token=int((ok & (rows.ttft == MISSING)).sum()),
        without_tpot=int((ok & np.isnan(rows.tpot)).sum()),
        one_chunk_per_token=data.tally.with_usage > 0 and data.tally.chunks_are_tokens,
    )


def good(rows: Rows, anchor: Anchor, objectives: Sequence[Objective]) -> Mask:
    """Rows that ended well within the limit of every latency objective, whatever percentile it is stated
    for. What was not measured is not within a limit, but an answer of one token has no TPOT to miss.
    """
    result = np.asarray(rows.outcome == OK)
    late = np.where(rows.lateness == MISSING, 0, rows.lateness) if anchor is Anchor.SCHEDULED else 0
    for objective in objectives:
        limit_ns = objective.limit * 1e9
        if objective.metric == "tpot":
            with np.errstate(invalid="ignore"):
                result &= (rows.tpot <= limit_ns) | (rows.tpot == ONE_TOKEN)
        elif objective.metric in ("ttft", "e2e"):
            metric = rows.ttft if objective.metric == "ttft" else rows.e2e
            result &= (metric != MISSING) & (metric + late <= limit_ns)
    return result


# --- groups -----------------------------------------------------------------------------------------


def by_stage(
    rows: Rows, good: Mask, percents: Sequence[float], anchor: Anchor, manifest: Manifest
) -> Grouping | None:
    """A row a stage, where there is more than one."""
    if rows.n == 0 or rows.stage.min() == rows.stage.max():
        return None
    numbers = sorted(int(s) for s in np.unique(rows.stage))
    parts = _parts(rows.stage.astype(np.int32), numbers)
    return _grouping("stage", [(str(n), at) for n, at in parts], rows, good, percents, anchor, manifest)


def by_group(
    data: Collected,
    good: Mask,
    percents: Sequence[float],
    anchor: Anchor,
    manifest: Manifest,
    question: Question,
) -> Grouping | None:
    """As the question groups; rows that have no group (a replica nobody named) come last."""
    by = question.by
    if by is None:
        return None
    order = sorted(range(len(data.group_keys)), key=lambda i: _sort_key(data.group_keys[i]))
    if by == Requests.phase:
        order = sorted(order, key=lambda i: [str(p) for p in PHASES].index(data.group_keys[i]))
    parts = [(_group_name(by, data.group_keys[i]), at) for i, at in _parts(data.rows.group, order)]
    without = np.flatnonzero(data.rows.group == -1)
    if len(without):
        parts.append(("(none)", without))
    title = by if isinstance(by, str) else f"{by:g} s"
    return _grouping(title, parts, data.rows, good, percents, anchor, manifest)


def _sort_key(key: Any) -> tuple[bool, Any]:
    return isinstance(key, str), key


def _group_name(by: str | float, key: Any) -> str:
    return str(key) if isinstance(by, str) else f"{key * by:g}s to {(key + 1) * by:g}s"


def _parts(codes: NDArray[np.int32], wanted: Sequence[int]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """(code, positions of its rows), by one sort and not a pass for each."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    for code in wanted:
        low, high = np.searchsorted(ordered, [code, code + 1])
        if high > low:  # a dictionary column names phases that no row has
            yield code, order[low:high]


def _grouping(
    by: str,
    parts: Sequence[tuple[str, NDArray[np.intp]]],
    rows: Rows,
    good: Mask,
    percents: Sequence[float],
    anchor: Anchor,
    manifest: Manifest,
) -> Grouping:
    timeout_s = request_timeout_s(manifest.scenario)
    groups = []
    for name, at in parts:
        tokens = rows.tokens[at]
        groups.append(
            Group(
                name=name,
                requests=len(at),
                ok=int((rows.outcome[at] == OK).sum()),
                good=int(good[at].sum()),
                output_tokens=int(tokens[tokens > 0].sum(dtype=np.int64)),
                ttft=timed(rows, rows.ttft, anchor, percents, timeout_s, at),
                e2e=timed(rows, rows.e2e, anchor, percents, timeout_s, at),
                tpot=per_token(rows, percents, at),
                lateness=lateness(rows, percents, at),
            )
        )
    return Grouping(by, tuple(groups))

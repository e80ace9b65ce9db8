"""From gathered values to latencies, and the same for each stage and group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raybench.analysis.columns import MISSING, OK, ONE_TOKEN, PHASES, Rows
from raybench.analysis.figures import Group, Grouping
from raybench.analysis.metrics import E2E, LATENESS, TPOT, TTFT, Metrics
from raybench.analysis.quantiles import Distribution
from raybench.analysis.question import Anchor, Objective
from raybench.schema import Requests


def request_timeout_s(scenario: Mapping[str, Any]) -> float:
    """The scenario's request timeout; 0 where it has none, as a bound that is never wrong."""
    request = (scenario.get("load") or {}).get("request") or {}
    return float(request.get("timeout") or 0.0)


def good(rows: Rows, anchor: Anchor, objectives: Sequence[Objective]) -> NDArray[np.bool_]:
    """Rows that ended well within the limit of every latency objective, whatever percentile it is stated
    for. What was not measured is not within a limit, but an answer of one token has no TPOT to miss.
    """
    result = np.asarray(rows.outcome == OK)
    late: NDArray[np.int64] | int = 0
    if anchor is Anchor.SCHEDULED:
        late = np.where(rows.lateness == MISSING, 0, rows.lateness)
    for objective in objectives:
        limit_ns = objective.limit * 1e9
        if objective.metric == "tpot":
            result &= (rows.tpot <= limit_ns) | (rows.tpot == ONE_TOKEN)
        elif objective.metric in ("ttft", "e2e"):
            metric = rows.ttft if objective.metric == "ttft" else rows.e2e
            result &= (metric != MISSING) & (metric + late <= limit_ns)
    return result


class Parts:
    """Stages or groups, each described as its values come in, pass by pass."""

    def __init__(self, anchor: Anchor, percents: Sequence[float]) -> None:
        self._names = (LATENESS, TTFT[anchor], E2E[anchor], TPOT)
        self._percents = percents
        self._counted: dict[Any, Metrics] = {}
        self._found: dict[Any, dict[str, Distribution]] = {}

    def take(self, parts: Mapping[Any, Metrics], wanted: Sequence[str]) -> None:
        for key, metrics in parts.items():
            self._counted.setdefault(key, metrics)
            found = self._found.setdefault(key, {})
            for name in self._names:
                if name in wanted:
                    found[name] = metrics.describe(name, self._percents)
            metrics.forget()

    def grouping(self, by: str | float) -> Grouping:
        """In order of the key; rows that have none (a replica nobody named) come last."""
        lateness, ttft, e2e, tpot = self._names
        groups = []
        for key in sorted(self._counted, key=lambda k: _sort_key(by, k)):
            counted, found = self._counted[key], self._found[key]
            groups.append(
                Group(
                    name=_name(by, key),
                    requests=counted.requests,
                    ok=counted.ok,
                    good=counted.good,
                    output_tokens=counted.output_tokens,
                    ttft=found[ttft],
                    e2e=found[e2e],
                    tpot=found[tpot],
                    lateness=found[lateness],
                )
            )
        return Grouping(by if isinstance(by, str) else f"{by:g} s", tuple(groups))

    def __len__(self) -> int:
        return len(self._counted)


def _sort_key(by: str | float, key: Any) -> tuple[bool, Any]:
    if key is None:
        return True, 0
    return False, [str(p) for p in PHASES].index(key) if by == Requests.phase else key


def _name(by: str | float, key: Any) -> str:
    if key is None:
        return "(none)"
    return str(key) if isinstance(by, str) else f"{key * by:g}s to {(key + 1) * by:g}s"

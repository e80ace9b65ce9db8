"""The values that distributions are made of, gathered batch by batch for a whole run or for a part of it.

A latency is of a request that ended well. A timeout enters as a value known only to be larger than the time
it was waited for; every other failure is left out and counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from raybench.analysis.columns import MISSING, OK, TIMEOUT, Growing, Rows, counts_for_oha
from raybench.analysis.quantiles import Distribution, distribution
from raybench.analysis.question import Anchor

LATENESS, TPOT = "lateness", "tpot"
TTFT = {Anchor.SCHEDULED: "ttft_scheduled", Anchor.SENT: "ttft_sent"}
E2E = {Anchor.SCHEDULED: "e2e_scheduled", Anchor.SENT: "e2e_sent"}
NAMES = (LATENESS, *TTFT.values(), *E2E.values(), TPOT)


class Metrics:
    """`wanted`: which of NAMES to keep values of, 8 bytes each; counts are kept of all."""

    def __init__(self, wanted: Collection[str], expected: int, timeout_s: float) -> None:
        self.requests = self.ok = self.good = self.output_tokens = 0
        self.failed_left_out = self.without_first_token = self.without_tpot = self.without_usage = 0
        self._timeout_ns = round(timeout_s * 1e9)
        self._values = {
            name: Growing(np.float64 if name == TPOT else np.int64, expected)
            for name in NAMES
            if name in wanted
        }
        self._censored = dict.fromkeys(NAMES, 0)
        self._lowest: dict[str, int] = {}
        self._answered_badly = {anchor: Growing(np.int64, 0) for anchor in Anchor}

    def add(self, rows: Rows, good: NDArray[np.bool_]) -> None:
        """Take a batch in."""
        ok, timeout = rows.outcome == OK, rows.outcome == TIMEOUT
        n_ok = int(ok.sum())
        self.requests += rows.n
        self.ok += n_ok
        self.good += int(good.sum())
        self.output_tokens += int(np.maximum(rows.tokens, 0).sum(dtype=np.int64))
        self.without_usage += int((ok & (rows.tokens < 0)).sum())
        self.failed_left_out += rows.n - n_ok - int(timeout.sum())
        self.without_tpot += int((ok & np.isnan(rows.tpot)).sum())
        late = rows.lateness
        anchored = late != MISSING
        self._keep(LATENESS, late, anchored)
        began = (ok | timeout) & (rows.ttft != MISSING)
        self.without_first_token += int((ok & ~began).sum())
        self._add_latency(TTFT, rows.ttft, rows, anchored, began, timeout & ~began)
        self._add_latency(E2E, rows.e2e, rows, anchored, ok & (rows.e2e != MISSING), timeout)
        self._keep(TPOT, rows.tpot, ok & (rows.tpot >= 0))
        badly = counts_for_oha(rows.outcome, rows.answered) & ~ok & (rows.e2e != MISSING)
        if badly.any() and E2E[Anchor.SENT] in self._values:
            self._answered_badly[Anchor.SENT].append(rows.e2e[badly])
            badly &= anchored
            self._answered_badly[Anchor.SCHEDULED].append(rows.e2e[badly] + late[badly])

    def _add_latency(
        self,
        names: dict[Anchor, str],
        from_sent: NDArray[np.int64],
        rows: Rows,
        anchored: NDArray[np.bool_],
        measured: NDArray[np.bool_],
        cut: NDArray[np.bool_],
    ) -> None:
        self._keep(names[Anchor.SENT], from_sent, measured)
        if names[Anchor.SCHEDULED] in self._values:
            self._keep(names[Anchor.SCHEDULED], from_sent + rows.lateness, measured & anchored)
        if cut.any():
            given_up, late = rows.e2e[cut], rows.lateness[cut]
            given_up = np.where(given_up == MISSING, self._timeout_ns, given_up)
            self._censor(names[Anchor.SENT], given_up)
            self._censor(names[Anchor.SCHEDULED], given_up + np.maximum(late, 0))

    def _keep(self, name: str, values: NDArray[np.generic], where: NDArray[np.bool_]) -> None:
        kept = self._values.get(name)
        if kept is not None:
            kept.append_where(values, where)

    def _censor(self, name: str, given_up: NDArray[np.int64]) -> None:
        self._censored[name] += len(given_up)
        self._lowest[name] = min(int(given_up.min()), self._lowest.get(name, np.iinfo(np.int64).max))

    def describe(self, name: str, percents: Sequence[float]) -> Distribution:
        """The distribution of one of the wanted. Reorders its values."""
        lowest = self._lowest.get(name)
        return distribution(
            self._values[name].array(),
            percents,
            censored=self._censored[name],
            censored_at=None if lowest is None else lowest / 1e9,
        )

    def forget(self) -> None:
        """Give the values' memory back; the counts stay."""
        self._values.clear()

    def take_rates(self) -> NDArray[np.float64]:
        """1/TPOT of each request, tokens per second; answers whose tokens came at once have none. Uses the
        TPOT's memory: afterwards that is gone.
        """
        tpot = self._values.pop(TPOT).array()
        if len(tpot) and not tpot.all():
            tpot = tpot[tpot > 0]
        np.divide(1e9, tpot, out=tpot)
        return tpot

    def take_answered_s(self, anchor: Anchor) -> NDArray[np.float64]:
        """E2E in seconds of every request that oha counts as a success. Uses the E2E's memory as above."""
        kept = self._values.pop(E2E[anchor])
        kept.append(self._answered_badly[anchor].array())
        ns = kept.array()
        seconds = ns.view(np.float64)
        for at in range(0, len(ns), 2**20):  # element by element over itself, in pieces that fit the cache
            seconds[at : at + 2**20] = ns[at : at + 2**20] / 1e9
        return seconds

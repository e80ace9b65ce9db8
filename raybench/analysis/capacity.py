"""How much of its calibrated capacity the busiest generator used, from the rows it wrote.

    share = requests sent in a second · CPU seconds per request
          + chunks received in it · CPU seconds per chunk, both from calibration

so 1 is a whole core. A row's chunks are spread evenly from its first token to its last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raybench.analysis.source import Source
from raybench.schema import Requests

_COLUMNS = (
    Requests.generator,
    Requests.sent_ns,
    Requests.first_token_ns,
    Requests.last_token_ns,
    Requests.chunks,
)
_AT_ONCE_S = 1e-3
"""Chunks that came within less are counted into the second of the first."""


@dataclass(frozen=True)
class Busiest:
    """The second in which a generator was closest to what it can do."""

    generator: int
    second: int  # after t0
    requests: float
    chunks: float
    share: float  # of a core


class _Seconds:
    """Sums by whole second after t0, growing as later ones turn up."""

    def __init__(self) -> None:
        self.values = np.zeros(0)

    def add(self, second: NDArray[np.int64], weights: NDArray[np.float64] | None = None) -> None:
        if not len(second):
            return
        sums = np.bincount(np.maximum(second, 0), weights, minlength=len(self.values)).astype(np.float64)
        sums[: len(self.values)] += self.values
        self.values = sums

    def upto(self, seconds: int) -> NDArray[np.float64]:
        return np.pad(self.values[:seconds], (0, max(0, seconds - len(self.values))))


class Load:
    """Requests sent and chunks received by one generator, second by second."""

    def __init__(self) -> None:
        self._sent, self._at_once = _Seconds(), _Seconds()
        # A chunk every 1/rate from a to b is rate·(t − a)⁺ − rate·(t − b)⁺ chunks by t. The sums over
        # rows of rate and rate·a, by the first whole second after a, give that for every whole t.
        self._rate, self._moment = _Seconds(), _Seconds()

    def add(
        self,
        sent_s: NDArray[np.float64],
        first_s: NDArray[np.float64],
        last_s: NDArray[np.float64],
        chunks: NDArray[np.float64],
    ) -> None:
        """Instants in seconds after t0, NaN where there is none."""
        self._sent.add(np.floor(sent_s[~np.isnan(sent_s)]).astype(np.int64))
        known = ~np.isnan(first_s) & ~np.isnan(last_s) & (chunks > 0)
        at_once = known & (last_s - first_s < _AT_ONCE_S)
        self._at_once.add(np.floor(first_s[at_once]).astype(np.int64), chunks[at_once])
        spread = known & ~at_once
        first, last = np.maximum(first_s[spread], 0.0), np.maximum(last_s[spread], _AT_ONCE_S)
        rate = chunks[spread] / (last - first)
        for instant, sign in ((first, 1.0), (last, -1.0)):
            second = np.ceil(instant).astype(np.int64)
            self._rate.add(second, sign * rate)
            self._moment.add(second, sign * rate * instant)

    def per_second(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Requests and chunks in each whole second from t0 on."""
        n = max(len(s.values) for s in (self._sent, self._at_once, self._rate))
        rate, moment = np.cumsum(self._rate.upto(n + 1)), np.cumsum(self._moment.upto(n + 1))
        received = np.maximum(np.arange(n + 1) * rate - moment, 0.0)
        return self._sent.upto(n), np.maximum(np.diff(received), 0.0) + self._at_once.upto(n)


def busiest(source: Source, calibration: Mapping[str, Any]) -> Busiest | None:
    """The busiest second of any generator; None where no row was sent or the calibration lacks its costs."""
    try:
        per_request = float(calibration["cpu_s_per_request"])
        per_chunk = float(calibration["cpu_s_per_1000_chunks"]) / 1000
    except (KeyError, TypeError, ValueError):
        return None
    loads: dict[int, Load] = {}
    for batch in source.batches(Requests, _COLUMNS):
        generator = batch.column(0).to_numpy(zero_copy_only=False)
        sent, first, last, chunks = (
            c.to_numpy(zero_copy_only=False).astype(np.float64) for c in batch.columns[1:]
        )
        for number in np.unique(generator):
            own = generator == number
            load = loads.setdefault(int(number), Load())
            load.add(sent[own] / 1e9, first[own] / 1e9, last[own] / 1e9, chunks[own])
    found = [_worst(number, load, per_request, per_chunk) for number, load in loads.items()]
    return max((one for one in found if one is not None), key=lambda one: one.share, default=None)


def _worst(number: int, load: Load, per_request: float, per_chunk: float) -> Busiest | None:
    requests, chunks = load.per_second()
    if not len(requests):
        return None
    share = requests * per_request + chunks * per_chunk
    at = int(share.argmax())
    return Busiest(number, at, float(requests[at]), float(chunks[at]), float(share[at]))

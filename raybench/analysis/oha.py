"""The published report's own figures: oha's arithmetic, kept to the letter.

- a success is an exchange that ended with any HTTP status, a 500 too; the client's own timeout is an error
- Requests/sec counts successes and errors; the success rate leaves out what the run's end cut off
- histogram of 11 bins over [min, max]: step = (max − min)/10, bin = min(ceil((v − min)/step), 10), labelled
  by its upper, inclusive edge
- percentiles without interpolation: sorted[floor(p/100 · n)]

Source of the formulas: oha 1.15, `result_data.rs`, `histogram.rs`, `printer.rs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raybench.analysis.figures import OhaFigures
from raybench.analysis.question import Anchor

BINS = 11
PERCENTS = (10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Durations:
    """What the block needs of the durations themselves, in seconds; None and empty for none."""

    n: int
    slowest_s: float | None
    fastest_s: float | None
    average_s: float | None
    histogram: tuple[tuple[float, int], ...]
    percentiles: tuple[tuple[float, float | None], ...]


def durations(values: Seconds) -> Durations:
    """`values`: one a success, in any order; reordered in place."""
    n = len(values)
    return Durations(
        n=n,
        slowest_s=float(values.max()) if n else None,
        fastest_s=float(values.min()) if n else None,
        average_s=float(values.mean()) if n else None,
        histogram=histogram(values),
        percentiles=percentiles(values),
    )


def figures(
    of: Durations,
    *,
    anchor: Anchor = Anchor.SENT,
    errors: Mapping[str, int],
    cut_off: int = 0,
    total_s: float | None,
    total_bytes: int = 0,
    status_codes: Mapping[int, int] | None = None,
    dialup_s: tuple[float, float, float] | None = None,
    toks_per_s: tuple[float, float] | None = None,
    counted_as_success: Mapping[str, int] | None = None,
    left_out: Mapping[str, int] | None = None,
) -> OhaFigures:
    """`errors`: reason -> count, with the `cut_off` ones among them. `toks_per_s`: p5 and p95 of the single
    requests' decode rates.
    """
    n, failed = of.n, sum(errors.values())
    judged = n + failed - cut_off
    return OhaFigures(
        anchor=anchor,
        successes=n,
        errors=dict(sorted(errors.items(), key=lambda item: (-item[1], item[0]))),
        success_rate=n / judged if judged else None,
        total_s=total_s,
        slowest_s=of.slowest_s,
        fastest_s=of.fastest_s,
        average_s=of.average_s,
        requests_per_s=(n + failed) / total_s if total_s else None,
        total_bytes=total_bytes,
        size_per_request=total_bytes // n if n else None,
        size_per_s=int(total_bytes / total_s) if total_s else None,
        histogram=of.histogram,
        percentiles=of.percentiles,
        status_codes=tuple(sorted((status_codes or {}).items(), key=lambda item: (-item[1], item[0]))),
        dialup_s=dialup_s,
        toks_per_s=toks_per_s,
        counted_as_success=dict(counted_as_success or {}),
        left_out=dict(left_out or {}),
    )


def histogram(values: Seconds, bins: int = BINS) -> tuple[tuple[float, int], ...]:
    """(upper edge, count) of each bin; empty for no values. All values equal: every one in the first bin."""
    if not len(values):
        return ()
    low, high = float(values.min()), float(values.max())
    step = (high - low) / (bins - 1)
    counts = np.zeros(bins, np.int64)
    for part in np.array_split(values, max(1, len(values) >> 20)):  # in pieces: no second copy of a long run
        if step == 0:
            places = np.zeros(len(part), np.int64)
        else:
            places = np.minimum(np.ceil((part - low) / step), bins - 1).astype(np.int64)
        counts += np.bincount(places, minlength=bins)
    return tuple((low + step * i, int(counts[i])) for i in range(bins))


def percentiles(values: Seconds) -> tuple[tuple[float, float | None], ...]:
    """(percent, value); None where the sample does not reach. Reorders `values`."""
    n = len(values)
    ranks = {p: int(p / 100 * n) for p in PERCENTS}
    if within := sorted({r for r in ranks.values() if r < n}):
        values.partition(within)
    return tuple((p, float(values[r]) if r < n else None) for p, r in ranks.items())

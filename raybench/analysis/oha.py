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

import numpy as np
from numpy.typing import NDArray

from raybench.analysis.figures import OhaFigures
from raybench.analysis.quantiles import nearest_rank
from raybench.analysis.question import Anchor

BINS = 11
PERCENTS = (10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)

Seconds = NDArray[np.float64]


def figures(
    durations_s: Seconds,
    *,
    anchor: Anchor = Anchor.SENT,
    errors: Mapping[str, int],
    cut_off: int = 0,
    total_s: float | None,
    total_bytes: int = 0,
    status_codes: Mapping[int, int] | None = None,
    dialup_s: tuple[float, float, float] | None = None,
    rates: Seconds | None = None,
    counted_as_success: Mapping[str, int] | None = None,
    left_out: Mapping[str, int] | None = None,
) -> OhaFigures:
    """`durations_s`: one a success, in any order, reordered in place. `errors`: reason -> count, with the
    `cut_off` ones among them. `rates`: tokens per second of single requests, reordered in place.
    """
    n, failed = len(durations_s), sum(errors.values())
    judged = n + failed - cut_off
    low, high = (float(durations_s.min()), float(durations_s.max())) if n else (None, None)
    by_count = sorted((status_codes or {}).items(), key=lambda item: (-item[1], item[0]))
    return OhaFigures(
        anchor=anchor,
        successes=n,
        errors=dict(sorted(errors.items(), key=lambda item: (-item[1], item[0]))),
        success_rate=n / judged if judged else None,
        total_s=total_s,
        slowest_s=high,
        fastest_s=low,
        average_s=float(durations_s.mean()) if n else None,
        requests_per_s=(n + failed) / total_s if total_s else None,
        total_bytes=total_bytes,
        size_per_request=total_bytes // n if n else None,
        size_per_s=int(total_bytes / total_s) if total_s else None,
        histogram=histogram(durations_s),
        percentiles=percentiles(durations_s),
        status_codes=tuple(by_count),
        dialup_s=dialup_s,
        toks_per_s=_toks_per_s(rates),
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


def _toks_per_s(rates: Seconds | None) -> tuple[float, float] | None:
    if rates is None or not len(rates):
        return None
    low, high = nearest_rank(5, len(rates)), nearest_rank(95, len(rates))
    rates.partition([low, high])
    return float(rates[low]), float(rates[high])

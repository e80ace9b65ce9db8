"""Numbers as people read them: a unit, and no more digits than mean something."""

from __future__ import annotations

import math

from raybench.analysis.quantiles import Percentile, Value

NOTHING = "-"
MARK = "*"
_BINARY = ("KiB", "MiB", "GiB", "TiB")
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def duration(seconds: float | None, finest_s: float = 0.0) -> str:
    """`1.23 ms`, `45.6 s`: at least three digits, none finer than `finest_s` (a clock's uncertainty)."""
    if seconds is None:
        return NOTHING
    if seconds == 0:
        return "0 s"
    size, unit = next(((s, u) for s, u in _UNITS if abs(seconds) >= s), _UNITS[-1])
    value = seconds / size
    decimals = max(0, 3 - len(str(int(abs(value)))))
    if finest_s > 0:
        decimals = min(decimals, max(0, math.floor(-math.log10(finest_s / size))))
    return f"{value:.{decimals}f} {unit}"


def bound(seconds: float) -> str:
    """A censored time as stated: `> 300 s`. Rounded down, since the true one is larger."""
    if seconds <= 0:
        return "> 0 s"
    size, unit = next(((s, u) for s, u in _UNITS if seconds >= s), _UNITS[-1])
    value = seconds / size
    step = 10.0 ** (len(str(int(value))) - 3)
    return f"> {math.floor(value / step) * step:g} {unit}"


def value(v: Value | None, finest_s: float = 0.0) -> str:
    if v is None:
        return NOTHING
    return bound(v.value) if v.censored else duration(v.value, finest_s)


def percentile(p: Percentile | None, finest_s: float = 0.0) -> str:
    """With the mark where the sample does not support it."""
    if p is None:
        return NOTHING
    return value(p.value, finest_s) + ("" if p.supported else MARK)


def number(x: float | None) -> str:
    """`1,234`, `12.3`, `0.0457`."""
    if x is None:
        return NOTHING
    if float(x).is_integer() and abs(x) < 1e15:
        return f"{int(x):,}"
    return f"{x:,.1f}" if abs(x) >= 100 else f"{x:.3g}"


def per_second(x: float | None, what: str = "") -> str:
    return NOTHING if x is None else f"{number(x)}{' ' + what if what else ''}/s"


def percent(ratio: float | None) -> str:
    """Two decimals, and never `100.00%` or `0.00%` for what is only nearly so."""
    if ratio is None:
        return NOTHING
    text = f"{ratio:.2%}"
    if (text == "100.00%" and ratio < 1) or (text == "0.00%" and ratio > 0):
        return f"{ratio * 100:.6f}".rstrip("0") + "%"
    return text


def instant(seconds: float) -> str:
    """Seconds after t0, in a column."""
    return f"{seconds:.2f} s"


def binary_bytes(n: int | None) -> str:
    """As oha prints sizes: `255 B`, `4.50 KiB`."""
    if n is None:
        return "NaN"
    if n < 1024:
        return f"{n} B"
    power = min((n.bit_length() - 1) // 10, len(_BINARY))
    return f"{n / 1024**power:.2f} {_BINARY[power - 1]}"

"""Student's t distribution, from its definition through the incomplete beta function. Degrees of freedom
need not be whole.
"""

from __future__ import annotations

import math


def two_sided(t: float, dof: float) -> float:
    """P(|T| ≥ |t|), that is I_x(dof/2, 1/2) at x = dof/(dof + t²). dof > 0."""
    if math.isinf(t):
        return 0.0
    return _beta(dof / 2, 0.5, dof / (dof + t * t))


def critical(confidence: float, dof: float) -> float:
    """The t with P(|T| ≤ t) = confidence, 0 < confidence < 1. dof > 0."""
    low, high = 0.0, 1.0
    while two_sided(high, dof) > 1 - confidence and high < 1e300:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        if two_sided(middle, dof) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction
    (Abramowitz and Stegun 26.5.8), on the side where that converges fast.
    """
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    # From the innermost term outwards; a hundred terms are far more than double precision needs here,
    # bar for very large a, where the terms fall off after about the root of it.
    terms = 100 + int(5 * math.sqrt(max(a, b)))
    tail = 1.0
    for i in range(terms, 0, -1):
        k, odd = divmod(i, 2)
        if odd:
            d = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1))
        else:
            d = k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k))
        tail = 1 + d / tail
    return math.exp(log_front) / (a * tail)

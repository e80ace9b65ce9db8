"""Student's t distribution, from its definition through the incomplete beta function. Degrees of freedom
need not be whole.
"""

from __future__ import annotations

import math
from statistics import NormalDist


def two_sided(t: float, dof: float) -> float:
    """P(|T| ≥ |t|), that is I_x(dof/2, 1/2) at x = dof/(dof + t²). dof > 0."""
    if math.isinf(t):
        return 0.0
    return _beta(dof / 2, 0.5, dof / (dof + t * t))


def critical(confidence: float, dof: float) -> float:
    """The t with P(|T| ≤ t) = confidence, 0 < confidence < 1. dof > 0; infinite where that leaves the range
    of floats, for very small dof.

    Newton's steps from the normal's own value, which is never too large: the tail falls ever more slowly,
    so that no step goes past the solution.
    """
    log_peak = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - math.log(dof * math.pi) / 2
    t = NormalDist().inv_cdf((1 + confidence) / 2)
    for _ in range(200):
        if t > 1e150:
            return math.inf
        density = math.exp(log_peak - (dof + 1) / 2 * math.log1p(t * t / dof))
        if density == 0:
            return math.inf
        step = (two_sided(t, dof) - (1 - confidence)) / (2 * density)
        t += step
        if abs(step) <= 1e-12 * t:
            break
    return t


def _beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz and Stegun
    26.5.8) on the side where that converges fast, evaluated forwards (W. J. Lentz, 1976).
    """
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    fraction, c, d = 1.0, 1.0, 0.0
    for i in range(1, 10_000):
        k, odd = divmod(i, 2)
        if odd:
            term = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1))
        else:
            term = k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k))
        d = 1 / (1 + term * d)
        c = 1 + term / c
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return math.exp(log_front) / (a * fraction)

"""Random numbers that are the same on every machine and under every NumPy version.

NumPy promises that the bits of a bit generator never change, and promises nothing of the kind for its
distributions (`Generator.exponential` and the like may be improved in any release). Nor are `log`, `exp`
and `cos` the same everywhere: their last bit depends on the C library and on the CPU's vector unit. A
schedule's hash cannot bear either. So everything here is made from PCG64's raw bits with operations that
IEEE 754 fixes to the last bit (+ - * / sqrt, and exact scaling by powers of two), and the three elementary
functions are short series of those, good to about 1e-15. Their rounding never meets a statistical test;
their reproducibility meets a SHA-256.

Each use has its own stream, named by the scenario's seed and a key: the same as spawning children of a
`SeedSequence`, so that a further stage or a further kind of draw leaves all others as they were. Every
method is prefix-stable: the first n of m > n values are the n values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# The first part of a stream's key: what it is for. Numbers are part of the schedule format.
ARRIVALS, INPUT_TOKENS, OUTPUT_TOKENS, PROMPT_ORDER, TURNS, THINK, TEXT = range(7)

_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_TWO_PI = 6.283185307179586


class Draws:
    """One stream. Every call starts at the stream's beginning: a stream has one use."""

    def __init__(self, seed: int, *key: int) -> None:
        self._seed = np.random.SeedSequence(seed, spawn_key=key)

    def raw(self, n: int, skip: int = 0) -> npt.NDArray[np.uint64]:
        """`n` 64-bit words of the stream after the first `skip`."""
        bits = np.random.PCG64(self._seed)
        if skip:
            bits.advance(skip)
        return np.asarray(bits.random_raw(n), dtype=np.uint64)

    def uniform(self, n: int, skip: int = 0) -> Floats:
        """Uniform on (0, 1), neither end included; 52 bits each, one word a value."""
        return ((self.raw(n, skip) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def below(self, n: int, bound: int) -> Ints:
        """Integers from 0 to bound - 1. For bounds below 2**32 the bias is under 2**-20."""
        return np.floor(self.uniform(n) * bound).astype(np.int64)

    def exponential(self, n: int, skip: int = 0) -> Floats:
        """Mean 1, by the inverse of the distribution function."""
        return -log(self.uniform(n, skip))

    def normal(self, n: int, skip: int = 0) -> Floats:
        """Mean 0, variance 1, by Box and Muller's formula; two words a value."""
        u = self.uniform(2 * n, 2 * skip).reshape(-1, 2)
        return np.sqrt(-2.0 * log(u[:, 0])) * cos_turns(u[:, 1])

    def gamma(self, n: int, shape: float) -> Floats:
        """Mean `shape`, variance `shape`: Marsaglia and Tsang, "A simple method for generating gamma
        variables" (2000), with their boost U**(1/shape) for shapes below 1.

        Candidates take four words each, accepted or not, so that block sizes do not show.
        """
        k = shape if shape >= 1 else shape + 1.0
        d = k - 1.0 / 3.0
        c = 1.0 / (3.0 * float(np.sqrt(d)))
        parts: list[Floats] = []
        have = tried = 0
        while have < n:
            block = int((n - have) * 1.06) + 32
            u = self.uniform(4 * block, 4 * tried).reshape(-1, 4)
            tried += block
            x = np.sqrt(-2.0 * log(u[:, 0])) * cos_turns(u[:, 1])
            v = 1.0 + c * x
            v = v * v * v
            good = v > 0
            good &= log(u[:, 2]) < 0.5 * x * x + d - d * v + d * log(np.where(good, v, 1.0))
            value = d * v[good]
            if shape < 1:
                value = value * exp(log(u[good, 3]) / shape)
            parts.append(value)
            have += len(value)
        return np.concatenate(parts)[:n] if parts else np.empty(0)


def permutation(draws: Draws, n: int) -> Ints:
    """A random order of 0 … n-1: the order of n random words (equal words, if ever, stay in place)."""
    return np.argsort(draws.raw(n), kind="stable").astype(np.int64)


def log(x: Floats) -> Floats:
    """Natural logarithm of positive numbers. x = m 2**e with m in [sqrt(1/2), sqrt(2)), then
    log m = 2 artanh f with f = (m - 1)/(m + 1), |f| < 0.172, summed to f**23.
    """
    mantissa, exponent = np.frexp(x)
    small = mantissa < _SQRT_HALF
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    exponent = exponent - small
    f = (mantissa - 1.0) / (mantissa + 1.0)
    square = f * f
    total = np.full_like(square, 1.0 / 23.0)
    for odd in range(21, 0, -2):
        total = total * square + 1.0 / odd
    return 2.0 * f * total + exponent * _LN2


def exp(x: Floats) -> Floats:
    """e**x for x < 700, next to 0 far below -700. x = n ln 2 + r with |r| < 0.35, Taylor to r**15."""
    x = np.maximum(x, -745.0)
    n = np.rint(x / _LN2)
    r = x - n * _LN2
    total = np.ones_like(r)
    for i in range(15, 0, -1):
        total = total * r / i + 1.0
    return np.ldexp(total, n.astype(np.int32))


def cos_turns(x: Floats) -> Floats:
    """cos(2 pi x): x in turns, so that the range is reduced exactly; Taylor to degree 24."""
    x = np.abs(x - np.rint(x))  # [0, 1/2], cos is even
    flip = x > 0.25
    x = np.where(flip, 0.5 - x, x)  # cos(pi - a) = -cos a
    angle = _TWO_PI * x
    square = angle * angle
    total = np.ones_like(square)
    for i in range(24, 0, -2):
        total = 1.0 - total * square / (i * (i - 1))
    return np.where(flip, -total, total)


def sin_turns(x: Floats) -> Floats:
    """sin(2 pi x), x in turns."""
    return cos_turns(x - 0.25)

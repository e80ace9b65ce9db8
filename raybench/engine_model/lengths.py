"""How long an answer is, and other draws that belong to one request: a pure function of seed and request id.

The same request so gets the same answer from any replica, in any order, in real or in virtual time.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raybench.scenario.models import OutputLength


def _random(seed: int, purpose: str, request_id: str) -> random.Random:
    # Seeded by text, Python hashes it with SHA-512: the same in every process and on every platform.
    return random.Random(f"{seed}/{purpose}/{request_id}")


def draw_output_tokens(length: OutputLength, seed: int, request_id: str) -> int:
    """Tokens that the model would answer with if nothing stopped it; at least 1.

    fixed        mean
    exponential  -mean ln(1 - u)
    lognormal    exp(N(ln mean - sigma^2 / 2, sigma)), whose mean is mean
    uniform      1 + u (2 mean - 2), whose mean is mean
    """
    source = _random(seed, "output", request_id)
    match length.distribution:
        case "exponential":
            tokens = source.expovariate(1 / length.mean)
        case "lognormal":
            tokens = source.lognormvariate(math.log(length.mean) - length.sigma**2 / 2, length.sigma)
        case "uniform":
            tokens = source.uniform(1, max(1.0, 2 * length.mean - 1))
        case "fixed":
            tokens = length.mean
    return max(1, round(tokens))


def draw_share(seed: int, purpose: str, request_id: str) -> float:
    """A number from [0, 1) for one request and purpose: below a share p, the request is among that share."""
    return _random(seed, purpose, request_id).random()

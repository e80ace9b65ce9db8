"""A fixed number of replicas: what autoscaling is compared with, and what a measurement of capacity needs.

    target = replicas

Standard library only (see `base`).
"""

from __future__ import annotations

from math import inf

from raybench.policies.base import Decision, Observation
from raybench.policies.windows import Bounds


class Fixed:
    """Implements `base.Policy`. `replicas` is `max_replicas` unless said: provisioned for the peak.

    Raises ValueError for a number outside the bounds, or below 1.
    """

    name = "fixed"

    def __init__(self, replicas: int | None = None, min_replicas: int = 0, max_replicas: int = 2) -> None:
        bounds = Bounds(min_replicas, max_replicas)
        self.replicas = max_replicas if replicas is None else replicas
        if self.replicas < 1 or not bounds.hold(self.replicas):
            raise ValueError(
                f"replicas: {self.replicas}; it should lie between {max(1, min_replicas)} and {max_replicas}"
            )

    def decide(self, seen: Observation) -> Decision:
        """Always the same number; a target that somebody else changed is put right at once."""
        if seen.target == self.replicas:
            return Decision(self.replicas)
        return Decision(self.replicas, f"a fixed number of replicas, {self.replicas}")

    def next_decision_s(self, seen: Observation) -> float:
        """Never, unless the target is a different one."""
        return inf if seen.target == self.replicas else seen.now_s

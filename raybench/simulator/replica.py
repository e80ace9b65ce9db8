"""A simulated replica: its state, its slots and its engine."""

from __future__ import annotations

from raybench.schema import ReplicaState
from raybench.simulator.engine import NEVER, Engine, History


class Replica:
    __slots__ = ("engine", "history", "name", "number", "ongoing", "scheduled_ns", "state")

    def __init__(self, number: int, engine: Engine, history: History | None) -> None:
        """`number` counts from 0 in the order of starting; `history`: of the engine, where it is kept."""
        self.number, self.name = number, f"replica-{number + 1}"
        self.engine, self.history = engine, history
        self.ongoing = 0  # slots taken
        self.scheduled_ns = NEVER  # the engine's next event that is planned
        self.state = ReplicaState.STARTING

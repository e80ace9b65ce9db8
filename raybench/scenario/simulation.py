"""What only a simulation needs to be told: a gateway before the deployment, and the delays of Serve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import NonNegativeInt

from raybench.scenario.base import Mistake, Model
from raybench.scenario.units import PositiveSeconds, Seconds


class Gateway(Model):
    """What stands between the client and the deployment; by default nothing."""

    cut_off: PositiveSeconds | None = None  # answers 504 to a request so long after it was sent
    cut_keeps_slot: bool = False  # the engine goes on with a request that was cut
    refuse_when: Literal["unavailable"] | None = None  # answers 503 while no replica is available
    refuse_latency: Seconds = 0.35
    queue_limit: NonNegativeInt | None = None  # answers 503 to requests beyond so many waiting


class ServeDelays(Model):
    """The delays of Ray Serve. Where each default was measured: docs/simulator.md."""

    control_tick: PositiveSeconds = 0.1  # the policy is asked so often
    metrics_interval: PositiveSeconds = 0.5  # the load is pushed to the controller so often
    look_back: PositiveSeconds = 1.0  # and is a mean over so long
    start_delay: Seconds = 2.6  # from decision to able to serve, beyond the engine's own start-up
    stop_delay: Seconds = 0.5  # from the last answer, or the decision, to gone
    network: Seconds = 0.005  # client to replica, one way
    dispatch: Seconds = 0.023  # to give a freed slot to a request that waits, beyond the router's back-off

    def mistakes(self) -> Iterator[Mistake]:
        if self.metrics_interval < self.control_tick:
            yield Mistake(("metrics_interval",), f"should be at least control_tick, {self.control_tick:g}s")


class Simulation(Model):
    gateway: Gateway = Gateway()
    serve: ServeDelays = ServeDelays()

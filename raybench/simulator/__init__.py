"""The simulator: schedule, client, engine model and policy in virtual time, to the tables of a live run."""

from raybench.simulator.simulated import Simulated, simulate

__all__ = ["Simulated", "simulate"]

"""The typed, validated scenario: `load` reads a file, `Scenario` is what it says."""

from raybench.scenario.load import ScenarioError, load
from raybench.scenario.models import (
    Autoscaling,
    Bounds,
    Deployment,
    Emulated,
    Limit,
    Load,
    Objectives,
    Replica,
    Request,
    Scenario,
    Serving,
    Settle,
    Stage,
    Target,
)

__all__ = [
    "Autoscaling",
    "Bounds",
    "Deployment",
    "Emulated",
    "Limit",
    "Load",
    "Objectives",
    "Replica",
    "Request",
    "Scenario",
    "ScenarioError",
    "Serving",
    "Settle",
    "Stage",
    "Target",
    "load",
]

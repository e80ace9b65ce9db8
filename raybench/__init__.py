"""raybench: distributed load generator and autoscaling benchmark for LLM deployments on Ray."""

__version__ = "0.1.0"

"""The workload: prompts and lengths of the requests, and their bodies as bytes."""

from raybench.workload.files import DataFileError
from raybench.workload.workload import Plan, Workload

__all__ = ["DataFileError", "Plan", "Workload"]

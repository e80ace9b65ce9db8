"""The workload: prompts and lengths of the requests, and their bodies as bytes."""

from raybench.workload.files import DataFileError
from raybench.workload.sources import NONE, Plan
from raybench.workload.workload import Workload

__all__ = ["NONE", "DataFileError", "Plan", "Workload"]

"""Freed memory stays with a process that asked for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
from raybench.rundir import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
def churn():
    arrays = [np.ones(2**17) for _ in range(8)]  # a megabyte each
    del arrays
for _ in range(3):
    churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CODE, how], check=True, capture_output=True, text=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_megabytes_are_reused_without_page_faults() -> None:
    assert faults("keep") < 200

"""Another clock and another boot for the processes of one simulated node, for tests.

A node's environment names them (`Cluster.add_node(env_vars=environment(…))`), and `install`, run by Ray at
each worker's start, puts them in place before raybench is imported. Nodes without it keep the true clock.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

VARIABLE = "FAKE_CLOCK"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
_true_ns = time.monotonic_ns


class Clock:
    """fake − true is `offset_ns` at the true instant `at_ns` and grows by `drift_ppm` from there."""

    def __init__(self, boot: str, offset_ns: int, drift_ppm: float, at_ns: int, hides: str = "") -> None:
        self.boot, self.offset_ns, self.drift_ppm, self.at_ns = boot, offset_ns, drift_ppm, at_ns
        self.hides = hides  # a directory that this node does not see

    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(vars(self)), "PYTHONPATH": str(Path(__file__).parent)}

    def offset_at(self, true_ns: int) -> int:
        return self.offset_ns + round((true_ns - self.at_ns) * self.drift_ppm / 1e6)

    def now_ns(self) -> int:
        true_ns = _true_ns()
        return true_ns + self.offset_at(true_ns)

    def true_ns(self, fake_ns: int) -> int:
        elapsed_ns = (fake_ns - self.offset_ns - self.at_ns) / (1 + self.drift_ppm / 1e6)
        return self.at_ns + round(elapsed_ns)


def install() -> None:
    """In a worker of a node with another clock. The kernel's timers keep the true one: alarms are mapped."""
    if VARIABLE not in os.environ:
        return
    clock = Clock(**json.loads(os.environ[VARIABLE]))
    time.monotonic_ns = clock.now_ns
    read_text, exists = Path.read_text, Path.exists

    def read(path: Path, *arguments: Any, **more: Any) -> str:
        return clock.boot if str(path) == BOOT_ID else read_text(path, *arguments, **more)

    def sees(path: Path, **more: Any) -> bool:
        hidden = clock.hides and str(path).startswith(clock.hides)
        return not hidden and exists(path, **more)

    Path.read_text, Path.exists = read, sees  # type: ignore[method-assign]
    from raybench.generator.alarm import TimerAlarm

    set_alarm = TimerAlarm.set
    TimerAlarm.set = lambda self, at_ns: set_alarm(self, clock.true_ns(at_ns))  # type: ignore[method-assign]

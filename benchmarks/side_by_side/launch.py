"""Runs one command on one core and says what it and all its descendants cost.

    python launch.py CORE LIMIT_S REPORT COMMAND...

REPORT becomes a JSON object: `rc`, `wall_s` (start to exit of the command itself), `cpu_s` (user and
system time of every descendant) and `left_over` (descendants that outlived it and had to be ended).

A process of its own, so that waiting for any child means a child of the command. Orphans come to this
process rather than to init (a child subreaper, which only Linux has), so their time counts too.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 3.0  # that descendants have to end by themselves once the command is over


def children(pid: int) -> list[int]:
    """The living children of a process, also those of its threads."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in path.read_text().split()]
    return found


def tree(pid: int) -> list[int]:
    """All living descendants, parents before children."""
    found = []
    for child in children(pid):
        found += [child]
        try:
            found += tree(child)
        except OSError:  # gone meanwhile
            continue
    return found


def end_all() -> None:
    for pid in tree(os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def reap(until_s: float) -> bool:
    """Wait for every descendant, at most until this monotonic instant; whether all are gone."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            if time.monotonic() > until_s:
                return False
            time.sleep(0.02)


def main(core: int, limit_s: float, report: Path, command: list[str]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.sched_setaffinity(0, {core})  # inherited by everything started here
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of `except` below: nothing stays behind
    begin_s = time.monotonic()
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            rc = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            rc = 124
            end_all()
        except BaseException:
            end_all()
            raise
    wall_s = time.monotonic() - begin_s
    left_over = 0
    if not reap(time.monotonic() + GRACE_S):
        left_over = len(tree(os.getpid()))
        end_all()
        reap(time.monotonic() + GRACE_S)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {"rc": rc, "wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "left_over": left_over}
    report.write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])

"""The generator's parts alone: alarm, bodies, lateness buckets."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from slices import MS, schedule

from raybench.generator.alarm import LoopAlarm, TimerAlarm, alarm
from raybench.generator.bodies import AHEAD, FEW, LookAhead, Rendered, prepared
from raybench.generator.progress import Lateness

# --- the alarm --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TimerAlarm, LoopAlarm])
def test_an_alarm_rings_once_and_not_early(kind: type[TimerAlarm | LoopAlarm]) -> None:
    loop = uvloop.new_event_loop()
    rung: list[int] = []
    made = kind(loop, lambda: rung.append(time.monotonic_ns()))
    early, late = time.monotonic_ns() + 5 * MS, time.monotonic_ns() + 15 * MS
    made.set(early)
    made.set(late)  # the last word counts
    loop.call_later(0.06, loop.stop)
    loop.run_forever()
    made.close()
    loop.close()
    assert len(rung) == 1
    assert rung[0] >= late - (0 if kind is TimerAlarm else 2 * MS)  # the loop's timers round


def test_an_instant_gone_by_rings_at_once() -> None:
    loop = uvloop.new_event_loop()
    made = alarm(loop, loop.stop)
    for instant in (time.monotonic_ns() - 10**9, 1, 0, -5):
        made.set(instant)
        loop.call_later(5.0, pytest.fail)
        begun = time.monotonic()
        loop.run_forever()
        assert time.monotonic() - begun < 2
    made.close()
    loop.close()


# --- bodies -----------------------------------------------------------------------------------------


def render(prompt: int, limit: int | None) -> bytes:
    return f"{prompt}/{limit}".encode()


def test_few_bodies_are_rendered_once_each() -> None:
    calls = []

    def counted(prompt: int, limit: int | None) -> bytes:
        calls.append((prompt, limit))
        return render(prompt, limit)

    table = schedule([0] * 6, prompt_id=[0, 1, 0, 1, 0, 2], max_tokens=[None, 7, 0, 7, None, None])
    bodies = prepared(counted, table)
    assert isinstance(bodies, Rendered)
    assert sorted(calls, key=str) == sorted([(0, None), (0, 0), (1, 7), (2, None)], key=str)
    assert [bodies.take(row) for row in range(6)] == [b"0/None", b"1/7", b"0/0", b"1/7", b"0/None", b"2/None"]
    bodies.close()


def test_many_bodies_are_rendered_ahead_in_order_and_within_bounds() -> None:
    rows = FEW + 3 * AHEAD
    made = 0

    def counted(prompt: int, limit: int | None) -> bytes:
        nonlocal made
        made += 1
        return render(prompt, limit)

    bodies = prepared(counted, schedule([0] * rows, prompt_id=range(rows)))
    assert isinstance(bodies, LookAhead)
    for row in range(rows):
        assert bodies.take(row) == render(row, None)
        assert made <= row + 1 + AHEAD + 1
    bodies.close()
    assert made == rows


def test_a_look_ahead_can_be_closed_in_the_middle() -> None:
    before = threading.active_count()
    bodies = prepared(render, schedule([0] * 50_000, prompt_id=range(50_000)))
    bodies.take(0)
    bodies.close()
    assert threading.active_count() == before


def test_large_bodies_are_held_in_small_number() -> None:
    made = 0

    def large(prompt: int, limit: int | None) -> bytes:
        nonlocal made
        made += 1
        return bytes(2**20)

    bodies = prepared(large, schedule([0] * 3000, prompt_id=range(3000)))
    for row in range(100):
        bodies.take(row)
    time.sleep(0.02)
    assert made <= 100 + 66
    bodies.close()


# --- lateness ---------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 10**13), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_the_exact_one_rounded_up_by_six_percent_at_most(values: list[int], p: float) -> None:
    lateness = Lateness()
    for value in values:
        lateness.add(value)
    exact = int(np.sort(values)[int(np.ceil(p * len(values))) - 1])
    found = lateness.quantile(p)
    assert found is not None and exact <= found <= exact * 1.0626
    assert lateness.max_ns == max(values)


def test_lateness_by_interval() -> None:
    lateness = Lateness()
    assert (lateness.quantile(0.5), lateness.take_interval()) == (None, None)
    lateness.add(5)
    lateness.add(-3)  # clocks read twice may differ by a little
    assert (lateness.take_interval(), lateness.take_interval(), lateness.max_ns) == (5, None, 5)
    lateness.add(2)
    assert (lateness.take_interval(), lateness.max_ns) == (2, 5)
    lateness.add(2**62)
    assert lateness.quantile(1.0) == 2**62


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's table of files")
def test_the_table_of_files_has_room_for_sockets_before_the_load() -> None:
    """In a process of its own: a table never shrinks."""
    code = (
        "import resource\n"
        "from pathlib import Path\n"
        "from raybench.generator.drive import SOCKETS, make_room_for_sockets\n"
        "files = resource.RLIMIT_NOFILE\n"
        "resource.setrlimit(files, ({soft}, resource.getrlimit(files)[1]))\n"
        "size = lambda: int(Path('/proc/self/status').read_text().split('FDSize:')[1].split()[0])\n"
        "before, open_before = size(), len(list(Path('/proc/self/fd').iterdir()))\n"
        "make_room_for_sockets()\n"
        "assert before < {room} <= size(), (before, size())\n"
        "assert len(list(Path('/proc/self/fd').iterdir())) == open_before\n"
    )
    for soft, room in ((1024, 1024), (2**13, 2**13)):
        if resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= soft:
            subprocess.run([sys.executable, "-c", code.format(soft=soft, room=room)], check=True, timeout=60)

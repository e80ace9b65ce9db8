"""A sender against a clock of its own: what is done before an instant, and what at it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import slices

from raybench.generator import dispatch
from raybench.generator.dispatch import LEAD_MAX_NS, LEAD_MIN_NS, CappedSender, Launch, OpenSender, Rows

MS = 1_000_000


class World:
    """A clock that goes on by `look_ns` at each look, an alarm that rings `late_ns` after it should, and a
    launch that takes `prepare_ns` to make a row ready."""

    def __init__(self, late_ns: int, prepare_ns: int, look_ns: int = 50) -> None:
        self.now_ns = 0
        self.late_ns, self.prepare_ns, self.look_ns = late_ns, prepare_ns, look_ns
        self.set_ns: int | None = None
        self.prepared: list[int] = []
        self.written: list[int] = []
        self.client: Any = SimpleNamespace(due_ns=dispatch.NEVER, on_due=None, in_flight=0)

    def look(self) -> int:
        self.now_ns += self.look_ns
        return self.now_ns

    def alarm(self, loop: object, ring: Any) -> Any:
        self.ring = ring
        return SimpleNamespace(set=lambda at_ns: setattr(self, "set_ns", at_ns), close=lambda: None)

    def prepare(self, row: int, anchor_ns: int | None) -> Any:
        self.now_ns += self.prepare_ns
        self.prepared.append(self.now_ns)
        return row

    def write(self, row: int, prepared: Any) -> None:
        assert prepared == row == len(self.written)
        self.written.append(self.now_ns)

    def run(self, monkeypatch: pytest.MonkeyPatch, rows: int, gap_ns: int, cap: int | None = None) -> None:
        monkeypatch.setattr(dispatch, "monotonic_ns", self.look)
        monkeypatch.setattr(dispatch, "alarm", self.alarm)
        self.due_ns = [5 * MS + gap_ns * i for i in range(rows)]
        plan = Rows(slices.schedule(self.due_ns), 0, None)
        launch = Launch(self.prepare, self.write)
        loop: Any = None
        if cap is None:
            self.sender = OpenSender(loop, self.client, launch, plan)
        else:
            self.sender = CappedSender(loop, self.client, launch, plan, cap)
        self.sender.start()
        while len(self.written) < rows:
            assert self.set_ns is not None
            self.now_ns = max(self.now_ns, self.set_ns) + self.late_ns
            self.set_ns = None
            self.ring()

    def late(self) -> list[int]:
        return [written - due for written, due in zip(self.written, self.due_ns, strict=True)]


@pytest.mark.parametrize(("late_ns", "prepare_ns"), [(10_000, 5_000), (60_000, 40_000), (150_000, 60_000)])
def test_a_request_is_ready_before_its_instant_and_written_at_it(
    monkeypatch: pytest.MonkeyPatch, late_ns: int, prepare_ns: int
) -> None:
    world = World(late_ns, prepare_ns)
    world.run(monkeypatch, 600, 10 * MS)
    assert min(world.late()) >= 0
    settled = slice(300, None)  # the lead has found what wake-up and preparation take
    ready = [at < due for at, due in zip(world.prepared, world.due_ns, strict=True)][settled]
    assert sum(ready) >= 0.95 * len(ready)
    exact = [late for late, in_time in zip(world.late()[settled], ready, strict=True) if in_time]
    assert max(exact) <= 3 * world.look_ns


def test_the_lead_is_no_longer_than_it_has_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for late_ns, prepare_ns in ((0, 0), (20_000, 10_000), (400_000, 0)):
        world = World(late_ns, prepare_ns)
        world.run(monkeypatch, 400, 10 * MS)
        assert LEAD_MIN_NS <= world.sender._lead_ns <= LEAD_MAX_NS
        # Where it is up to one step too long: each step up lasts for fifty rows.
        needed_ns = late_ns + prepare_ns + 2_000
        assert world.sender._lead_ns <= max(needed_ns, LEAD_MIN_NS) + dispatch._LEAD_UP_NS


def test_a_high_rate_spins_for_an_eighth_of_its_gaps_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(late_ns=90_000, prepare_ns=10_000)
    world.run(monkeypatch, 200, 400_000)
    assert world.sender._spin_ns <= 50_000


def test_overdue_rows_go_at_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(late_ns=30 * MS, prepare_ns=1_000)
    world.run(monkeypatch, 100, MS)
    assert world.written == sorted(world.written)
    assert min(world.late()) >= 0


def test_a_capped_client_never_sends_before_the_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(late_ns=10_000, prepare_ns=2_000)
    world.run(monkeypatch, 100, 10 * MS, cap=5)
    assert min(world.late()) >= 0
    assert max(world.late()[20:]) <= 20_000

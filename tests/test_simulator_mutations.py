"""The checks are able to fail: each thing broken on purpose is found by the check that is there for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import simulator_checks as checks

from raybench.policies import Observation, QueueDepth
from raybench.schema import ReplicaState
from raybench.simulator.host import Host
from raybench.simulator.server import Server


class Stack(deque[int]):
    """A queue whose front is its back."""

    def popleft(self) -> int:
        return self.pop()

    def __getitem__(self, at: Any) -> Any:
        return super().__getitem__(-1 - at)


def last_come_first_served(patch: pytest.MonkeyPatch) -> None:
    made = Server.__init__

    def init(self: Server, *given: Any, **keys: Any) -> None:
        made(self, *given, **keys)
        self.queue = Stack()

    patch.setattr(Server, "__init__", init)


def half_a_window(patch: pytest.MonkeyPatch) -> None:
    over = QueueDepth._over

    def early(self: QueueDepth, since: float | None, seen: Observation) -> bool:
        return over(self, None if since is None else since - self.window_s / 2, seen)

    patch.setattr(QueueDepth, "_over", early)


def a_window_that_never_begins_anew(patch: pytest.MonkeyPatch) -> None:
    stretches = QueueDepth._stretches

    def forgetful(self: QueueDepth, before: Any, seen: Observation) -> Any:
        found = stretches(self, before, seen)
        return found if found.deep is not None else type(found)(before.deep, found.shallow, found.idle)

    patch.setattr(QueueDepth, "_stretches", forgetful)


def skipped_ticks_that_read_as_gaps(patch: pytest.MonkeyPatch) -> None:
    """The host forgets to say that nothing changed: every quiet second makes the policy forget its window."""
    decide = QueueDepth.decide

    def broken(self: QueueDepth, seen: Observation) -> Any:
        return decide(self, replace(seen, unbroken=False))

    patch.setattr(QueueDepth, "decide", broken)


def no_start_up(patch: pytest.MonkeyPatch) -> None:
    state = Host._state

    def at_once(self: Host, t_ns: int, replica: Any, new: ReplicaState) -> None:
        state(self, t_ns, replica, new)
        if new is ReplicaState.STARTING and t_ns >= 0:
            self._start_ns = 0

    patch.setattr(Host, "_state", at_once)


def crowd() -> None:
    checks.markovian(3, 0.7, slots=3, replicas=1)


def exponential_as_fixed() -> None:
    checks.general({"distribution": "exponential", "mean": checks.MEAN_TOKENS}, 1.0)


@pytest.mark.parametrize(
    ("mutation", "check"),
    [
        (last_come_first_served, checks.first_come_first_served),
        (last_come_first_served, crowd),
        (half_a_window, checks.window_and_start_up),
        (skipped_ticks_that_read_as_gaps, checks.a_quiet_window),
        (a_window_that_never_begins_anew, checks.a_dip_begins_the_window_anew),
        (no_start_up, checks.window_and_start_up),
        (None, exponential_as_fixed),
    ],
)
def test_a_broken_simulator_is_found(
    mutation: Callable[[pytest.MonkeyPatch], None] | None,
    check: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if mutation is not None:
        mutation(monkeypatch)
    with pytest.raises(AssertionError):
        check()

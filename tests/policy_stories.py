"""Stories in time for autoscaling policies: a load goes in tick by tick, changes of the target come out."""

from __future__ import annotations

from dataclasses import dataclass, field

from raybench.policies import Observation, Policy


@dataclass
class Story:
    """A host that does what the policy says. Replicas are available at once unless a stretch says otherwise.

    Ticks and times in these stories are multiples of 1/8 s, exact as floats.
    """

    policy: Policy
    target: int = 1
    now_s: float = 0.0
    tick_s: float = 0.125
    changes: list[tuple[float, int]] = field(default_factory=list)  # (when, target) of the last stretch
    reason: str = ""  # of the last change

    def tick(
        self, waiting: float = 0, serving: float = 0, available: int | None = None, starting: int = 0
    ) -> int:
        """One look at the present instant."""
        ready = self.target if available is None else available
        seen = Observation(self.now_s, waiting, serving, ready, starting, self.target)
        decision = self.policy.decide(seen)
        assert bool(decision.reason) == (decision.target != self.target), decision
        if decision.target != self.target:
            self.changes.append((self.now_s, decision.target))
            self.target, self.reason = decision.target, decision.reason
        return self.target

    def until(
        self,
        at_s: float,
        waiting: float = 0,
        serving: float = 0,
        available: int | None = None,
        starting: int = 0,
    ) -> list[tuple[float, int]]:
        """The same load from now up to, but without, `at_s`; what changed."""
        self.changes = []
        while self.now_s < at_s:
            self.tick(waiting, serving, available, starting)
            self.now_s += self.tick_s
        return self.changes


def play(
    policy: Policy,
    load: list[tuple[float, int]],
    target: int = 1,
    tick_s: float = 0.125,
    skip: bool = False,
    start_after_s: float = 0.0,
) -> list[tuple[float, int]]:
    """All changes of the target over stretches of (seconds, requests).

    `skip`: only when what is seen changes, and at the ticks that `next_decision_s` asks for, as a simulator
    would. `start_after_s`: how long a replica takes to be available.
    """
    changes: list[tuple[float, int]] = []
    births: list[float] = []  # when the replicas being started will be there
    available, last = target, None
    now_s = end_s = asked_s = 0.0
    for seconds, requests in load:
        end_s += seconds
        while now_s < end_s:
            while births and births[0] <= now_s:
                births.pop(0)
                available += 1
            shown = (requests, available, len(births), target)
            if not skip or shown != last or now_s >= asked_s:
                last = shown
                seen = Observation(now_s, requests, 0, available, len(births), target, unbroken=skip)
                wanted = policy.decide(seen).target
                asked_s = policy.next_decision_s(seen) if wanted == target else now_s
                assert asked_s >= now_s
                if wanted != target:
                    changes.append((now_s, wanted))
                births += [now_s + start_after_s] * max(0, wanted - target)
                stopped = max(0, target - wanted)
                available -= max(0, stopped - len(births))
                del births[max(0, len(births) - stopped) :]
                target = wanted
            now_s += tick_s
    return changes

"""A simulator that is a table: what every setting would do under every load, without a deployment."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raybench.scenario import Autoscaling
from raybench.tuning.found import Tuned
from raybench.tuning.search import ROUNDS, Rules, Search
from raybench.tuning.trial import Trial
from raybench.tuning.workers import Inline

LIMIT_S = 10.0


def settings(many: int) -> list[Autoscaling]:
    """So many settings that differ; which number one has stands in its window."""
    return [Autoscaling(autoscaling_window=float(i + 1)) for i in range(many)]


def number(setting: Autoscaling) -> int:
    return round(setting.autoscaling_window) - 1


def made(cost: float, latency_s: float, goodput: float = 1.0) -> Trial:
    missed = latency_s > LIMIT_S
    return Trial(
        replica_seconds=cost,
        goodput_per_s=goodput,
        against=goodput,
        values=(latency_s,),
        missed=(missed,),
        valid=True,
        excess=max(0.0, latency_s / LIMIT_S - 1),
    )


@dataclass(frozen=True)
class Table:
    """The same under every load."""

    trials: tuple[Trial, ...]

    def __call__(self, setting: Autoscaling, repeat: int) -> Trial:
        return self.trials[number(setting)]


@dataclass(frozen=True)
class Noisy:
    """Setting i costs costs[i] and answers in latencies[i], times what the load does to all and a little of
    its own. It misses with the probability miss[i].
    """

    costs: tuple[float, ...]
    miss: tuple[float, ...]
    goodput: tuple[float, ...]
    seed: int = 0

    def __call__(self, setting: Autoscaling, repeat: int) -> Trial:
        i = number(setting)
        load = random.Random(f"{self.seed}/{repeat}")
        own = random.Random(f"{self.seed}/{repeat}/{i}")
        common, level = load.uniform(0.8, 1.2), load.random()
        return made(
            self.costs[i] * common * own.uniform(0.98, 1.02),
            LIMIT_S * 2 if level < self.miss[i] else LIMIT_S / 2 * common,
            self.goodput[i] * common * own.uniform(0.98, 1.02),
        )


def search(
    many: int, simulated: Callable[[Autoscaling, int], Trial], rules: Rules | None = None, **more: object
) -> Tuned:
    return Search(settings(many), simulated, Inline(), rules, **more).run()  # type: ignore[arg-type]


def pareto(points: Sequence[tuple[float, float]]) -> set[int]:
    """By the definition, each against all."""
    return {
        i for i, a in enumerate(points) if not any(b[0] <= a[0] and b[1] <= a[1] and b != a for b in points)
    }


def first_runs(simulated: Callable[[Autoscaling, int], Trial], i: int, runs: int) -> list[Trial]:
    assert runs <= ROUNDS[-1]
    return [simulated(settings(i + 1)[i], repeat) for repeat in range(runs)]

"""The thin executor over Ray: the same results, the same exceptions, nothing left running."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import wait

import pytest
import tuning
from ray import cloudpickle
from tuning import Noisy, settings

from raybench.fleet.ray_executor import RayExecutor
from raybench.tuning.search import Rules, Search
from raybench.tuning.workers import Inline


@pytest.fixture(autouse=True)
def by_value() -> Iterator[None]:
    """Workers do not have the tests' own modules."""
    modules = [tuning, sys.modules[__name__]]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        cloudpickle.unregister_pickle_by_value(module)


def fail(text: str) -> None:
    raise KeyError(text)


def test_a_search_on_ray_finds_what_it_finds_here(ray_cluster: str) -> None:
    simulated = Noisy((100.0, 90.0, 80.0), (0.0, 0.0, 0.5), (1.0, 1.0, 1.0))
    rules = Rules(runs=40)
    here = Search(settings(3), simulated, Inline(), rules).run()
    with RayExecutor() as executor:
        assert Search(settings(3), simulated, executor, rules).run() == here
    assert here.chosen == 1


def test_exceptions_arrive_and_what_is_cancelled_does_not_go_on(ray_cluster: str) -> None:
    executor = RayExecutor()
    with pytest.raises(KeyError, match="why"):
        executor.submit(fail, "why").result(timeout=60)
    started = time.monotonic()
    asleep = [executor.submit(time.sleep, 300) for _ in range(20)]
    executor.shutdown(cancel_futures=True)
    assert not wait(asleep, timeout=60).not_done and time.monotonic() - started < 120
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(fail, "again")

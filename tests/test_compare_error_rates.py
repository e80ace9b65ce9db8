"""The error rates of docs/comparing-runs.md, on fewer and shorter runs with fixed seeds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from raybench.analysis import bootstrap
from raybench.analysis.compare import Figure, Settings, compare_runs
from raybench.analysis.compared import Kind, kinds

PAIRS, REQUESTS, UTILISATION = 60, 3000, 0.7
WHAT = [k for k in kinds(closed=False) if k.name in ("e2e_p50", "e2e_mean")]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "compare_error_rates.py"
    spec = importlib.util.spec_from_file_location("compare_error_rates", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def alarms(benchmark: ModuleType) -> dict[tuple[str, bool], int]:
    """False alarms by figure and pairing."""
    found = {}
    for paired in (True, False):
        figures = unchanged(benchmark, PAIRS, paired, WHAT)
        for kind in WHAT:
            hits = [benchmark.significant(f) for fs in figures for f in fs if f.name == kind.name]
            found[kind.name, paired] = sum(hits)
    return found


def unchanged(benchmark: ModuleType, pairs: int, paired: bool, what: list[Kind]) -> list[tuple[Figure, ...]]:
    found: list[tuple[Figure, ...]] = benchmark.figures_of(
        3, pairs, UTILISATION, REQUESTS, paired=paired, stretch=1.0, what=what, resamples=200
    )
    return found


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("name", ["e2e_p50", "e2e_mean"])
def test_false_alarms_stay_at_the_stated_rate(
    alarms: dict[tuple[str, bool], int], paired: bool, name: str
) -> None:
    """Of 60 pairs 5% are 3; more than 8 would happen once in 200 times."""
    assert stats.binom.sf(alarms[name, paired] - 1, PAIRS, 0.05) > 0.005


def test_row_by_row_the_false_alarms_would_be_many(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: without blocks, latencies that remember one another look certain."""
    monkeypatch.setattr(bootstrap, "choose_block", lambda series: 1)
    monkeypatch.setattr(bootstrap, "ATOMS", REQUESTS)
    pairs = 20
    figures = unchanged(benchmark, pairs, False, [k for k in WHAT if k.name == "e2e_mean"])
    hits = sum(benchmark.significant(f) for fs in figures for f in fs if f.name == "e2e_mean")
    assert stats.binom.sf(hits - 1, pairs, 0.05) < 1e-6


def test_a_shift_is_found(benchmark: ModuleType) -> None:
    found = benchmark.figures_of(4, 30, 0.5, 6000, paired=True, stretch=1.05, what=WHAT, resamples=200)
    hits = sum(
        f.name == "e2e_p50" and benchmark.significant(f) and f.difference > 0 for fs in found for f in fs
    )
    assert stats.binom.cdf(hits, 25, 0.8) > 0.005


def test_the_queue_is_lindleys(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(1)
    gaps, service = rng.exponential(1, 200), rng.exponential(0.8, 200)
    wait = [0.7]
    for i in range(199):
        wait.append(max(0.0, wait[-1] + service[i] - gaps[i + 1]))
    assert benchmark.waiting(gaps, service, 0.7) == pytest.approx(wait)
    one, two = benchmark.pair(rng, 0.5, 300, paired=True)
    assert one.schedule == two.schedule and (one.rows.start == two.rows.start).all()
    figures = compare_runs([one], [one], WHAT, Settings(resamples=100))
    assert all(f.difference == 0 for f in figures)

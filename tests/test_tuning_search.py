"""The search by itself, against brute force and against simulators whose best setting is known."""

from __future__ import annotations

import statistics
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuning import LIMIT_S, Noisy, Table, first_runs, made, pareto, search, settings

from raybench.scenario import Autoscaling
from raybench.schema import Exit
from raybench.tuning.found import OWN, Fate, Tuned
from raybench.tuning.frontier import dominates, frontier, layers
from raybench.tuning.search import ROUNDS, Rules, Search, TuneError
from raybench.tuning.trial import Trial
from raybench.tuning.workers import Inline

FEW = st.integers(0, 12).map(float)  # few values, so that there are ties
TRIALS = st.lists(st.tuples(FEW, st.integers(1, 20).map(float), FEW), min_size=1, max_size=60)


def table(rows: list[tuple[float, float, float]]) -> Table:
    return Table(tuple(made(*row) for row in rows))


# --- where nothing is random ------------------------------------------------------------------------------


@given(TRIALS)
def test_it_finds_what_brute_force_finds(rows: list[tuple[float, float, float]]) -> None:
    """Cost, latency and goodput have nothing to do with each other here: no order helps a search."""
    found = search(len(rows), table(rows))
    good = [(cost, -goodput, i) for i, (cost, latency, goodput) in enumerate(rows) if latency <= LIMIT_S]
    assert found.chosen == (min(good)[2] if good else None)
    assert found.exit_code == (Exit.GOOD if good else Exit.OBJECTIVES_MISSED)


@given(st.integers(1, 40), st.integers(0, 45), st.integers(0, 3))
def test_it_finds_the_threshold_of_a_monotone_problem(many: int, enough: int, flat: int) -> None:
    """Cost rises and latency falls with the number of the setting: the first that is fast enough is best."""
    rows = [(float(i // (flat + 1)), 20.0 if i < enough else 5.0, float(i)) for i in range(many)]
    found = search(many, table(rows))
    if enough >= many:
        assert found.chosen is None
    else:
        assert found.chosen is not None and rows[found.chosen][0] == min(r[0] for r in rows[enough:])


@given(TRIALS)
def test_the_frontier_is_paretos_and_everything_else_names_what_beats_it(
    rows: list[tuple[float, float, float]],
) -> None:
    found = search(len(rows), table(rows))
    points = [(cost, -goodput) for cost, _, goodput in rows]
    standings = found.standings
    on_it = {i for i, s in enumerate(standings) if s.fate is Fate.FRONTIER}
    assert on_it == set(found.frontier)
    assert [rows[i][0] for i in found.frontier] == sorted(rows[i][0] for i in found.frontier)
    same = {i for i, s in enumerate(standings) if s.fate is Fate.SAME}
    for i in same:
        by = standings[i].by
        assert by is not None and rows[by] == rows[i] and by not in same
    assert on_it | {i for i in same if standings[i].by in on_it} == pareto(points)
    for s, at in zip(standings, points, strict=True):
        if s.fate is Fate.DOMINATED:
            assert s.by in on_it and dominates(points[s.by], at)


def test_nothing_random_takes_one_run_of_each_and_says_so() -> None:
    found = search(30, table([(float(i), 5.0, 1.0) for i in range(30)]))
    assert not found.random and found.simulated == 30 + ROUNDS[0] - 1 and found.confirmations == ()
    assert found.saving is not None and found.saving.half is None


@given(st.lists(st.floats(10.01, 100), min_size=1, max_size=30))
def test_where_none_is_good_enough_the_nearest_is_named(latencies: list[float]) -> None:
    found = search(len(latencies), table([(1.0, latency, 1.0) for latency in latencies]))
    assert found.chosen is None and found.nearest is not None
    assert latencies[found.nearest] == pytest.approx(min(latencies))


# --- frontiers --------------------------------------------------------------------------------------------

POINTS = st.lists(st.tuples(FEW, FEW | st.just(float("inf"))), max_size=40)


@given(POINTS)
def test_the_frontier_is_the_brute_force_one(points: list[tuple[float, float]]) -> None:
    assert set(frontier(dict(enumerate(points)))) == pareto(points)


@given(POINTS, st.integers(0, 50))
def test_layers_leave_out_only_what_the_frontier_dominates(
    points: list[tuple[float, float]], wanted: int
) -> None:
    kept = layers(dict(enumerate(points)), wanted)
    assert len(kept) == len(set(kept)) >= min(wanted, len(points))
    best = pareto(points)
    for i in set(range(len(points))) - set(kept):
        assert not kept or any(dominates(points[b], points[i]) for b in best)


# --- where loads differ -------------------------------------------------------------------------------------


def noisy(seed: int, many: int = 120) -> Noisy:
    """Costs rise with the number; what is cheap misses often, what is dear never, with a jump at 40."""
    costs = tuple(100.0 + 3 * i for i in range(many))
    miss = tuple(0.6 if i < 30 else 0.25 if i < 40 else 0.005 for i in range(many))
    return Noisy(costs, miss, tuple(1 + (i % 7) / 5 for i in range(many)), seed)


@pytest.mark.parametrize("seed", range(6))
def test_among_noise_it_chooses_a_good_setting_near_the_best(seed: int) -> None:
    found = search(120, noisy(seed))
    assert found.random and found.chosen is not None and 40 <= found.chosen <= 43
    passed = next(c for c in found.confirmations if c.passed)
    assert (
        passed.setting == found.chosen and passed.runs == 100 and passed.runs - passed.met <= passed.allowed
    )
    everything = 120 * (ROUNDS[-1] + passed.runs)
    assert found.simulated < everything / 6


@pytest.mark.parametrize("seed", range(3))
def test_among_noise_every_claim_holds_over_the_runs_that_both_have(seed: int) -> None:
    simulated = noisy(seed)
    found = search(120, simulated)

    def at(i: int, runs: int) -> tuple[float, float]:
        trials = first_runs(simulated, i, runs)
        cost = statistics.fmean(t.replica_seconds for t in trials)
        return cost, -statistics.fmean(t.goodput_per_s for t in trials)

    fates = [s.fate for s in found.standings]
    assert fates.count(Fate.DOMINATED) + fates.count(Fate.FRONTIER) == 120
    for i, s in enumerate(found.standings):
        assert s.replica_seconds == pytest.approx(at(i, s.runs)[0])
        if s.fate is Fate.DOMINATED:
            assert s.by is not None and found.standings[s.by].runs >= s.runs
            mine, theirs = at(i, s.runs), at(s.by, s.runs)
            assert theirs[0] <= mine[0] + 1e-9 and theirs[1] <= mine[1] + 1e-9
    rest = [at(i, ROUNDS[-1]) for i in found.frontier]
    assert pareto(rest) == set(range(len(rest)))


def test_a_lucky_setting_is_not_confirmed_by_the_runs_that_made_it_lucky() -> None:
    """One misses under none of the loads of the search and under half of all others."""

    def lucky(setting: Autoscaling, repeat: int) -> Trial:
        i = round(setting.autoscaling_window) - 1
        if i == 1:
            return made(50 + repeat % 5, 20.0 if repeat >= ROUNDS[-1] and repeat % 2 else 5.0)
        return made(100.0 + i + repeat % 7, 5.0)

    found = search(20, lucky)
    first, second = found.confirmations
    assert first.setting == 1 and first.passed is False and first.runs < 100
    assert second.setting == OWN == found.chosen and second.error == first.error / 2


def test_what_never_passes_ends_when_the_error_is_spent() -> None:
    """Each misses one in 27 in the search, and one in five afterwards: all are candidates, none passes."""

    def so_so(setting: Autoscaling, repeat: int) -> Trial:
        i = round(setting.autoscaling_window) - 1
        missed = repeat == 9 if repeat < ROUNDS[-1] else repeat % 5 == 0
        return made(100.0 + i + repeat % 3, 20.0 if missed else 5.0)

    found = search(40, so_so)
    rules = Rules()
    assert found.chosen is None and found.exit_code == Exit.OBJECTIVES_MISSED
    assert rules.allowed(len(found.confirmations)) is None
    assert sum(c.error for c in found.confirmations) < 0.05
    assert found.nearest == 0  # all are as near; this one is the cheapest


def test_the_saving_is_paired_by_load() -> None:
    simulated = noisy(1)
    costs = (300.0, *simulated.costs[1:])  # the own setting is dear
    found = search(120, Noisy(costs, (0.0, *simulated.miss[1:]), simulated.goodput, 1))
    assert found.saving is not None and found.chosen not in (None, OWN)
    assert found.saving.runs == 100 and found.saving.half is not None
    true = 1 - costs[found.chosen or 0] / 300
    assert found.saving.share == pytest.approx(true, abs=0.01)
    assert 0 < found.saving.half < found.saving.replica_seconds / 10


# --- executors, interruptions, failures -------------------------------------------------------------------


class Late(Executor):
    """Hands results out in another order than work came in."""

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers)

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        import time

        def later():  # type: ignore[no-untyped-def]
            time.sleep((hash(args[1]) % 3) / 5000)
            return fn(*args, **kwargs)

        return self._pool.submit(later)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_result_does_not_depend_on_the_executor(workers: int) -> None:
    simulated = noisy(2, 40)
    expected = Search(settings(40), simulated, Inline()).run()
    assert Search(settings(40), simulated, Late(workers)).run() == expected


def stopped_after(runs: int) -> tuple[Tuned, int]:
    """What is found when Ctrl-C comes with that run."""
    count = 0
    simulated = noisy(3, 40)

    def interrupted(setting: Autoscaling, repeat: int) -> Trial:
        nonlocal count
        count += 1
        if count > runs:
            raise KeyboardInterrupt
        return simulated(setting, repeat)

    tuning = Search(settings(40), interrupted, Inline())
    with pytest.raises(KeyboardInterrupt):
        tuning.run()
    return tuning.found(), count


@pytest.mark.parametrize("runs", [0, 1, 2, 3, 10, 60, 121, 150, 300, 400, 520])
def test_an_interrupted_search_says_what_it_knows(runs: int) -> None:
    found, _ = stopped_after(runs)
    assert found.interrupted and found.exit_code == Exit.INCOMPLETE and found.simulated == runs
    tried = [s for s in found.standings if s.runs]
    assert len(tried) == sum(s.fate is not Fate.UNTRIED for s in found.standings)
    assert bool(tried) == (runs > 0) == bool(found.frontier)
    assert found.chosen is None or any(c.passed for c in found.confirmations)


def test_what_cannot_be_simulated_stops_the_search_and_says_which() -> None:
    def broken(setting: Autoscaling, repeat: int) -> Trial:
        if round(setting.autoscaling_window) == 5:
            raise ZeroDivisionError("by nothing")
        return made(1.0, 5.0)

    with pytest.raises(TuneError, match="setting #4, repeat 0: ZeroDivisionError: by nothing"):
        search(9, broken)


def test_a_worker_that_dies_is_an_error_and_no_result() -> None:
    class Dead(Executor):
        def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
            future: Future[Trial] = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with pytest.raises(TuneError, match="CancelledError"):
        Search(settings(3), noisy(0, 3), Dead()).run()


def test_an_executor_that_takes_no_more_work_is_an_error() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(TuneError, match="own setting: RuntimeError: cannot schedule"):
        Search(settings(3), noisy(0, 3), pool).run()


def test_progress_counts_to_its_end_in_every_part() -> None:
    seen: list[tuple[str, int, int]] = []
    search(40, noisy(0, 60), progress=lambda *now: seen.append(now))
    whats = list(dict.fromkeys(what for what, _, _ in seen))
    assert whats[0] == "the scenario's own setting" and whats[1].startswith("round 1: 40 settings")
    for what in whats:
        done, of = [(d, n) for w, d, n in seen if w == what][-1]
        assert done == of

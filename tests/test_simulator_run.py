"""Whole simulated runs: what holds in every one of them, and that leaps leave no trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import simulations
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench import schedule as scheduling
from raybench.analysis import Question, summarise
from raybench.analysis.comparable import differences
from raybench.report import render
from raybench.scenario import ScenarioError
from raybench.schema import TABLES, Events, Requests, RunStatus, Timeline
from raybench.simulator import simulate

LIVELY: dict[str, dict[str, Any]] = {
    "queue_depth": {"autoscaling_window": 3.0, "scale_up_queue_depth": 3.0, "scale_down_queue_depth": 1.0},
    "target_ongoing": {
        "policy_options": {
            "target_ongoing_requests": 1.5,
            "upscale_delay": "2s",
            "downscale_delay": "4s",
            "look_back_period": "3s",
        }
    },
    "hpa": {
        "policy_options": {
            "target_average_value": 2.0,
            "sync_period": "3s",
            "scale_down_stabilization": "9s",
            "polling_interval": "2s",
            "cooldown_period": "7s",
        }
    },
    "knative": {
        "policy_options": {
            "target_concurrency": 3.0,
            "stable_window": "10s",
            "tick_interval": "1s",
            "scale_to_zero_grace_period": "5s",
        }
    },
    "fixed": {"policy_options": {"replicas": 3}},
}

arrivals = st.one_of(
    st.builds(lambda r: {"process": "poisson", "rate": r}, st.floats(0.2, 12)),
    st.builds(
        lambda size, every: {"process": "bursts", "size": size, "every": every},
        st.integers(1, 20),
        st.floats(3, 20),
    ),
    st.builds(lambda i: {"process": "constant", "interval": i}, st.floats(0.2, 5)),
)
stages = st.lists(st.tuples(st.floats(5, 25), arrivals), min_size=1, max_size=3)
awkward = st.fixed_dictionaries(
    {},
    optional={
        "gateway": st.fixed_dictionaries(
            {},
            optional={
                "cut_off": st.floats(1, 10),
                "cut_keeps_slot": st.booleans(),
                "refuse_when": st.just("unavailable"),
                "queue_limit": st.integers(0, 5),
            },
        ),
        "emulated": st.fixed_dictionaries(
            {"output_tokens": st.just({"distribution": "exponential", "mean": 60})},
            optional={
                "kv_cache_tokens": st.just(400),
                "faults": st.just(
                    {"error_500": 0.1, "cut_stream": 0.1, "error_event": 0.1, "never_answer": 0.1,
                     "refuse_429": 0.1}
                ),
            },
        ),
        "request": st.fixed_dictionaries(
            {"timeout": st.floats(2, 30)}, optional={"stream": st.booleans(), "max_tokens": st.just(50)}
        ),
        "load": st.fixed_dictionaries({}, optional={"max_in_flight": st.integers(1, 10)}),
        "deployment": st.fixed_dictionaries(
            {}, optional={"max_queued_requests": st.integers(0, 5), "drain": st.floats(0, 3)}
        ),
        "serve": st.fixed_dictionaries({}, optional={"network": st.just(0.02), "start_delay": st.just(1.0)}),
    },
)  # fmt: skip


def stage_list(drawn: list[tuple[float, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [{"duration": duration, "arrival": arrival} for duration, arrival in drawn]


@settings(max_examples=25, deadline=None)
@given(drawn=stages, keys=awkward, least=st.integers(0, 2), seed=st.integers(0, 1000))
def test_every_request_is_accounted_for_and_time_goes_forward(
    drawn: list[tuple[float, dict[str, Any]]], keys: dict[str, Any], least: int, seed: int
) -> None:
    autoscaling = {"min_replicas": least, "max_replicas": 3, **LIVELY["queue_depth"]}
    run = simulations.run(stages=stage_list(drawn), autoscaling=autoscaling, slots=3, seed=seed, **keys)
    summary = summarise(run, Question())
    assert summary.accounting.balances
    assert run.manifest.status is RunStatus.COMPLETE


@pytest.mark.parametrize("policy", LIVELY)
@settings(max_examples=12, deadline=None)
@given(drawn=stages, least=st.integers(0, 1), seed=st.integers(0, 1000))
def test_skipped_ticks_decide_the_same(
    policy: str, drawn: list[tuple[float, dict[str, Any]]], least: int, seed: int
) -> None:
    keys: dict[str, Any] = {
        "stages": stage_list(drawn),
        "autoscaling": {"min_replicas": least, "max_replicas": 4, "policy": policy, **LIVELY[policy]},
        "slots": 2,
        "seed": seed,
    }
    leaping, stepping = (simulations.run(**keys, tick_all=each) for each in (False, True))
    assert simulations.events(leaping) == simulations.events(stepping)
    for name in (Requests.done_ns, Requests.headers_ns):
        assert np.array_equal(
            simulations.column(leaping, name), simulations.column(stepping, name), equal_nan=True
        )


@settings(max_examples=25, deadline=None)
@given(drawn=stages, slots=st.integers(1, 6), seed=st.integers(0, 1000))
def test_littles_law_holds_in_every_run(
    drawn: list[tuple[float, dict[str, Any]]], slots: int, seed: int
) -> None:
    """L = lambda W over the whole run, L from the timeline and W from the requests. Pushes that are as long
    as the mean they tell tile the run, so that the timeline's samples, one a second, add up to the area.
    """
    run = simulations.run(
        stages=stage_list(drawn),
        slots=slots,
        autoscaling={"min_replicas": 2, "max_replicas": 2},
        serve={"metrics_interval": 1.0, "look_back": 1.0},
        load={"settle": {"at_most": 20.0}},
        seed=seed,
    )
    waited = simulations.waits_s(run).sum()
    served = (simulations.column(run, Requests.done_ns) - simulations.column(run, Requests.headers_ns)).sum()
    timeline = (
        simulations.column(run, Timeline.waiting, Timeline),
        simulations.column(run, Timeline.serving, Timeline),
    )
    # The first sample comes before the first push, whose mean is of a part of a second.
    loads = [figures.sum() for figures in timeline]
    assert loads[0] == pytest.approx(waited, abs=1e-6 + 1.0 * simulations.rows(run, Timeline)[1]["waiting"])
    assert loads[1] == pytest.approx(served / 1e9, abs=1e-6 + simulations.rows(run, Timeline)[1]["serving"])


def test_the_same_seed_gives_the_same_tables_and_a_repeat_another() -> None:
    keys: dict[str, Any] = {
        "arrival": {"process": "poisson", "rate": 3.0},
        "emulated": {"output_tokens": {"distribution": "lognormal", "mean": 60}},
        "autoscaling": {"max_replicas": 3, "autoscaling_window": 5.0},
    }
    made = simulations.scenario(**keys)
    one, same, other = simulate(made), simulate(made), simulate(made, repeat=1)
    for table in TABLES:
        assert simulations.table(one, table).equals(simulations.table(same, table))
    assert one.manifest.schedule_sha256 == scheduling.digest(scheduling.build(made))
    assert other.manifest.schedule_sha256 != one.manifest.schedule_sha256
    assert other.manifest.measured["repeat"] == 1
    tokens = [simulations.column(run, Requests.output_tokens).mean() for run in (one, other)]
    assert tokens[0] != tokens[1]
    again = simulate(made.model_copy(update={"seed": other.manifest.scenario["seed"]}))
    assert simulations.table(again, Requests).equals(simulations.table(other, Requests))


def test_the_report_is_one_of_a_simulation() -> None:
    run = simulations.run()
    text = render(summarise(run, Question()))
    assert "SIMULATED" in text and "VALID" in text and "calibrate" not in text
    assert run.manifest.measured["engine_model"]["source"]


def test_a_comparison_with_a_live_run_says_which_is_simulated() -> None:
    made = simulations.run().manifest
    live = replace(made, measured={})
    assert [d.key for d in differences([made], [live])] == ["simulated"]


def test_batches_have_the_columns_that_are_asked_for_in_their_order() -> None:
    run = simulations.run()
    for table in TABLES:
        names = list(table.columns)[::-1][:3]
        for batch in run.batches(table, names):
            batch.validate(full=True)
            assert batch.schema.names == names
            for name in names:
                assert batch.schema.field(name).type == table.schema.field(name).type
        whole = simulations.table(run, table)
        assert whole.schema.equals(table.schema)
        for name, column in table.columns.items():
            assert column.null or whole[name].null_count == 0, name


def test_chunks_come_at_the_engines_pace() -> None:
    run = simulations.run(
        arrival={"process": "constant", "interval": 10.0},
        emulated={"step_base": 0.02, "output_tokens": {"mean": 10}},
    )
    stamps = simulations.rows(run)[0][Requests.chunk_ns]
    assert len(stamps) == 10
    assert np.allclose(np.diff(stamps), 0.02e9, atol=2)


def test_a_run_without_recorded_chunks_says_the_rest_all_the_same() -> None:
    kept = simulations.run(arrival={"process": "poisson", "rate": 3.0})
    left_out = simulations.run(arrival={"process": "poisson", "rate": 3.0}, load={"record_chunks": False})
    names = [name for name in Requests.columns if name != Requests.chunk_ns]
    assert (
        simulations.table(kept, Requests)
        .select(names)
        .equals(simulations.table(left_out, Requests).select(names))
    )
    assert simulations.table(left_out, Requests)[Requests.chunk_ns].null_count == left_out.manifest.planned


def test_a_long_run_is_sampled_less_often() -> None:
    run = simulations.run(
        arrival={"process": "constant", "interval": 3600.0},
        duration=50 * 3600.0,
        load={"record_chunks": False},
    )
    assert simulations.table(run, Timeline).num_rows < 100_000
    assert np.diff(simulations.column(run, Timeline.t_ns, Timeline)).min() == 2e9


def test_progress_goes_from_nothing_to_everything() -> None:
    told: list[float] = []
    simulate(simulations.scenario(), progress=told.append)
    assert told == sorted(told) and told[0] == 0.0 and told[-1] == 1.0


def test_a_target_cannot_be_simulated() -> None:
    made = simulations.scenario()
    from raybench.scenario import Target

    target = made.model_copy(
        update={"deployment": None, "target": Target(url="http://127.0.0.1:1", model="m")}
    )
    with pytest.raises(ScenarioError, match=r"^target: only a deployment can be simulated"):
        simulate(target)


def test_vllm_is_simulated_with_the_emulated_figures_and_says_so() -> None:
    run = simulations.run(deployment={"engine": "vllm"})
    assert "emulated.preset demo" in run.manifest.measured["simulated_with"]
    assert "emulated.preset demo" in render(summarise(run, Question()))


def test_events_are_in_order_of_time() -> None:
    run = simulations.run(autoscaling={"min_replicas": 2, "max_replicas": 2})
    times = simulations.column(run, Events.t_ns, Events)
    assert np.all(np.diff(times) >= 0)
    kinds = [kind for _, kind, _, _ in simulations.events(run)]
    assert kinds[0] == "run_started" and kinds[-1] == "run_ended"
    assert isinstance(simulations.table(run, Events), pa.Table)

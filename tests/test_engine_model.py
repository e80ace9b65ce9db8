"""The engine model: its arithmetic, continuous batching as sums that must add up, and what is drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.engine_model import PRESETS, Batch, EngineModel, draw_output_tokens, draw_share, from_scenario
from raybench.scenario.models import Emulated, OutputLength


def model(**given_: Any) -> EngineModel:
    figures: dict[str, Any] = {
        "startup_s": 0.0,
        "prefill_tokens_per_s": 1000.0,
        "step_base_s": 0.01,
        "step_per_sequence_s": 0.001,
        "slots": 4,
        "kv_cache_tokens": 10_000,
        "context_tokens": 1_000,
    }
    return EngineModel(**(figures | given_))


def run(batch: Batch[Any]) -> tuple[float, dict[Any, list[float]]]:
    """Steps until nothing is left: the end, and the instants of each sequence's tokens."""
    now, tokens = 0.0, {}
    while (step := batch.step()) is not None:
        now += step.duration_s
        for sequence in step.emitted:
            tokens.setdefault(sequence, []).append(now)
    return now, tokens


# --- a step ------------------------------------------------------------------------------------------


def test_a_lone_request_takes_its_prefill_and_a_step_a_token() -> None:
    batch: Batch[str] = Batch(model())
    batch.submit("a", prompt_tokens=100, output_tokens=7)
    end, tokens = run(batch)
    assert end == pytest.approx(100 / 1000 + 7 * 0.01)
    assert tokens["a"][0] == pytest.approx(0.1 + 0.01)
    assert len(tokens["a"]) == 7


def test_two_together_share_their_steps() -> None:
    batch: Batch[str] = Batch(model())
    batch.submit("a", 100, 5)
    batch.submit("b", 100, 3)
    end, tokens = run(batch)
    # one prefill of 200 tokens, three steps of two, two steps of one
    assert end == pytest.approx(0.2 + 3 * 0.011 + 2 * 0.01)
    assert tokens["b"] == pytest.approx([0.211, 0.222, 0.233])


def test_a_newcomers_prefill_delays_everybody() -> None:
    batch: Batch[str] = Batch(model())
    batch.submit("a", 10, 10)
    assert batch.step() is not None
    batch.submit("b", 500, 2)
    step = batch.step()
    assert step is not None
    assert step.duration_s == pytest.approx(0.5 + 0.011)
    assert (step.prefill_tokens, step.emitted) == (500, ("a", "b"))


def test_reading_the_cache_costs_time() -> None:
    engine = model(step_per_kv_token_s=1e-5)
    assert engine.step_s(1, 0, 500) == pytest.approx(0.015)
    batch: Batch[str] = Batch(engine)
    batch.submit("a", 100, 2)
    end, _ = run(batch)
    assert end == pytest.approx(0.1 + 0.01 + 100e-5 + 0.01 + 101e-5)


def test_an_aborted_sequence_frees_its_slot_and_emits_nothing_more() -> None:
    batch: Batch[str] = Batch(model(slots=1))
    batch.submit("a", 10, 10)
    batch.submit("b", 10, 10)
    batch.submit("c", 10, 1)
    assert batch.begin() is not None
    assert batch.abort("a")  # in the middle of a step
    assert batch.abort("b")  # while waiting
    assert not batch.abort("b")
    assert batch.finish().emitted == ()
    assert batch.kv_tokens == 0
    step = batch.step()
    assert step is not None and step.finished == ("c",)


def test_an_idle_batch_has_no_step() -> None:
    assert Batch(model()).step() is None


@pytest.mark.parametrize(
    "prompt, output, told",
    [(0, 1, "1 or more"), (1, 0, "1 or more"), (600, 401, "exceed the context of 1000")],
)
def test_what_cannot_be_served_is_refused(prompt: int, output: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Batch(model()).submit("a", prompt, output)


def test_a_sequence_is_there_once() -> None:
    batch: Batch[str] = Batch(model())
    batch.submit("a", 1, 1)
    with pytest.raises(ValueError, match="there already"):
        batch.submit("a", 1, 1)


def test_a_full_cache_sends_the_youngest_back_to_pay_again() -> None:
    batch: Batch[str] = Batch(model(kv_cache_tokens=100, context_tokens=100))
    batch.submit("old", 40, 30)
    batch.submit("young", 40, 30)
    prefills = []
    while (step := batch.step()) is not None:
        prefills.append(step.prefill_tokens)
        assert batch.kv_usage <= 1
    assert batch.preemptions == 1
    # both enter with 40; the young one is put back with 10 tokens said, when 2 x 51 no longer fit
    assert [p for p in prefills if p] == [80, 50]


# --- whatever the load ---------------------------------------------------------------------------------

requests = st.lists(
    st.tuples(st.integers(1, 60), st.integers(1, 40), st.integers(0, 30)), min_size=1, max_size=25
)
engines = st.builds(
    model,
    slots=st.integers(1, 6),
    kv_cache_tokens=st.integers(100, 400),
    context_tokens=st.just(100),
    step_per_kv_token_s=st.sampled_from([0.0, 1e-5]),
)


@given(engines, requests, st.sets(st.integers(0, 24)), st.integers(0, 60))
@settings(max_examples=150)
def test_every_sequence_gets_its_tokens_and_nothing_is_exceeded(
    engine: EngineModel, load: list[tuple[int, int, int]], dropped: set[int], drop_at: int
) -> None:
    """Arrivals at given steps, some given up at a given step: tokens, slots, cache and order add up."""
    batch: Batch[int] = Batch(engine)
    emitted = dict.fromkeys(range(len(load)), 0)
    first: list[int] = []
    step_number = 0
    while True:
        for number, (prompt, output, arrival) in enumerate(load):
            if arrival == step_number:
                batch.submit(number, prompt, output)
        if step_number == drop_at:
            for number in dropped:
                batch.abort(number)
        duration = batch.begin()
        assert batch.running <= engine.slots
        if duration is None:
            assert batch.waiting == 0
        else:
            assert duration > 0
            step = batch.finish()
            assert batch.kv_tokens <= engine.kv_cache_tokens
            for number in step.emitted:
                if emitted[number] == 0:
                    first.append(number)
                emitted[number] += 1
            assert set(step.finished) == {n for n in step.emitted if emitted[n] == load[n][1]}
        step_number += 1
        if step_number > 30 and step_number > drop_at and duration is None:
            break
    assert (batch.waiting, batch.running, batch.kv_tokens) == (0, 0, 0)
    for number, (_, output, _) in enumerate(load):
        assert emitted[number] <= output
        if number not in dropped:
            assert emitted[number] == output
    # first come, first served: first tokens in the order of arrival, ties by order of submission
    arrivals = [(load[number][2], number) for number in first]
    assert arrivals == sorted(arrivals)


@given(requests, st.integers(1, 6))
def test_without_cache_pressure_time_is_prefill_plus_the_steps_of_each_batch(
    load: list[tuple[int, int, int]], slots: int
) -> None:
    """All at once, an independent count: each step serves the first `slots` that are not done."""
    engine = model(slots=slots, kv_cache_tokens=100_000, context_tokens=100)
    batch: Batch[int] = Batch(engine)
    for number, (prompt, output, _) in enumerate(load):
        batch.submit(number, prompt, output)
    end, tokens = run(batch)
    left, expected = [output for _, output, _ in load], 0.0
    while any(left):
        served = [n for n, tokens_left in enumerate(left) if tokens_left][:slots]
        expected += 0.01 + 0.001 * (len(served) - 1)
        for n in served:
            left[n] -= 1
    assert end == pytest.approx(expected + sum(prompt for prompt, _, _ in load) / 1000)
    assert {n: len(instants) for n, instants in tokens.items()} == {n: r[1] for n, r in enumerate(load)}


# --- figures -------------------------------------------------------------------------------------------


def test_the_a100_preset_answers_at_the_published_speed() -> None:
    engine = PRESETS["llama3-8b-a100"]
    batch: Batch[str] = Batch(engine)
    batch.submit("a", 8, 4096)
    _, tokens = run(batch)
    rate = (len(tokens["a"]) - 1) / (tokens["a"][-1] - tokens["a"][0])
    assert 63 <= rate <= 66  # tokens/s, as published for every profile
    assert 1 / engine.step_s(1, 0, 0) == pytest.approx(65)


def test_the_a100_presets_arithmetic_is_what_its_source_says() -> None:
    engine = PRESETS["llama3-8b-a100"]
    flop, bandwidth, parameters, kv_bytes = 312e12, 1.555e12, 8.03e9, 128 * 1024
    efficiency = (2 * parameters / bandwidth) / engine.step_base_s  # share of the bandwidth at 65 tokens/s
    assert efficiency == pytest.approx(2 / 3, abs=0.01)
    assert engine.step_per_kv_token_s == pytest.approx(kv_bytes / (bandwidth * efficiency), rel=0.02)
    assert engine.prefill_tokens_per_s == pytest.approx(flop / 2 / (2 * parameters), rel=0.02)
    assert engine.step_per_sequence_s == pytest.approx(2 * parameters / (flop / 2), rel=0.02)
    assert engine.kv_cache_tokens == pytest.approx(18.4e9 / kv_bytes, rel=0.02)


def test_the_tiny_preset_is_what_was_measured() -> None:
    engine = PRESETS["tiny-llama-cpu"]
    for streams, measured in ((1, 270), (64, 5200), (128, 6500)):
        assert streams / engine.step_s(streams, 0, 0) == pytest.approx(measured, rel=0.08)
    assert 64 / engine.prefill_tokens_per_s + engine.step_base_s == pytest.approx(0.017, rel=0.1)


def test_every_preset_states_its_source() -> None:
    assert all(engine.source for engine in PRESETS.values())


def test_a_scenario_overrides_the_preset_and_says_so() -> None:
    emulated = Emulated(preset="demo", startup=0.25, kv_cache_tokens=1000)
    engine = from_scenario(emulated, slots=3)
    assert (engine.startup_s, engine.slots, engine.kv_cache_tokens, engine.context_tokens) == (
        0.25,
        3,
        1000,
        1000,
    )
    assert engine.step_base_s == PRESETS["demo"].step_base_s
    assert "startup_s, kv_cache_tokens" in engine.source


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no preset 'h100'.*demo"):
        from_scenario(Emulated(preset="h100"), 1)


@pytest.mark.parametrize(
    "wrong", [{"slots": 0}, {"step_base_s": 0.0}, {"startup_s": -1.0}, {"context_tokens": 20_000}]
)
def test_impossible_figures_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        model(**wrong)


# --- draws ----------------------------------------------------------------------------------------------


def test_a_draw_belongs_to_seed_and_request_alone() -> None:
    length = OutputLength(distribution="lognormal", mean=100, sigma=0.7)
    # golden: the same request gets the same answer from every replica and on every platform
    assert [draw_output_tokens(length, 1, f"r{i}") for i in range(4)] == GOLDEN
    assert draw_output_tokens(length, 2, "r0") != GOLDEN[0]


GOLDEN = [47, 36, 21, 27]


@pytest.mark.parametrize(
    "distribution, variance", [("exponential", 1.0), ("lognormal", None), ("uniform", 1 / 3)]
)
def test_output_lengths_have_the_mean_and_spread_asked_for(distribution: Any, variance: float | None) -> None:
    length = OutputLength(distribution=distribution, mean=200, sigma=0.5)
    drawn = np.array([draw_output_tokens(length, 7, f"r{i}") for i in range(20_000)])
    relative = math.exp(0.5**2) - 1 if variance is None else variance
    assert drawn.mean() == pytest.approx(200, rel=0.02)
    assert drawn.var() / 200**2 == pytest.approx(relative, rel=0.06)
    assert drawn.min() >= 1


def test_fixed_is_fixed() -> None:
    assert draw_output_tokens(OutputLength(mean=96), 1, "x") == 96


def test_shares_are_uniform() -> None:
    drawn = [draw_share(3, "fault", f"r{i}") for i in range(10_000)]
    assert all(0 <= share < 1 for share in drawn)
    assert np.mean(np.array(drawn) < 0.2) == pytest.approx(0.2, abs=0.02)

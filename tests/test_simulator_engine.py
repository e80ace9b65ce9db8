"""The simulator's engine leaps over steps; here it is held against the engine model taking every one."""

from __future__ import annotations

from array import array
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raybench.engine_model import PRESETS, Batch, EngineModel
from raybench.simulator.engine import NEVER, NS, Engine, History

ROOMY = replace(PRESETS["llama3-8b-a100"], slots=4)
TIGHT = EngineModel(
    startup_s=0,
    prefill_tokens_per_s=3_000,
    step_base_s=0.011,
    step_per_sequence_s=0.0007,
    step_per_kv_token_s=3e-6,
    slots=5,
    kv_cache_tokens=160,
    context_tokens=120,
)
CLOSE_NS = 2_000  # whole nanoseconds a stretch of steps against sums of floats

Sequence = tuple[int, int, int, int | None]  # arrives, prompt, output, aborted (instants in ns)


def stepped(model: EngineModel, sequences: list[Sequence]) -> tuple[dict[int, list[float]], int]:
    """Each sequence's token instants, ns, and how often one was preempted: by `Batch`, every step."""
    batch: Batch[int] = Batch(model)
    happens = sorted(
        [(at, "submit", i) for i, (at, *_) in enumerate(sequences)]
        + [(gone, "abort", i) for i, (*_, gone) in enumerate(sequences) if gone is not None]
    )
    tokens: dict[int, list[float]] = {i: [] for i in range(len(sequences))}
    t = 0.0

    def until(end: float) -> None:
        while happens and happens[0][0] <= end:
            _, what, i = happens.pop(0)
            if what == "submit":
                batch.submit(i, sequences[i][1], sequences[i][2])
            else:
                batch.abort(i)

    while True:
        until(t)
        duration = batch.begin()
        if duration is None:
            if not happens:
                return tokens, batch.preemptions
            t = max(t, happens[0][0])
            continue
        t += duration * NS
        until(t)
        for i in batch.finish().emitted:
            tokens[i].append(t)


def leaping(model: EngineModel, sequences: list[Sequence]) -> tuple[dict[int, list[int]], int]:
    """The same by `Engine`."""
    prompt = [p for _, p, _, _ in sequences]
    output = [o for _, _, o, _ in sequences]
    first = array("q", [-1]) * len(sequences)
    history = History()
    engine = Engine(model, prompt, output, first, history)
    happens = sorted(
        [(at, "submit", i) for i, (at, *_) in enumerate(sequences)]
        + [(gone, "abort", i) for i, (*_, gone) in enumerate(sequences) if gone is not None]
    )
    counts, last, done = dict(enumerate(output)), {}, set()

    def until(t: int) -> None:
        while engine.due_ns <= t and engine.due_ns != NEVER:
            at = engine.due_ns
            for i in engine.boundary():
                last[i] = engine.step
                done.add(i)
            assert engine.due_ns > at

    for t, what, i in happens:
        until(t)
        if what == "submit":
            engine.submit(i, t)
        elif i not in done:
            last[i] = engine.last_step(i)
            counts[i] = engine.tokens(i, t)
            engine.abort(i, t)
    until(NEVER - 1)
    assert engine.running == engine.waiting == 0
    found = {}
    for i in range(len(sequences)):
        ends = history.ends_ns(history.steps(i, output[i], last[i]))[: counts[i]].tolist()
        found[i] = ends
        if ends:
            assert first[i] == pytest.approx(ends[0], abs=1)
    return found, engine.preemptions


def assert_the_same(model: EngineModel, sequences: list[Sequence]) -> int:
    expected, preempted = stepped(model, sequences)
    found, also = leaping(model, sequences)
    assert {i: len(at) for i, at in found.items()} == {i: len(at) for i, at in expected.items()}
    for i, at in expected.items():
        assert np.allclose(found[i], at, rtol=0, atol=CLOSE_NS), i
    assert also == preempted
    return preempted


# Odd instants, so that nothing happens at the very end of a step: there, either order is right.
instants = st.integers(0, 3 * NS).map(lambda t: 2 * t + 1)


@st.composite
def several(draw: st.DrawFn) -> list[Sequence]:
    found: list[Sequence] = []
    for _ in range(draw(st.integers(1, 25))):
        at = draw(instants)
        prompt, output = draw(st.integers(1, 60)), draw(st.integers(1, 60))
        gone = draw(st.one_of(st.none(), st.integers(1, NS).map(lambda t: 2 * t)))
        found.append((at, prompt, output, None if gone is None else at + gone))
    return found


@settings(max_examples=150, deadline=None)
@given(sequences=several(), model=st.sampled_from([ROOMY, TIGHT]))
def test_every_token_comes_when_the_engine_model_says(sequences: list[Sequence], model: EngineModel) -> None:
    assert_the_same(model, sequences)


def test_a_full_cache_preempts_as_often_as_in_the_engine_model() -> None:
    crowd: list[Sequence] = [(1 + 1000 * i, 20, 60, None) for i in range(12)]
    assert assert_the_same(TIGHT, crowd) > 3


def test_aborts_in_the_queue_let_the_next_in() -> None:
    # 0 fills the cache but for 20 tokens; 1 does not fit, 2 would.
    sequences: list[Sequence] = [(1, 60, 60, None), (2_001, 95, 5, 100_000_000), (3_001, 10, 5, None)]
    assert_the_same(TIGHT, sequences)


def test_a_lone_request_takes_its_prefill_and_its_steps() -> None:
    model = replace(ROOMY, step_per_kv_token_s=0.0)
    found, _ = leaping(model, [(1, 970, 65, None)])
    assert found[0][0] == pytest.approx(1 + (970 / 9_700 + 1 / 65) * NS, abs=2)
    assert found[0][-1] == pytest.approx(1 + (0.1 + 1) * NS, abs=2)


def test_usage_of_the_cache_grows_by_a_token_a_step() -> None:
    model = replace(ROOMY, step_base_s=0.01, step_per_kv_token_s=0.0, prefill_tokens_per_s=1e9)
    first = array("q", [-1])
    engine = Engine(model, [1000], [100], first)
    engine.submit(0, 0)
    for step in range(5):
        usage = engine.kv_usage(step * 10_000_000 + 5_000_000)
        assert usage * model.kv_cache_tokens == pytest.approx(1000 + step)

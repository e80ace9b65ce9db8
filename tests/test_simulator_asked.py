"""What requests ask: the emulated engine's distributions and limits, drawn all at once."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import simulations
from scipy import stats

from raybench import schedule as scheduling
from raybench.engine_model import draw_output_tokens
from raybench.scenario.deployment import OutputLength
from raybench.scenario.models import Scenario
from raybench.schema import Schedule
from raybench.serving import openai
from raybench.simulator.asked import Asked, Fate, asked, engine_of, output_tokens, seed_of, text_tokens

N = 20_000
LENGTHS = [
    OutputLength(distribution="exponential", mean=128),
    OutputLength(distribution="lognormal", mean=200, sigma=0.7),
    OutputLength(distribution="uniform", mean=50),
    OutputLength(distribution="fixed", mean=33.4),
]


def of(**keys: Any) -> tuple[Scenario, Asked]:
    made = simulations.scenario(**keys)
    assert made.deployment is not None
    return made, asked(made, scheduling.build(made), engine_of(made.deployment))


@pytest.mark.parametrize("length", LENGTHS, ids=lambda length: length.distribution)
def test_lengths_are_distributed_as_the_emulated_engines(length: OutputLength) -> None:
    ours = output_tokens(length, 1, N)
    theirs = [draw_output_tokens(length, 1, str(i)) for i in range(4000)]
    assert ours.min() >= 1
    # Two samples of whole numbers: the test is on the safe side where values are equal.
    assert stats.ks_2samp(ours, theirs).pvalue > 0.001
    assert ours.mean() == pytest.approx(length.mean, abs=4 * ours.std() / np.sqrt(N) + 0.5)


def test_lengths_are_the_same_for_the_same_seed_and_a_longer_list_begins_with_the_shorter() -> None:
    ours = output_tokens(LENGTHS[1], 1, 1000)
    assert np.array_equal(ours, output_tokens(LENGTHS[1], 1, 2000)[:1000])
    assert not np.array_equal(ours, output_tokens(LENGTHS[1], 2, 1000))


def test_repeats_have_seeds_of_their_own() -> None:
    seeds = {seed_of(7, repeat) for repeat in range(1000)}
    assert len(seeds) == 1000 and seed_of(7, 0) == 7
    assert seed_of(7, 1) != seed_of(8, 1)


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("system", [None, "You are brief."])
def test_text_is_counted_as_the_emulated_engine_counts_it(api: str, system: str | None) -> None:
    request = {"prompt": "Why is the sky so very blue?"} | (
        {"system": system} if system and api == "chat" else {}
    )
    _, found = of(request=request, load={"api": api})
    made = simulations.scenario(request=request, load={"api": api})
    from raybench.workload import Workload

    body = Workload(made).body(0, None)
    ask = openai.read("chat" if api == "chat" else "completions", body, "m", 4096, {})
    assert found.prompt[0] == ask.prompt_tokens == text_tokens(body)


def test_planned_lengths_count_as_they_are_planned() -> None:
    made, found = of(
        request={"prompt": None, "input_tokens": {"distribution": "uniform", "min": 5, "max": 90}}
    )
    assert list(found.prompt) == scheduling.build(made)[Schedule.prompt_tokens].to_pylist()


def test_max_tokens_ends_answers_and_says_so() -> None:
    _, found = of(
        duration=500.0,
        emulated={"output_tokens": {"distribution": "exponential", "mean": 60}},
        request={"max_tokens": 50},
    )
    _, free = of(duration=500.0, emulated={"output_tokens": {"distribution": "exponential", "mean": 60}})
    assert list(found.output) == [min(n, 50) for n in free.output]
    assert found.limited.tolist() == [n > 50 for n in free.output]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"request": {"extra": {"ignore_eos": True}, "max_tokens": 70}}, 70),
        ({"request": {"extra": {"min_tokens": 55}}}, 55),
        ({"request": {"extra": {"max_completion_tokens": 7}, "max_tokens": 70}}, 7),
        ({"deployment": {"sampling": {"max_tokens": 9}}}, 9),
        ({"request": {"max_tokens": 12}, "deployment": {"sampling": {"max_tokens": 9}}}, 12),
    ],
)
def test_limits_are_read_where_the_engine_reads_them(keys: dict[str, Any], expected: int) -> None:
    _, found = of(**keys)
    assert set(found.output) == {expected}


def test_the_context_is_a_limit_too() -> None:
    _, found = of(emulated={"output_tokens": {"distribution": "fixed", "mean": 100_000}})
    assert found.output[0] == 4096 - found.prompt[0]
    assert found.fate is None
    _, refused = of(request={"max_tokens": 5000})
    assert refused.fate is not None and set(refused.fate) == {Fate.TOO_LONG}


def test_a_body_of_ones_own_is_counted_whole() -> None:
    body = json.dumps({"inputs": "x" * 100}).encode()
    assert text_tokens(body) == -(-len(body) // 4)

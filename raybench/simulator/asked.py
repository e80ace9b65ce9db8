"""What each request asks of the engine: prompt and answer in tokens, and the failure it meets on demand.

The same distributions as the emulated engine's, drawn for all requests at once: a request's number is its
place in the plan, since a live run's request ids are new in every run.
"""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from enum import IntEnum
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raybench.engine_model import EngineModel
from raybench.scenario.deployment import Deployment, Faults, OutputLength
from raybench.scenario.models import Scenario
from raybench.schema import Schedule
from raybench.workload import Workload
from raybench.workload.draws import Draws, exp

Ints = npt.NDArray[np.int64]

# Streams of `workload.draws`, apart from those of the schedule.
OUTPUT, FAULT, PHASE, ROUTER, REPEAT = range(100, 105)

CHARACTERS_PER_TOKEN, TOKENS_PER_MESSAGE = 4, 4
"""How the emulated engine counts a prompt that is text; see `serving.openai`."""

UNLIMITED = 2**31 - 1


class Fate(IntEnum):
    """What a request meets at its replica. The failures in the order of `Faults`."""

    ANSWER = 0
    ERROR_500 = 1
    CUT_STREAM = 2
    ERROR_EVENT = 3
    NEVER_ANSWER = 4
    REFUSE_429 = 5
    TOO_LONG = 6  # prompt and limit do not fit the context


AT_ONCE = {
    Fate.ERROR_500: (500, "failed on demand (emulated.faults.error_500)"),
    Fate.REFUSE_429: (429, "refused on demand (emulated.faults.refuse_429)"),
    Fate.TOO_LONG: (400, "prompt and max_tokens exceed the context"),
}
"""Those that the replica answers at once: status and reason."""


@dataclass(frozen=True)
class Asked:
    """One entry a request, in planned order. Tokens; `output` is what the engine will have to make of it."""

    prompt: array[int]
    output: array[int]
    limited: npt.NDArray[np.bool_]  # whether max_tokens ended the answer
    fate: bytes | None  # codes of `Fate`; None where all are answers


def seed_of(seed: int, repeat: int) -> int:
    """The seed of a repeat: the scenario's own for repeat 0, else drawn from both, 63 bits."""
    if repeat == 0:
        return seed
    return int(Draws(seed, REPEAT, repeat).raw(1)[0]) >> 1


def asked(scenario: Scenario, plan: pa.Table, model: EngineModel) -> Asked:
    """What the rows of the plan ask. Raises DataFileError where a data file cannot be used any more."""
    deployment, request = scenario.deployment, scenario.load.request
    assert deployment is not None
    n = plan.num_rows
    prompt = np.minimum(_prompt_tokens(scenario, plan), 2**40)
    said: dict[str, Any] = {**deployment.sampling, **request.extra}
    stated = plan[Schedule.max_tokens].fill_null(said.get("max_tokens") or UNLIMITED).to_numpy()
    if said.get("max_completion_tokens"):
        stated = np.full(n, said["max_completion_tokens"])
    room = model.context_tokens - prompt
    too_long = (room < 1) | ((stated != UNLIMITED) & (stated > room))
    limit = np.maximum(np.minimum(stated, room), 1)
    drawn = output_tokens(deployment.emulated.output_tokens, scenario.seed, n)
    if said.get("ignore_eos"):
        drawn = np.full(n, UNLIMITED, np.int64)
    wanted = np.minimum(np.maximum(drawn, int(said.get("min_tokens") or 0)), limit)
    fates = _fates(deployment.emulated.faults, scenario.seed, n)
    if too_long.any():
        fates = np.zeros(n, np.int8) if fates is None else fates
        fates[(fates == Fate.ANSWER) & too_long] = Fate.TOO_LONG
    if fates is not None:
        if request.stream:  # broken off with the first token of its second half
            broken = (fates == Fate.CUT_STREAM) | (fates == Fate.ERROR_EVENT)
            wanted = np.where(broken, wanted // 2 + 1, wanted)
        fates = fates if fates.any() else None
    return Asked(
        _array(np.where(too_long, 1, prompt)),
        _array(wanted),
        drawn > limit,
        None if fates is None else fates.astype(np.uint8).tobytes(),
    )


def output_tokens(length: OutputLength, seed: int, n: int) -> Ints:
    """Tokens that the model would answer with if nothing stopped it, at least 1: the distributions of
    `engine_model.draw_output_tokens`.
    """
    draws = Draws(seed, OUTPUT)
    match length.distribution:
        case "exponential":
            tokens = length.mean * draws.exponential(n)
        case "lognormal":
            mu = log(length.mean) - length.sigma**2 / 2
            tokens = exp(np.minimum(mu + length.sigma * draws.normal(n), 700.0))
        case "uniform":
            tokens = 1 + (max(1.0, 2 * length.mean - 1) - 1) * draws.uniform(n)
        case "fixed":
            tokens = np.full(n, length.mean)
    return np.clip(np.rint(tokens), 1, UNLIMITED).astype(np.int64)


def _fates(faults: Faults, seed: int, n: int) -> npt.NDArray[np.int8] | None:
    """Each fault's share of a uniform draw, in the order of the scenario's keys; None without any."""
    shares = [float(getattr(faults, name)) for name in Faults.model_fields]
    if not any(shares):
        return None
    bounds = np.cumsum(shares)
    found = np.searchsorted(bounds, Draws(seed, FAULT).uniform(n), side="right") + 1
    return np.where(found > len(shares), Fate.ANSWER, found).astype(np.int8)


def _prompt_tokens(scenario: Scenario, plan: pa.Table) -> Ints:
    """As planned; where the text decides, as the emulated engine counts it."""
    planned = plan[Schedule.prompt_tokens]
    tokens: Ints = planned.fill_null(0).to_numpy().astype(np.int64)
    unknown = planned.is_null().to_numpy()
    if unknown.any():
        work = Workload(scenario)
        ids, where = np.unique(plan[Schedule.prompt_id].to_numpy()[unknown], return_inverse=True)
        counted = np.array([text_tokens(work.body(int(i), None)) for i in ids], np.int64)
        tokens[unknown] = counted[where]
    return np.maximum(tokens, 1)


def text_tokens(body: bytes) -> int:
    """The tokens of a request body's prompt: four characters each, and four for each message of a chat. A
    body that is neither is counted whole.
    """
    said = json.loads(body)
    if isinstance(said, dict) and isinstance(said.get("messages"), list):
        return sum(TOKENS_PER_MESSAGE + _text(message.get("content")) for message in said["messages"])
    if isinstance(said, dict) and isinstance(said.get("prompt"), str):
        return _text(said["prompt"])
    return -(-len(body) // CHARACTERS_PER_TOKEN)


def _text(content: Any) -> int:
    parts = content if isinstance(content, list) else [{"text": content or ""}]
    return sum(-(-len(str(part.get("text") or "")) // CHARACTERS_PER_TOKEN) for part in parts)


def _array(values: Ints) -> array[int]:
    return array("q", np.ascontiguousarray(values, np.int64).tobytes())


def engine_of(deployment: Deployment) -> EngineModel:
    """The engine model that stands for the deployment's engine: of `emulated`, for `engine: vllm` too."""
    from raybench.engine_model import from_scenario

    return from_scenario(deployment.emulated, deployment.slots_per_replica)

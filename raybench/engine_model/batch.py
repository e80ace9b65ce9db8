"""Continuous batching: who is in the batch, step by step.

A step begins with admission and ends with one token for every sequence in the batch:

    admit    from the front of the queue while a slot is free and the prompt fits into the cache
    preempt  the youngest sequences while the cache cannot take one more token of everybody; they go back
             to the front of the queue and pay for prompt and tokens so far when they come back (recompute)
    run      for `EngineModel.step_s` seconds
    emit     one token each; a sequence with its last token leaves

The two halves are `begin` (whose result is the duration) and `finish`; in between, in real time, sequences
may arrive or be aborted. `step` is both at once, for virtual time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from raybench.engine_model.model import EngineModel

Id = TypeVar("Id", bound=Hashable)


@dataclass(slots=True)
class _Sequence:
    prompt_tokens: int
    output_tokens: int  # to be emitted in all
    emitted: int = 0

    @property
    def kv_tokens(self) -> int:
        return self.prompt_tokens + self.emitted


@dataclass(frozen=True, slots=True)
class Step(Generic[Id]):
    """What one step did. `emitted` is in the order of admission and includes `finished`."""

    duration_s: float
    prefill_tokens: int
    emitted: tuple[Id, ...]
    finished: tuple[Id, ...]


class Batch(Generic[Id]):
    """The sequences of one engine. Identifiers are the caller's, unique among those present."""

    def __init__(self, model: EngineModel) -> None:
        self.model = model
        self.preemptions = 0  # since the start
        self._waiting: OrderedDict[Id, _Sequence] = OrderedDict()
        self._running: OrderedDict[Id, _Sequence] = OrderedDict()  # oldest first
        self._kv_tokens = 0
        self._stepping: tuple[float, int] | None = None  # duration and prefill of the step that runs
        self._in_step: list[Id] = []

    @property
    def waiting(self) -> int:
        """Sequences that wait for a slot or for room in the cache."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def kv_tokens(self) -> int:
        """Tokens in the cache: prompts and what was emitted, of all running sequences."""
        return self._kv_tokens

    @property
    def kv_usage(self) -> float:
        """The share of the cache in use, from 0 to 1."""
        return self._kv_tokens / self.model.kv_cache_tokens

    def submit(self, sequence: Id, prompt_tokens: int, output_tokens: int) -> None:
        """Puts a sequence at the end of the queue.

        Raises ValueError if it is there already, empty, or longer than the context.
        """
        if sequence in self._waiting or sequence in self._running:
            raise ValueError(f"sequence {sequence!r} is there already")
        if prompt_tokens < 1 or output_tokens < 1:
            raise ValueError(f"{prompt_tokens} prompt and {output_tokens} output tokens: both are 1 or more")
        if prompt_tokens + output_tokens > self.model.context_tokens:
            raise ValueError(
                f"{prompt_tokens} prompt and {output_tokens} output tokens exceed the context of "
                f"{self.model.context_tokens}"
            )
        self._waiting[sequence] = _Sequence(prompt_tokens, output_tokens)

    def abort(self, sequence: Id) -> bool:
        """Takes a sequence out at once, in a step or not; whether it was there."""
        if self._waiting.pop(sequence, None) is not None:
            return True
        gone = self._running.pop(sequence, None)
        if gone is not None:
            self._kv_tokens -= gone.kv_tokens
        return gone is not None

    def begin(self) -> float | None:
        """Admits, preempts and starts a step; its duration in seconds, None when there is nothing to do."""
        assert self._stepping is None, "the last step was not finished"
        self._make_room()
        prefill = self._admit()
        if not self._running:
            return None
        duration = self.model.step_s(len(self._running), prefill, self._kv_tokens)
        self._stepping = (duration, prefill)
        self._in_step = list(self._running)
        return duration

    def finish(self) -> Step[Id]:
        """Ends the step: a token for every sequence that is still there."""
        assert self._stepping is not None, "no step was begun"
        (duration, prefill), self._stepping = self._stepping, None
        emitted, finished = [], []
        for sequence in self._in_step:
            state = self._running.get(sequence)
            if state is None:  # aborted meanwhile
                continue
            state.emitted += 1
            self._kv_tokens += 1
            emitted.append(sequence)
            if state.emitted == state.output_tokens:
                finished.append(sequence)
                del self._running[sequence]
                self._kv_tokens -= state.kv_tokens
        return Step(duration, prefill, tuple(emitted), tuple(finished))

    def step(self) -> Step[Id] | None:
        """A whole step in virtual time; None when there is nothing to do."""
        return None if self.begin() is None else self.finish()

    def _make_room(self) -> None:
        # The oldest always stays: its context fits into the cache, so somebody always gets on.
        while len(self._running) > 1 and self._kv_tokens + len(self._running) > self.model.kv_cache_tokens:
            sequence, state = self._running.popitem()
            self._kv_tokens -= state.kv_tokens
            self._waiting[sequence] = state
            self._waiting.move_to_end(sequence, last=False)
            self.preemptions += 1

    def _admit(self) -> int:
        """Lets sequences in, strictly in their order; the tokens to prefill."""
        prefill = 0
        while self._waiting and len(self._running) < self.model.slots:
            sequence, state = next(iter(self._waiting.items()))
            needed = self._kv_tokens + state.kv_tokens + len(self._running) + 1
            if needed > self.model.kv_cache_tokens:
                break
            del self._waiting[sequence]
            self._running[sequence] = state
            self._kv_tokens += state.kv_tokens
            prefill += state.kv_tokens
        return prefill

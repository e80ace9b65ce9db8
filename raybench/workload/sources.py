"""Where prompts come from. A source is an endless sequence of arrivals, each one request or a conversation.

    One        the same prompt for everybody
    FromFile   the rows of a data file, over and over
    Synthetic  random words of drawn lengths
    Turns      conversations whose turns are taken from one of the above
    Spoken     conversations of a data file
    Traced     the lengths of a recorded trace

`plan(n)` gives the schedule's columns for the first n arrivals, `messages(prompt_id)` what one request says.
A conversation's earlier answers are planned too, taken from the data file or filled with plain words: each
run then sends the same bytes, whatever the server answered.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow.compute as pc

from raybench.scenario.request import Conversation, Request
from raybench.workload import files, text
from raybench.workload.draws import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    PROMPT_ORDER,
    THINK,
    TURNS,
    Draws,
    Ints,
    permutation,
)
from raybench.workload.lengths import counts, pauses_ns
from raybench.workload.traces import BLOCK_TOKENS, Recorded

NONE = -1
"""What stands for null in the columns of a plan."""

UNLIMITED_ANSWER = 128
"""Tokens of a planned earlier answer where the scenario sets no limit."""

Messages = list[tuple[str, Any]]
"""Role and content of each message, in order."""


class Plan(NamedTuple):
    """Columns of the schedule, int64 with `NONE` for null, one value a request.

    `begins` holds the row where each arrival begins, and the number of rows at its end.
    """

    prompt_id: Ints
    prompt_tokens: Ints
    max_tokens: Ints
    conversation: Ints
    turn: Ints
    think_ns: Ints
    begins: Ints

    def cut(self, first: int, last: int) -> Plan:
        """The rows of arrivals `first` to `last` - 1."""
        rows = slice(int(self.begins[first]), int(self.begins[last]))
        return Plan(
            self.prompt_id[rows],
            self.prompt_tokens[rows],
            self.max_tokens[rows],
            self.conversation[rows],
            self.turn[rows],
            self.think_ns[rows],
            self.begins[first : last + 1] - self.begins[first],
        )


class Sequence:
    """The values of a prefix-stable draw: as many as anybody asked for, drawn again when more are."""

    def __init__(self, draw: Callable[[int], Ints]) -> None:
        self._draw = draw
        self._have = np.empty(0, dtype=np.int64)

    def first(self, n: int) -> Ints:
        if n > len(self._have):
            self._have = self._draw(max(n, 2 * len(self._have), 1024))
        return self._have[:n]

    def at(self, index: int) -> int:
        return int(self.first(index + 1)[index])


class Source(Protocol):
    def plan(self, n: int) -> Plan: ...

    def messages(self, prompt_id: int) -> Messages: ...


def source(request: Request, seed: int, raw: bool) -> Source | None:
    """The source that a scenario's request names; None where only traces say what is asked."""
    if request.prompts is not None:
        rows = FromFile(request, seed, raw)
        return Spoken(request, request.conversation, seed, rows) if request.conversation else rows
    inner: One | Synthetic
    if request.input_tokens is not None:
        inner = Synthetic(request, seed)
    elif request.prompt is not None or request.body is not None:
        inner = One(request, seed)
    else:
        return None
    return Turns(request, request.conversation, seed, inner) if request.conversation else inner


def singles(prompt_id: Ints, prompt_tokens: Ints, max_tokens: Ints) -> Plan:
    """A plan of requests that stand alone."""
    n = len(prompt_id)
    none = np.full(n, NONE, dtype=np.int64)
    return Plan(prompt_id, prompt_tokens, max_tokens, none, none, none, np.arange(n + 1, dtype=np.int64))


def nothing() -> Plan:
    """A plan of no requests at all."""
    empty = np.empty(0, dtype=np.int64)
    return singles(empty, empty, empty)


def limits(request: Request, seed: int, n: int) -> Ints:
    """max_tokens of the first n requests of a sequence."""
    if request.output_tokens is not None:
        return counts(request.output_tokens, Draws(seed, OUTPUT_TOKENS), n)
    return np.full(n, NONE if request.max_tokens is None else request.max_tokens, dtype=np.int64)


def _prefix(request: Request, seed: int, number: int) -> str:
    """The shared beginning of prompt or conversation `number`, with the space after it."""
    shared = request.shared_prefix
    if shared is None:
        return ""
    return text.text(seed, text.PREFIX, number % shared.groups, shared.tokens) + " "


class One:
    """The same prompt, or raw body, for every request."""

    def __init__(self, request: Request, seed: int) -> None:
        self._request, self._seed = request, seed

    def plan(self, n: int) -> Plan:
        groups = self._request.shared_prefix.groups if self._request.shared_prefix else 1
        ids = np.arange(n, dtype=np.int64) % groups
        unknown = np.full(n, NONE, dtype=np.int64)
        return singles(ids, unknown, limits(self._request, self._seed, n))

    def messages(self, prompt_id: int) -> Messages:
        if self._request.body is not None:
            return [("body", json.dumps(self._request.body, ensure_ascii=False, separators=(",", ":")))]
        return [("user", _prefix(self._request, self._seed, prompt_id) + (self._request.prompt or ""))]


class FromFile:
    """Rows of a data file: in order, in one shuffled order over and over, or each drawn at random."""

    def __init__(self, request: Request, seed: int, raw: bool) -> None:
        self._request, self._seed = request, seed
        self.data = files.prompts(request, raw)
        self.rows = Sequence(self._rows)

    def _rows(self, n: int) -> Ints:
        count, draws = len(self.data), Draws(self._seed, PROMPT_ORDER)
        if self._request.order == "random":
            return draws.below(n, count)
        turns = np.arange(n, dtype=np.int64) % count
        return permutation(draws, count)[turns] if self._request.order == "shuffled" else turns

    def plan(self, n: int) -> Plan:
        rows = self.rows.first(n)
        return singles(rows, np.full(n, NONE, dtype=np.int64), self.limits(rows))

    def limits(self, rows: Ints) -> Ints:
        """The scenario's limit, or else the file's own."""
        own = limits(self._request, self._seed, len(rows))
        if self._request.max_tokens is not None or self._request.output_tokens is not None:
            return own
        given: Ints = pc.fill_null(self.data.max_tokens, NONE).cast("int64").to_numpy()
        return given[rows]

    def messages(self, prompt_id: int) -> Messages:
        said = str(self.data.text[prompt_id].as_py())
        if self.data.kind == "body":
            return [("body", said)]
        if self.data.kind == "text":
            return [("user", _prefix(self._request, self._seed, prompt_id) + said)]
        return self.until(prompt_id, int(self.data.turns[prompt_id]) - 1)

    def until(self, row: int, turn: int) -> Messages:
        """A conversation of the file up to and with its user's turn number `turn`, from 0."""
        found: Messages = []
        users = -1
        for role, content in json.loads(self.data.text[row].as_py()):
            users += role == "user"
            if role == "user" and users == 0 and isinstance(content, str):
                content = _prefix(self._request, self._seed, row) + content
            found.append((role, content))
            if users == turn:
                break
        return found


class Synthetic:
    """Random words. Prompt k has the k-th drawn length; `distinct` prompts come round and round."""

    def __init__(self, request: Request, seed: int) -> None:
        self._request, self._seed = request, seed
        self._tokens = Sequence(self._draw)

    def _draw(self, n: int) -> Ints:
        assert self._request.input_tokens is not None, "checked with the scenario"
        return counts(self._request.input_tokens, Draws(self._seed, INPUT_TOKENS), n)

    def tokens(self, prompt_id: Ints) -> Ints:
        """Lengths of prompts without the shared prefix."""
        return self._tokens.first(int(prompt_id.max(initial=-1)) + 1)[prompt_id]

    def plan(self, n: int) -> Plan:
        ids = np.arange(n, dtype=np.int64) % (self._request.distinct or max(n, 1))
        prefix = self._request.shared_prefix.tokens if self._request.shared_prefix else 0
        return singles(ids, prefix + self.tokens(ids), limits(self._request, self._seed, n))

    def messages(self, prompt_id: int) -> Messages:
        return [("user", _prefix(self._request, self._seed, prompt_id) + self.bare(prompt_id))]

    def bare(self, prompt_id: int) -> str:
        return text.text(self._seed, text.PROMPT, prompt_id, self._tokens.at(prompt_id))


class _Conversations:
    """What both kinds of conversations share: prompt ids count all turns of all conversations."""

    def __init__(self, request: Request, conversation: Conversation, seed: int) -> None:
        self._request, self._conversation, self._seed = request, conversation, seed
        self._ends = Sequence(lambda n: np.cumsum(self.turns(n)))

    def turns(self, n: int) -> Ints:
        """How many turns each of the first n conversations has."""
        raise NotImplementedError

    def begins(self, n: int) -> Ints:
        """The first prompt id of each of n conversations, and the first of the next."""
        return np.concatenate([np.zeros(1, dtype=np.int64), self._ends.first(n)])

    def where(self, prompt_id: int) -> tuple[int, int]:
        """The conversation and turn of a prompt id."""
        n = 1024
        while self._ends.first(n)[-1] <= prompt_id:
            n *= 2
        ends = self._ends.first(n)
        conversation = int(np.searchsorted(ends, prompt_id, side="right"))
        return conversation, prompt_id - (int(ends[conversation - 1]) if conversation else 0)

    def columns(self, n: int) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """begins, prompt id, conversation, turn and think time of n conversations."""
        begins = self.begins(n)
        ids = np.arange(begins[-1], dtype=np.int64)
        conversation = np.repeat(np.arange(n, dtype=np.int64), np.diff(begins))
        turn = ids - begins[conversation]
        think = pauses_ns(self._conversation.think_time, Draws(self._seed, THINK, 1), len(ids))
        return begins, ids, conversation, turn, np.where(turn > 0, think, NONE)


class Turns(_Conversations):
    """Conversations of a drawn number of turns, whose prompts come one by one from another source."""

    def __init__(
        self, request: Request, conversation: Conversation, seed: int, inner: One | Synthetic
    ) -> None:
        super().__init__(request, conversation, seed)
        self._inner = inner
        self._limits = Sequence(lambda n: limits(request, seed, n))

    def turns(self, n: int) -> Ints:
        assert self._conversation.turns is not None, "checked with the scenario"
        return counts(self._conversation.turns, Draws(self._seed, TURNS), n)

    def plan(self, n: int) -> Plan:
        begins, ids, conversation, turn, think = self.columns(n)
        limit = self._limits.first(len(ids))
        tokens = np.full(len(ids), NONE, dtype=np.int64)
        if isinstance(self._inner, Synthetic):
            # A turn's prompt holds everything said before: the sum of own prompts and earlier answers.
            prefix = self._request.shared_prefix.tokens if self._request.shared_prefix else 0
            own = self._inner.tokens(self._number(ids))
            said = np.concatenate([[0], np.cumsum(own + np.where(limit == NONE, UNLIMITED_ANSWER, limit))])
            tokens = prefix + said[ids] - said[begins[conversation]] + own
        return Plan(ids, tokens, limit, conversation, turn, think, begins)

    def messages(self, prompt_id: int) -> Messages:
        conversation, turn = self.where(prompt_id)
        found: Messages = []
        for each in range(prompt_id - turn, prompt_id + 1):
            prefix = _prefix(self._request, self._seed, conversation) if each == prompt_id - turn else ""
            found.append(("user", prefix + self._own(each)))
            if each < prompt_id:
                limit = self._limits.at(each)
                tokens = UNLIMITED_ANSWER if limit == NONE else limit
                found.append(("assistant", text.text(self._seed, text.ANSWER, each, tokens)))
        return found

    def _number(self, ids: Ints) -> Ints:
        return ids % self._request.distinct if self._request.distinct else ids

    def _own(self, prompt_id: int) -> str:
        if isinstance(self._inner, Synthetic):
            return self._inner.bare(int(self._number(np.array([prompt_id]))[0]))
        return self._request.prompt or ""


class Spoken(_Conversations):
    """Conversations of a data file, with the answers that stand there as the earlier answers."""

    def __init__(self, request: Request, conversation: Conversation, seed: int, inner: FromFile) -> None:
        super().__init__(request, conversation, seed)
        self._inner = inner

    def turns(self, n: int) -> Ints:
        return self._inner.data.turns[self._inner.rows.first(n)]

    def plan(self, n: int) -> Plan:
        begins, ids, conversation, turn, think = self.columns(n)
        limit = self._inner.limits(self._inner.rows.first(n)[conversation])
        return Plan(ids, np.full(len(ids), NONE, dtype=np.int64), limit, conversation, turn, think, begins)

    def messages(self, prompt_id: int) -> Messages:
        conversation, turn = self.where(prompt_id)
        return self._inner.until(self._inner.rows.at(conversation), turn)


class Traced:
    """Prompts of a trace's lengths; where it names blocks, of shared blocks."""

    def __init__(self, recorded: Recorded, seed: int) -> None:
        self._recorded, self._seed = recorded, seed

    def __len__(self) -> int:
        return len(self._recorded)

    def plan_rows(self, first: int, n: int) -> Plan:
        """The trace's rows `first` to `first` + n - 1."""
        ids = np.arange(first, first + n, dtype=np.int64)
        return singles(ids, self._recorded.input_tokens[ids], self._recorded.output_tokens[ids])

    def messages(self, prompt_id: int) -> Messages:
        left = int(self._recorded.input_tokens[prompt_id])
        parts = []
        if self._recorded.blocks is not None:
            for block in self._recorded.blocks[prompt_id].as_py():
                if left <= 0:
                    break
                parts.append(text.text(self._seed, text.BLOCK, block, min(left, BLOCK_TOKENS)))
                left -= BLOCK_TOKENS
        if left > 0:
            parts.append(text.text(self._seed, text.TRACE, prompt_id, left))
        return [("user", " ".join(parts))]

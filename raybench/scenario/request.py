"""What is asked: prompts, lengths, conversations, and the fields of a request's body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from raybench.scenario.base import DataFile, Mistake, Model
from raybench.scenario.distributions import Count, FixedPause, Pause
from raybench.scenario.units import PositiveSeconds

_OWN = ("model", "messages", "prompt", "stream", "stream_options", "max_tokens", "temperature", "top_p")


class SharedPrefix(Model):
    """Text of about `tokens` tokens that many prompts begin with, to exercise prefix caches. Each prompt
    begins with one of `groups` such texts.
    """

    tokens: Annotated[int, Field(gt=0, le=1_000_000)]
    groups: PositiveInt = 1


class Conversation(Model):
    """Several turns of one user, each sent a think time after the answer to the one before. Where prompts
    come from a file, its conversations say how many turns there are.
    """

    turns: Count | None = None
    think_time: Pause = FixedPause(distribution="fixed", value=0.0)


class Request(Model):
    # where prompts come from: exactly one of these
    prompt: str | None = None
    prompts: DataFile | None = None  # JSONL, CSV or Parquet
    input_tokens: Count | None = None  # synthetic prompts of about this many tokens
    body: dict[str, Any] | None = None  # api raw: the whole body, sent as it is

    prompt_column: str | None = None  # of the data file; by default prompt, else messages or conversations
    order: Literal["sequential", "shuffled", "random"] = "sequential"  # of the data file's rows
    distinct: PositiveInt | None = None  # synthetic prompts that are different; by default all
    system: str | None = None
    shared_prefix: SharedPrefix | None = None
    conversation: Conversation | None = None
    path: Annotated[str, Field(pattern=r"^/[!-~]*$")] | None = None  # api raw: where to post to

    max_tokens: PositiveInt | None = None
    output_tokens: Count | None = None  # max_tokens drawn for each request
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    timeout: PositiveSeconds = 300
    stream: bool = True
    extra: dict[str, Any] = Field(default_factory=dict)  # further keys of the request body, sent as they are

    @property
    def sources(self) -> tuple[str, ...]:
        """The keys given that say where prompts come from; exactly one where nothing but a trace does."""
        keys = ("prompt", "prompts", "input_tokens", "body")
        return tuple(key for key in keys if getattr(self, key) is not None)

    def mistakes(self) -> Iterator[Mistake]:
        sources = self.sources
        for key in sources[1:]:
            yield Mistake((key,), f"give {sources[0]} or {key}, not both: prompts have one source")
        if self.max_tokens is not None and self.output_tokens is not None:
            yield Mistake(("output_tokens",), "give max_tokens or output_tokens, not both")
        for key in self.extra:
            if key in _OWN:
                yield Mistake(("extra", key), "is set by raybench itself; leave it out here")
        yield from self._only_with("prompts", ("prompt_column",))
        if self.order != "sequential" and self.prompts is None:
            yield Mistake(("order",), "goes with prompts from a data file")
        yield from self._only_with("input_tokens", ("distinct",))
        if self.conversation is not None:
            if self.prompts is None and self.conversation.turns is None:
                yield Mistake(("conversation", "turns"), "required: how many turns, such as 5")
            if self.prompts is not None and self.conversation.turns is not None:
                yield Mistake(
                    ("conversation", "turns"), "leave it out: the data file's conversations have their own"
                )

    def _only_with(self, source: str, keys: tuple[str, ...]) -> Iterator[Mistake]:
        for key in keys:
            if getattr(self, key) is not None and getattr(self, source) is None:
                yield Mistake((key,), f"goes with {source}, which is not given")

    def raw_mistakes(self) -> Iterator[Mistake]:
        """What does not fit `api: raw`, whose bodies are sent as they are."""
        if self.path is None:
            yield Mistake(("path",), "required with api raw: where to post to, such as /generate")
        if self.prompt is not None or self.input_tokens is not None:
            key = "prompt" if self.prompt is not None else "input_tokens"
            yield Mistake((key,), "api raw takes a body, or a data file of bodies as prompts")
        for key in ("system", "shared_prefix", "conversation", "max_tokens", "output_tokens", "temperature",
                    "top_p"):  # fmt: skip
            if getattr(self, key) is not None:
                yield Mistake((key,), "api raw sends bodies as they are: put it into the body")
        for key in self.extra:
            yield Mistake(("extra", key), "api raw sends bodies as they are: put it into the body")

    def openai_mistakes(self, api: str) -> Iterator[Mistake]:
        """What does not fit `api: chat` or `api: completions`."""
        for key in ("path", "body"):
            if getattr(self, key) is not None:
                yield Mistake((key,), f"goes with api raw; this is api {api}")

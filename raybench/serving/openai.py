"""The OpenAI API as the emulated engine speaks it: request bodies in, answers out, as bytes. No I/O.

Errors have vLLM's form and status codes, so that a client sees the same from both engines. Parameters that
change what a model says, and not how much or how fast, are accepted and have no effect.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

Kind = Literal["chat", "completions"]

CHARACTERS_PER_TOKEN = 4
"""Prompt tokens are an estimate: four characters of text a token, rounded up, and four tokens for each
message of a chat. Prompts given as token ids count exactly."""

TOKENS_PER_MESSAGE = 4

WORDS = (
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "and",
    "naps",
    "until",
    "noon",
)
"""What the emulated model says, one word a token, over and over."""

DONE = b"data: [DONE]\n\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class ApiError(Exception):
    """A refusal, with its HTTP status and the parameter at fault."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.param = status, kind, message, param

    def body(self) -> bytes:
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        return _json({"error": error})

    def event(self) -> bytes:
        """The same inside a stream."""
        return b"data: " + self.body() + b"\n\n"


def bad(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, "BadRequestError", message, param)


@dataclass(frozen=True)
class Ask:
    """What matters of a request body to an engine that only counts tokens."""

    kind: Kind
    prompt_tokens: int
    max_tokens: int
    min_tokens: int
    ignore_eos: bool
    stream: bool
    include_usage: bool


def read(kind: Kind, raw: bytes, model: str, context_tokens: int, defaults: dict[str, Any]) -> Ask:
    """The body of a request, with the deployment's `defaults` where it is silent. Raises ApiError."""
    try:
        given = json.loads(raw)
    except ValueError as error:
        raise bad(f"the body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise bad("the body must be a JSON object")
    body = defaults | {key: value for key, value in given.items() if value is not None}
    named = body.get("model", model)
    if named != model:
        raise ApiError(
            404, "NotFoundError", f"The model `{named}` does not exist; there is `{model}`.", "model"
        )
    prompt = _chat_tokens(body) if kind == "chat" else _prompt_tokens(body)
    if prompt >= context_tokens:
        raise bad(
            f"The context is {context_tokens} tokens long; the prompt has {prompt} and leaves no room.",
            "messages" if kind == "chat" else "prompt",
        )
    limit = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    max_tokens = _integer(body, limit, 1, context_tokens - prompt)
    if prompt + max_tokens > context_tokens:
        raise bad(
            f"The context is {context_tokens} tokens long; a prompt of {prompt} and "
            f"{limit} {max_tokens} exceed it.",
            limit,
        )
    min_tokens = _integer(body, "min_tokens", 0, 0)
    if min_tokens > max_tokens:
        raise bad(f"min_tokens {min_tokens} is more than {limit} {max_tokens}.", "min_tokens")
    if _integer(body, "n", 1, 1) != 1:
        raise bad("n must be 1: the emulated engine gives one choice.", "n")
    stream = _boolean(body, "stream")
    options = body.get("stream_options", {})
    if not isinstance(options, dict):
        raise bad("stream_options must be an object.", "stream_options")
    if options and not stream:
        raise bad("stream_options can only be given with stream: true.", "stream_options")
    for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1)):
        value = body.get(name, high)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise bad(f"{name} must be a number from {low} to {high}, got {value!r}.", name)
    return Ask(
        kind=kind,
        prompt_tokens=prompt,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        ignore_eos=_boolean(body, "ignore_eos"),
        stream=stream,
        include_usage=_boolean(options, "include_usage"),
    )


def _integer(body: dict[str, Any], name: str, low: int, default: int) -> int:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise bad(f"{name} must be an integer of at least {low}, got {value!r}.", name)
    return value


def _boolean(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise bad(f"{name} must be true or false, got {value!r}.", name)
    return value


def _text_tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _chat_tokens(body: dict[str, Any]) -> int:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad("messages must be a list of at least one message.", "messages")
    tokens = 0
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise bad(f"messages[{number}] must be an object with a role.", "messages")
        content = message.get("content") or ""
        parts = content if isinstance(content, list) else [{"text": content}]
        texts = [part.get("text", "") if isinstance(part, dict) else None for part in parts]
        if not all(isinstance(text, str) for text in texts):
            raise bad(f"messages[{number}].content must be text or a list of parts.", "messages")
        tokens += TOKENS_PER_MESSAGE + sum(_text_tokens(text) for text in texts if text)
    return tokens


def _prompt_tokens(body: dict[str, Any]) -> int:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return _text_tokens(prompt)
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return len(prompt)
    raise bad("prompt must be one text or one list of token ids, and not empty.", "prompt")


def models(model: str, context_tokens: int, created: int) -> bytes:
    """The body of `/v1/models`."""
    card = {"id": model, "object": "model", "created": created, "owned_by": "raybench"}
    return _json({"object": "list", "data": [card | {"max_model_len": context_tokens}]})


_GOES_ON = b'"logprobs":null,"finish_reason":null}]}\n\n'


def word(number: int) -> str:
    """The text of token `number`, counted from 1."""
    return WORDS[(number - 1) % len(WORDS)] + " "


class Answer:
    """The bytes of one answer. What does not change from token to token is rendered once."""

    def __init__(self, ask: Ask, request_id: str, model: str) -> None:
        self._ask = ask
        chat = ask.kind == "chat"
        self._head = {
            "id": ("chatcmpl-" if chat else "cmpl-") + request_id,
            "object": ("chat.completion" if chat else "text_completion"),
            "created": int(time.time()),
            "model": model,
        }
        chunk_head = self._head | ({"object": "chat.completion.chunk"} if chat else {})
        self._prefix = b"data: " + _json(chunk_head)[:-1] + b',"choices":['

    def role(self) -> bytes:
        """The first event of a chat: who speaks. It carries no token."""
        return self._prefix + b'{"index":0,"delta":{"role":"assistant","content":""},' + _GOES_ON

    def chunk(self, number: int, finish_reason: str | None) -> bytes:
        """The event of token `number`; with the reason, if it is the last."""
        return self._prefix + _choice(self._ask.kind, (number - 1) % len(WORDS) + 1, finish_reason)

    def end(self, output_tokens: int) -> bytes:
        """What follows the last token: usage where it was asked for, and the end mark."""
        if not self._ask.include_usage:
            return DONE
        return self._prefix + b'],"usage":' + _json(self._usage(output_tokens)) + b"}\n\n" + DONE

    def whole(self, output_tokens: int, finish_reason: str) -> bytes:
        """The answer to a request that does not stream."""
        text = "".join(word(number) for number in range(1, output_tokens + 1))
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
        choice = {"index": 0} | (said if self._ask.kind == "chat" else {"text": text})
        choice |= {"logprobs": None, "finish_reason": finish_reason}
        return _json(self._head | {"choices": [choice], "usage": self._usage(output_tokens)})

    def _usage(self, output_tokens: int) -> dict[str, int]:
        prompt = self._ask.prompt_tokens
        total = prompt + output_tokens
        return {"prompt_tokens": prompt, "total_tokens": total, "completion_tokens": output_tokens}


@cache
def _choice(kind: Kind, number: int, finish_reason: str | None) -> bytes:
    said = {"delta": {"content": word(number)}} if kind == "chat" else {"text": word(number)}
    choice = {"index": 0} | said | {"logprobs": None, "finish_reason": finish_reason}
    return _json(choice) + b"]}\n\n"

"""What the OpenAI API's answers mean: which event carries content, usage, a finish reason or an error.

Read by the slow path of `sse` (a few events a stream) and for whole answers; never per token.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

_CONTENT = frozenset({"content", "reasoning_content", "reasoning", "tool_calls", "function_call", "refusal"})
_MAX_TOKENS = 2**31 - 1
_WORDS = 300  # characters kept of a server's own words
# strict=False lets raw control characters pass in strings: some servers send tabs unescaped.
_DECODER = json.JSONDecoder(strict=False)


class Meaning(NamedTuple):
    """What one event, or one whole answer, says."""

    content: bool = False
    finish_reason: str | None = None
    usage: tuple[int | None, int | None] | None = None  # prompt tokens, output tokens
    error: str | None = None
    choices: bool = False


def decode(payload: bytes) -> Any:
    """JSON to objects; bytes that are not UTF-8 are replaced, not refused. Raises ValueError."""
    try:
        return _DECODER.decode(payload.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def meaning(answer: Any) -> Meaning:
    """What a decoded event or answer says; anything of an unexpected type is as if it were not there."""
    if not isinstance(answer, dict):
        return Meaning()
    error = answer.get("error")
    if error or (answer.get("object") == "error" and "choices" not in answer):
        return Meaning(error=error_words(answer))
    content, finish = False, None
    choices = answer.get("choices")
    if not isinstance(choices, list):
        choices = []
    for choice in choices:
        if not isinstance(choice, dict):
            continue
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            finish = reason[:100]
        if _filled(choice.get("text")):
            content = True
        for holder in (choice.get("delta"), choice.get("message")):
            if isinstance(holder, dict):
                for key, value in holder.items():
                    if value and key in _CONTENT and _filled(value):
                        content = True
    return Meaning(content, finish, _usage(answer.get("usage")), None, bool(choices))


def error_words(answer: Any) -> str:
    """The server's message out of the forms that servers use for errors."""
    for _ in range(4):  # {"error": {"message": …}}, or one more wrapping
        if not isinstance(answer, dict):
            break
        found = [answer.get(key) for key in ("error", "message", "detail", "reason")]
        answer = next((v for v in found if isinstance(v, dict) or (isinstance(v, str) and v.strip())), None)
        if isinstance(answer, str):
            return tidy(answer)
    return "an error without a message"


def words_of(body: bytes) -> str:
    """A short excerpt of an error's body: the message in it if it is JSON, else its beginning."""
    text = body.strip()
    if text.startswith(b"{"):
        try:
            return error_words(decode(text))
        except ValueError:
            pass
    return tidy(text[: 4 * _WORDS].decode("utf-8", "replace"))


def tidy(words: str) -> str:
    """One line, printable, bounded."""
    line = " ".join("".join(c if c.isprintable() else " " for c in words[: 4 * _WORDS]).split())
    return line if len(line) <= _WORDS else line[: _WORDS - 1] + "…"


def _filled(value: object) -> bool:
    return bool(value) and isinstance(value, (str, list, dict))


def _usage(usage: object) -> tuple[int | None, int | None] | None:
    if usage is None or not isinstance(usage, dict):
        return None
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def _count(value: object) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_TOKENS
    return value if good and isinstance(value, int) else None


_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"([^"\\]{1,100})"')


def glance(head: bytes, tail: bytes) -> Meaning:
    """What an answer too large to decode says, from its first and last bytes.

    A quoted key followed by a colon cannot stand inside a JSON string, where quotes are escaped, so
    the search finds keys only. The last usage and the last finish reason count.
    """
    usage, finish = None, None
    for part in (tail, head):
        if usage is None:
            for match in _USAGE.finditer(part):
                try:
                    found, _ = _DECODER.raw_decode(
                        part[match.end() : match.end() + 4096].decode("utf-8", "replace")
                    )
                except ValueError:
                    continue
                usage = _usage(found)
        if finish is None:
            reasons = _FINISH.findall(part)
            finish = reasons[-1].decode("utf-8", "replace") if reasons else None
    whole = head.lstrip()[:1] == b"{" and tail.rstrip()[-1:] == b"}"
    return Meaning(whole, finish, usage, None, whole and b'"choices"' in head)

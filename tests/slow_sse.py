"""The slow, obvious reading of a stream of server-sent events: what `raybench.client.sse` must agree with.

Written from the two standards (server-sent events, OpenAI's chunks) with the whole body in hand, no
state, no shortcuts, and nothing shared with the client but the meaning of the words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass
class Stream:
    chunks: int = 0
    finish_reason: str | None = None
    usage: tuple[object, object] | None = None
    done: bool = False
    error: str | None = None  # "said" an error event, "garbage" one that is no JSON: reading ends there


def events(body: bytes) -> list[tuple[str, str]]:
    """(name, data) of each event; an unfinished one at the end counts as finished."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found, name, data = [], "", []
    for line in [*text.split("\n"), ""]:
        if line == "":
            if data:
                found.append((name, "\n".join(data)))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value.strip()
    return found


def filled(holder: object, keys: tuple[str, ...]) -> bool:
    return isinstance(holder, dict) and any(
        isinstance(holder.get(key), (str, list, dict)) and len(holder[key]) > 0 for key in keys
    )


def read(body: bytes) -> Stream:
    stream = Stream()
    keys = ("content", "reasoning_content", "reasoning", "tool_calls", "function_call", "refusal")
    for name, data in events(body):
        data = data.strip()
        if not data:
            continue
        if data == "[DONE]":
            stream.done = True
            continue
        try:
            said = json.loads(data, strict=False)
        except ValueError:
            stream.error = "said" if name == "error" else "garbage"
            return stream
        if name == "error":
            stream.error = "said"
            return stream
        if not isinstance(said, dict):
            continue
        if said.get("error") or (said.get("object") == "error" and "choices" not in said):
            stream.error = "said"
            return stream
        usage = said.get("usage")
        if isinstance(usage, dict):
            stream.usage = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
        choices = said.get("choices")
        content = False
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                content = content or filled(choice, ("text",))
                content = content or filled(choice.get("delta"), keys) or filled(choice.get("message"), keys)
                if isinstance(choice.get("finish_reason"), str) and choice["finish_reason"]:
                    stream.finish_reason = choice["finish_reason"]
        stream.chunks += content
    return stream

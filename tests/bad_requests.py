"""Requests that no engine should accept, and what vLLM answers: status, and words of the message."""

from __future__ import annotations

from typing import Any

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]


def bad_requests(model: str, context: int) -> list[tuple[str, str, Any, int, str]]:
    """(name, path, body, status, words of the message) for a model with so many tokens of context."""
    chat = {"model": model, "messages": HELLO}
    text = {"model": model, "prompt": "hello"}
    long = [{"role": "user", "content": "word " * 4 * context}]
    options = {"stream_options": {"include_usage": True}}
    return [
        ("unknown model, chat", CHAT, chat | {"model": "nobody"}, 404, "The model `nobody` does not exist"),
        ("unknown model, text", TEXT, text | {"model": "nobody"}, 404, "The model `nobody` does not exist"),
        ("unknown model, stream", CHAT, chat | {"model": "nobody", "stream": True}, 404, "`nobody`"),
        ("too long, chat", CHAT, chat | {"messages": long}, 400, str(context)),
        ("too long, text", TEXT, text | {"prompt": [5] * (context + 1)}, 400, str(context)),
        ("too long, stream", TEXT, text | {"prompt": [5] * (context + 1), "stream": True}, 400, str(context)),
        ("more tokens than context", CHAT, chat | {"max_tokens": context + 1}, 400, str(context)),
        ("max_tokens below one", CHAT, chat | {"max_tokens": -3}, 400, "max_tokens"),
        ("max_tokens no number", CHAT, chat | {"max_tokens": "many"}, 400, "max_tokens"),
        ("temperature below zero", CHAT, chat | {"temperature": -1}, 400, "temperature"),
        ("top_p above one", TEXT, text | {"top_p": 1.5}, 400, "top_p"),
        ("messages no list", CHAT, chat | {"messages": "hello"}, 400, "messages"),
        ("no messages", CHAT, {"model": model}, 400, "messages"),
        ("no prompt", TEXT, {"model": model}, 400, ""),
        ("no JSON", CHAT, b"{hello", 400, "JSON"),
        ("no object", CHAT, b"[1, 2]", 400, ""),
        ("stream options without a stream", CHAT, chat | options, 400, "stream"),
    ]

"""Answers that are no stream: one JSON completion, or the body of an error."""

from __future__ import annotations

from collections import deque

from raybench.client.exchange import Exchange, Failed
from raybench.client.openai import decode, glance, meaning, tidy, words_of
from raybench.schema import Outcome

HEAD = 2**20
"""Bytes of a body kept and decoded whole. Decoding a mebibyte holds the loop for 2 to 5 ms; beyond it
only the first mebibyte and the last 64 KiB are kept and searched, whatever the answer's size."""
TAIL = 64 * 2**10
ERROR_BODY = 8 * 2**10


class WholeReader:
    """Reads a completion that comes in one piece. It has no first-token instant, streaming asked or not."""

    __slots__ = ("content_type", "exchange", "head", "head_size", "tail", "tail_size")

    def __init__(self, exchange: Exchange, content_type: bytes) -> None:
        self.exchange = exchange
        self.content_type = content_type
        self.head: list[bytes] = []
        self.head_size = 0
        self.tail: deque[bytes] = deque()
        self.tail_size = 0

    def feed(self, data: bytes, now_ns: int) -> None:
        if self.head_size < HEAD:
            self.head.append(data)
            self.head_size += len(data)
            return
        self.tail.append(data)
        self.tail_size += len(data)
        while self.tail_size - len(self.tail[0]) >= TAIL:
            self.tail_size -= len(self.tail.popleft())

    def end(self, now_ns: int) -> None:
        body = b"".join(self.head)
        if not body.strip() and not self.tail:
            raise Failed(Outcome.PROTOCOL_ERROR, "empty answer")
        if self.tail:
            tail = b"".join(self.tail)
            # The head's own end too: what ends the answer may lie across the two.
            said = glance(body, tail if self.tail_size >= TAIL else body[-TAIL:] + tail)
        else:
            try:
                said = meaning(decode(body))
            except ValueError:
                kind = tidy(self.content_type.decode("latin-1")) or "no content type"
                reason = f"the answer ({kind}) is not a completion: {words_of(body)}"
                raise Failed(Outcome.PROTOCOL_ERROR, reason) from None
        if said.error is not None:
            raise Failed(Outcome.PROTOCOL_ERROR, f"an error with status 200: {said.error}")
        if not said.choices:
            raise Failed(Outcome.PROTOCOL_ERROR, f"the answer has no choices: {words_of(body[:2000])}")
        exchange = self.exchange
        if said.usage is not None:
            exchange.prompt_tokens, exchange.output_tokens = said.usage
        exchange.finish_reason = said.finish_reason
        if not said.content and said.finish_reason is None:
            raise Failed(Outcome.PROTOCOL_ERROR, "empty answer: no content and no finish reason")


class RefusalReader:
    """Reads the body of any status that is not 2xx: always http_error, with the server's words."""

    __slots__ = ("body", "location", "status")

    def __init__(self, status: int, location: str) -> None:
        self.status = status
        self.location = location
        self.body = b""

    def feed(self, data: bytes, now_ns: int) -> None:
        if len(self.body) < ERROR_BODY:
            self.body += data[: ERROR_BODY - len(self.body)]

    def end(self, now_ns: int) -> None:
        raise self.failed()

    def failed(self) -> Failed:
        said = words_of(self.body)
        if not said and 300 <= self.status < 400:
            said = (
                f"redirect to {tidy(self.location)}, not followed"
                if self.location
                else "redirect, not followed"
            )
        return Failed(Outcome.HTTP_ERROR, f"status {self.status}" + (f": {said}" if said else ""))

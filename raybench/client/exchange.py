"""What became of one request: the client's answer to whoever sent it."""

from __future__ import annotations

from array import array

from raybench.schema import Outcome


class Exchange:
    """One request and its answer. Instants are this process's `time.monotonic_ns()`, or None.

    A plain class with slots: it is made once a request on the dispatch path, and 5,000 of them may be
    alive at once. `chunk_ns` is an array of int64 (8 bytes a chunk; a list of ints would take 40).
    """

    __slots__ = (
        "anchor_ns",
        "bytes",
        "chunk_ns",
        "chunks",
        "connected_ns",
        "done_ns",
        "error",
        "finish_reason",
        "first_token_ns",
        "headers_ns",
        "http_status",
        "last_token_ns",
        "outcome",
        "output_tokens",
        "prompt_tokens",
        "replica",
        "request_id",
        "sent_ns",
    )

    def __init__(self, request_id: int, sent_ns: int, anchor_ns: int | None = None) -> None:
        self.request_id = request_id
        self.sent_ns = sent_ns
        self.anchor_ns = anchor_ns  # when it should have been sent: the sender's, only carried along
        self.connected_ns: int | None = None  # a connection is ready to write to
        self.headers_ns: int | None = None  # the response head is complete
        self.first_token_ns: int | None = None
        self.last_token_ns: int | None = None
        self.done_ns: int | None = None
        self.outcome = Outcome.OK  # final once done_ns is set
        self.http_status: int | None = None
        self.error: str | None = None  # reason of a failure, bounded, without secrets
        self.prompt_tokens: int | None = None  # from the last usage seen
        self.output_tokens: int | None = None
        self.chunks = 0  # events that carried a choice's content
        self.bytes = 0  # response body as received, before any decompression
        self.finish_reason: str | None = None
        self.replica: str | None = None
        self.chunk_ns: array[int] | None = None  # one a chunk


class Failed(Exception):
    """The answer being read is a failure of this kind, for this reason."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason

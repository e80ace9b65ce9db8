"""A compression that nobody asked for, taken off within bounds."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from raybench.client.exchange import Failed
from raybench.client.openai import tidy
from raybench.schema import Outcome

_PIECE = 2**18  # bytes decompressed at once
CUT_OFF = "the compressed answer breaks off"


def inflate(coding: bytes, max_bytes: int) -> Inflate | None:
    """What reads a body of this content-encoding; None if it is plain. Raises Failed for an unknown one."""
    coding = coding.strip().lower()
    if coding in (b"gzip", b"x-gzip", b"deflate"):
        return Inflate(max_bytes)
    if coding in (b"", b"identity"):
        return None
    raise Failed(
        Outcome.PROTOCOL_ERROR, f"content-encoding {tidy(coding.decode('latin-1'))}, never asked for"
    )


class Inflate:
    """Decompresses one body of at most `max_bytes` (decompressed), gzip or zlib by its own header."""

    __slots__ = ("_max_bytes", "_stream", "size")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._stream = zlib.decompressobj(47)  # 32 + 15: gzip or zlib
        self.size = 0  # bytes decompressed so far

    @property
    def complete(self) -> bool:
        return self._stream.eof

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes hold, piece by piece. Raises Failed."""
        try:
            while data:
                plain = self._stream.decompress(data, _PIECE)
                self.size += len(plain)
                if self.size > self._max_bytes:
                    raise too_large(self._max_bytes)
                if plain:
                    yield plain
                data = self._stream.unconsumed_tail
        except zlib.error as fault:
            raise Failed(Outcome.PROTOCOL_ERROR, f"not the compression it says: {fault}") from None


def too_large(max_bytes: int) -> Failed:
    return Failed(Outcome.PROTOCOL_ERROR, f"an answer of more than {max_bytes} bytes")

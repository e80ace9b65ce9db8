"""Server-sent events: bytes in, chunk counts and instants out. The hot path of the whole project.

A stream of an LLM is one event said over and over with another string in it:

    data: {"id":"…","choices":[{"index":0,"delta":{"content":" hello"},"finish_reason":null}]}␊␊
    └──────────────── prefix ──────────────────────────────┘└ text ┘└──── suffix ────────────┘

The first content event of a stream goes through a real JSON parser and leaves its prefix and suffix
behind (`_learn`). From then on an event that begins with the prefix, ends with the suffix and has
one whole string between them says the same but for the text, so it is a chunk, and nothing in it
needs parsing. A run of such events that came in one read is counted by a handful of C searches over
the whole run (`_run`); whatever does not match (role, finish, usage, `[DONE]`, errors, comments,
other servers' ideas) is parsed slowly and exactly (`_slow`). If a prefix changes in mid-stream
(some servers stamp each event with the second) the next slow event is learned anew.

Streams of one server differ in their id, which most servers write first. `Shapes` is what a client
has learned from its streams with the id left out: the next stream's prefix, and what its few other
events mean, are then known before the first of them is parsed.

What each step costs for a chunk of 200 bytes: in a run about 0.3 µs, alone 0.7 µs, known but for the
id 1 µs, slow 5 to 8 µs.
"""

from __future__ import annotations

import re
from array import array

from raybench.client.exchange import Exchange, Failed
from raybench.client.openai import Meaning, decode, meaning, tidy
from raybench.schema import Outcome

MAX_EVENT = 8 * 2**20
"""Bytes of one event. Nothing a language model says in one event is near it."""

# The inside of a JSON string, as json reads it with strict=False; no line end can be in a line.
_TEXT = re.compile(rb'(?:[^"\\\n\r]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))+').fullmatch
_PLAIN = re.compile(rb'[^"\\\n\r]+').fullmatch
_KEY = re.compile(rb'"(?:content|text|reasoning_content|reasoning)"[ \t]*:[ \t]*"')


_ID = b'data: {"id":"'
_DONE = b"data: [DONE]\n\n"
_KNOWN = 256  # events remembered by what they mean


class Shapes:
    """What the streams of one client have taught, with their ids left out."""

    __slots__ = ("known", "prefix", "suffix")

    def __init__(self) -> None:
        self.prefix = b""  # what follows the id in a content event, up to the text
        self.suffix = b""
        self.known: dict[bytes, Meaning] = {}  # an event without its id -> what it means

    def remember(self, event: bytes, said: Meaning) -> None:
        if len(self.known) >= _KNOWN:
            self.known.clear()
        self.known[event] = said


class EventReader:
    """Reads one `text/event-stream` answer into its exchange. Raises Failed when it is none."""

    __slots__ = (
        "after",
        "before",
        "begun",
        "done",
        "empty",
        "exchange",
        "pending",
        "prefix",
        "quotes",
        "record",
        "seam",
        "shapes",
        "size",
        "suffix",
    )

    def __init__(self, exchange: Exchange, record_chunks: bool, shapes: Shapes) -> None:
        self.exchange = exchange
        self.shapes = shapes
        self.record = record_chunks
        self.pending: list[bytes] = []  # bytes after the last complete event
        self.size = 0  # of pending
        self.begun = False  # an event was parsed
        self.done = False  # [DONE] was seen
        self.before = self.after = 0  # lengths of prefix and suffix; 0 while there are none
        self.prefix = b""
        self.suffix = b""  # with the blank line that ends the event
        self.seam = b""  # suffix + prefix: where two chunks meet
        self.empty = b""  # prefix + suffix: an event whose text is empty, which is no chunk
        self.quotes = 0  # in prefix and suffix together

    def feed(self, data: bytes, now_ns: int) -> None:
        """The next bytes of the body, however the network cut them."""
        if not self.pending:
            # One chunk in one read: the commonest of all.
            after = self.after
            if (
                after
                and data.endswith(self.suffix)
                and data.startswith(self.prefix)
                and _TEXT(data, self.before, len(data) - after)
            ):
                exchange = self.exchange
                if exchange.chunks:  # `_count` for one that is not the first, without the call
                    exchange.chunks += 1
                    exchange.last_token_ns = now_ns
                    if exchange.chunk_ns is not None:
                        exchange.chunk_ns.append(now_ns)
                else:
                    self._count(1, now_ns)
                return
        else:
            decided = self.pending[-1].endswith(b"\r")  # by these bytes: a line end, and of which kind
            self.pending.append(data)
            if not decided and b"\n" not in data and b"\r" not in data:
                # No event ends here: gather, so that a huge event costs one join, not one a read.
                self._grown(len(data))
                return
            data = b"".join(self.pending)
            self.pending.clear()
            self.size = 0
        held = b""
        if b"\r" in data:
            if data.endswith(b"\r"):  # a line feed may follow in the next read
                data, held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = data.rfind(b"\n\n")
        end = end + 2 if end >= 0 else 0
        if end != len(data) or held:
            rest = data[end:] + held
            self.pending.append(rest)
            self._grown(len(rest))
            if not end:
                return
            data = data[:end]
        self._events(data, now_ns)

    def chunk_end(self) -> bytes:
        """What a chunk of this stream ends with; empty while that is not known, or no chunk has come."""
        return self.suffix if self.exchange.chunks else b""

    def feed_each(self, parts: list[bytes], stamps: array[int]) -> int:
        """Parts of the body that came one by one, `stamps[i]` the instant of `parts[i]`. Returns their
        bytes if each is one whole chunk; 0 if not, or if that needs a look at each, and nothing is done.
        """
        before, after, exchange = self.before, self.after, self.exchange
        if self.pending or not after or not exchange.chunks:
            return 0
        texts = [part[before:-after] for part in parts]
        said = b"".join(texts)
        if not all(texts) or b'"' in said or b"\\" in said or b"\n" in said or b"\r" in said:
            return 0
        # Piece for piece as long as the parts, so equal piece for piece if equal as a whole.
        data = b"".join(parts)
        if data != self.prefix + self.seam.join(texts) + self.suffix:
            return 0
        exchange.chunks += len(parts)
        exchange.last_token_ns = stamps[-1]
        if exchange.chunk_ns is not None:
            exchange.chunk_ns.extend(stamps)
        return len(data)

    def end(self, now_ns: int) -> None:
        """The body is over. Returns if the stream was complete, else raises Failed."""
        if self.pending:
            data = b"".join(self.pending).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            self.pending.clear()
            if data.strip(b"\n"):
                # The standard drops an event without its blank line; servers that forget the last one
                # still mean it.
                self._events(data.rstrip(b"\n") + b"\n\n", now_ns)
        exchange = self.exchange
        if exchange.finish_reason is None:
            if not exchange.chunks:
                raise Failed(
                    Outcome.PROTOCOL_ERROR, "empty answer: a stream without a chunk or a finish reason"
                )
            if not self.done:
                raise Failed(
                    Outcome.STREAM_CUT,
                    f"the stream ended after {exchange.chunks} chunks, without finish reason or [DONE]",
                )

    def _grown(self, size: int) -> None:
        self.size += size
        if self.size > MAX_EVENT:
            raise Failed(Outcome.PROTOCOL_ERROR, f"one event of more than {MAX_EVENT} bytes")

    def _events(self, data: bytes, now_ns: int) -> None:
        """Complete events, with line feeds only."""
        at, end = 0, len(data)
        runs = True
        while at < end:
            if runs and self.after and data.startswith(self.prefix, at):
                stop = self._run(data, at, now_ns)
                if stop:
                    at = stop
                    continue
                runs = False  # one text with an escape in it spoils the run: look at each event
            stop = data.find(b"\n\n", at) + 2
            if stop < at:  # one line feed is left of three: an empty line
                return
            event = data[at:stop]
            at = stop
            if (
                self.after
                and event.endswith(self.suffix)
                and event.startswith(self.prefix)
                and _TEXT(event, self.before, len(event) - self.after)
            ):
                self._count(1, now_ns)
                continue
            self._slow(event, now_ns)

    def _run(self, data: bytes, at: int, now_ns: int) -> int:
        """Counts the chunks from `at` to the last one of its kind in `data` and returns where they end;
        0 if that cannot be said without looking at each.

        Exact, not a guess: the run begins with the prefix, ends with the suffix and holds n − 1 seams,
        which leaves n texts. 2n line feeds are all in suffixes, and no quote beyond those of the
        prefixes and suffixes and no backslash leave each text one plain string. No text is empty.
        """
        suffix = self.suffix
        last = data.rfind(self.seam, at)
        stop = data.find(suffix, at + len(self.prefix) if last < 0 else last + len(self.seam))
        if stop < 0:
            return 0
        stop += len(suffix)
        feeds = data.count(b"\n", at, stop)
        n = feeds >> 1
        if (
            feeds & 1
            or data.count(b'"', at, stop) != n * self.quotes
            or data.find(b"\\", at, stop) >= 0
            or data.find(self.empty, at, stop) >= 0
            or data.count(self.seam, at, stop) != n - 1
        ):
            return 0
        self._count(n, now_ns)
        return stop

    def _count(self, n: int, now_ns: int) -> None:
        exchange = self.exchange
        if exchange.first_token_ns is None:
            exchange.first_token_ns = now_ns
            if self.record:
                exchange.chunk_ns = array("q")
        exchange.last_token_ns = now_ns
        exchange.chunks += n
        stamps = exchange.chunk_ns
        if stamps is not None:
            if n == 1:
                stamps.append(now_ns)
            else:
                stamps.extend(array("q", (now_ns,)) * n)

    def _slow(self, event: bytes, now_ns: int) -> None:
        """One event that is not just another chunk: known but for its id, or to be parsed.

        An id of plain characters can be any other without the event meaning anything else, so what
        follows it decides.
        """
        if event == _DONE:
            self.begun = self.done = True
            return
        rest = b""
        if event.startswith(_ID):
            self.begun = True
            close = event.find(b'"', len(_ID))
            if _PLAIN(event, len(_ID), max(close, 0)):
                rest = event[close:]
                shapes = self.shapes
                if not self.after and shapes.suffix:
                    self._expect(event[:close] + shapes.prefix, shapes.suffix)
                    if rest.startswith(shapes.prefix) and rest.endswith(shapes.suffix):
                        self._events(event, now_ns)
                        return
                said = shapes.known.get(rest)
                if said is not None:
                    self._heard(said, now_ns)
                    return
        name, lines = b"", []
        if not self.begun:
            self.begun = True
            event = event.removeprefix(b"\xef\xbb\xbf")  # a byte order mark, allowed once
        for line in event.split(b"\n"):
            field, _, value = line.partition(b":")
            if field == b"data":
                lines.append(value[1:] if value[:1] == b" " else value)
            elif field == b"event":
                name = value.strip()
        payload = b"\n".join(lines).strip()
        if not payload:
            return
        if payload == b"[DONE]":
            self.done = True
            return
        try:
            answer = decode(payload)
        except ValueError:
            words = tidy(payload[:200].decode("utf-8", "replace"))
            if name == b"error":
                raise Failed(Outcome.STREAM_CUT, f"the server said: {words}") from None
            raise Failed(Outcome.PROTOCOL_ERROR, f"an event that is not JSON: {words}") from None
        said = meaning(answer)
        if said.error is not None or name == b"error":
            words = said.error or tidy(payload[:1200].decode("utf-8", "replace"))
            raise Failed(Outcome.STREAM_CUT, f"the server said: {words}")
        self._heard(said, now_ns)
        if said.content:
            if said.usage is None and said.finish_reason is None:
                self._learn(event, answer)
        elif rest:
            self.shapes.remember(rest, said)

    def _heard(self, said: Meaning, now_ns: int) -> None:
        exchange = self.exchange
        if said.usage is not None:
            exchange.prompt_tokens, exchange.output_tokens = said.usage
        if said.finish_reason is not None:
            exchange.finish_reason = said.finish_reason
        if said.content:
            self._count(1, now_ns)

    def _learn(self, event: bytes, answer: dict[str, object]) -> None:
        """Keeps prefix and suffix of a pure content event, if it is certain which string is the text.

        Without a backslash in the event each quote opens or closes a string. So if just one content key
        is written in it, and the one choice holds one filled string of that value under such a key,
        that string is the text, and with another text the event would mean the same.
        """
        keys = _KEY.findall(event)
        if len(keys) != 1 or b"\\" in event or event.count(b"\n") != 2 or not event.startswith(b"data:"):
            return
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != 1:
            return
        choice = choices[0]
        holder = choice.get("delta", choice)
        key = keys[0].split(b'"')[1]
        if not isinstance(holder, dict) or event.count(b'"' + key + b'"') != 1:
            return
        begin = event.index(keys[0]) + len(keys[0])
        close = event.index(b'"', begin)
        if holder.get(key.decode()) != event[begin:close].decode("utf-8", "replace"):
            return
        # With the text gone nothing else may make the event a chunk.
        rest = {k: v for k, v in holder.items() if k != key.decode()}
        if meaning({"choices": [rest if holder is choice else {**choice, "delta": rest}]}).content:
            return
        self._expect(event[:begin], event[close:])
        if event.startswith(_ID):
            end = event.index(b'"', len(_ID))
            if end < begin:
                self.shapes.prefix, self.shapes.suffix = event[end:begin], event[close:]

    def _expect(self, prefix: bytes, suffix: bytes) -> None:
        """From now on this is what a chunk begins and ends with."""
        self.prefix, self.suffix = prefix, suffix
        self.before, self.after = len(prefix), len(suffix)
        self.seam, self.empty = suffix + prefix, prefix + suffix
        self.quotes = self.empty.count(b'"')

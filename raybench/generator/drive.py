"""One slice of a schedule, driven on one event loop in the calling thread.

The loop thread sends, reads and notes; nothing else. What could hold it up is kept away from it:

* Bodies are rendered before the run or by a thread ahead of it (`bodies`).
* Rows become Arrow batches on a writer thread (`recorder`); the interpreter lock changes hands
  within `SWITCH_S` instead of Python's 5 ms.
* The garbage collector is off. What exists at the start is frozen, an exchange leaves no cycle behind,
  and the few cycles that rare paths leave (a failed connection's traceback) are collected once a
  second, young generations only, when no row is due for `GC_ROOM_NS`.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import resource
import sys
import threading
from bisect import bisect_left
from collections import deque
from pathlib import Path
from time import monotonic_ns, thread_time_ns

import numpy as np
import uvloop

from raybench.client import Client, Exchange, Prepared
from raybench.generator import dispatch
from raybench.generator.bodies import Ready, prepared
from raybench.generator.dispatch import CappedSender, ClosedSender, OpenSender
from raybench.generator.progress import Lateness, Progress
from raybench.generator.recorder import Rows, Writer
from raybench.generator.slice import Sink, Slice
from raybench.schema import LoadKind, Outcome, Schedule

RECENT = 500
SWITCH_S = 0.0005
GC_ROOM_NS = 20_000_000
HARD_WAIT_S = 2.0
SOCKETS = 2**13
"""Files that a generator may have open before their table grows during the load."""


class Drive:
    """Drives one slice, once. `run` blocks; `stop` and `progress` are for other threads."""

    def __init__(self, slice: Slice, sink: Sink) -> None:
        self._slice = slice
        self._sink = sink
        self._planned = slice.schedule.num_rows
        self._left = self._planned  # rows not yet accounted for
        self._sent = 0
        self._outcomes: dict[str, int] = {}
        self._lateness = Lateness()
        self._recent: deque[tuple[int | None, int]] = deque(maxlen=RECENT)
        self._rows = Rows()
        self._problems: list[str] = []
        self._lock = threading.Lock()  # guards the three flags below against `stop` from outside
        self._stopping = self._hard = self._finished = False
        self._gave_up = False  # the rest of the rows will not be sent
        self._loop: uvloop.Loop | None = None
        self._client: Client | None = None
        self._writer: Writer | None = None
        self._bodies: Ready | None = None

    def run(self, t0_ns: int) -> Progress:
        """Sends each row at t0_ns + scheduled_ns on this process's monotonic clock and returns when
        every row is accounted for and written. Instants in the tables count from t0_ns."""
        if self._loop is not None:
            raise RuntimeError("a Drive runs once")
        slice = self._slice
        columns = slice.schedule
        self._ids = columns.column(Schedule.request_id).to_numpy().data
        self._bodies = prepared(slice.bodies, columns)
        self._writer = writer = Writer(slice, self._sink, t0_ns)
        loop = uvloop.new_event_loop()
        self._client = client = Client(
            slice.endpoints,
            timeout_s=slice.timeout_s,
            loop=loop,
            record_chunks=slice.record_chunks,
            run_prefix=slice.run_prefix,
            ahead=slice.load_kind is not LoadKind.CLOSED,
        )
        self._taken = bytearray(self._planned)  # 1 for a row that was sent, or could not be made
        self._sender = self._make_sender(loop, client, t0_ns)
        self._t0_ns = t0_ns
        make_room_for_sockets()
        switch_s = sys.getswitchinterval()
        collecting = gc.isenabled()
        sys.setswitchinterval(SWITCH_S)
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            loop.call_soon(self._begin)
            with self._lock:
                self._loop = loop
            loop.run_forever()
        finally:
            # Reached early only by an exception out of the loop, such as KeyboardInterrupt.
            if self._left:
                self._halt("the generator was interrupted")
            self._close(loop)
            gc.unfreeze()
            if collecting:
                gc.enable()
            sys.setswitchinterval(switch_s)
            writer.close(HARD_WAIT_S if self._hard else None)
            self._finished = True
        return self.progress()

    def stop(self, hard: bool = False) -> None:
        """Ends the run from any thread: nothing more is sent, what is in flight is cancelled, the rest
        is not_sent, all of it is written. With `hard`, writing may take `HARD_WAIT_S` at most."""
        with self._lock:
            self._stopping = True
            self._hard = self._hard or hard
            loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._halt, "the run was interrupted")
            except RuntimeError:  # closed: the run is over
                return

    def progress(self) -> Progress:
        """A snapshot, from any thread, in some 50 µs."""
        client, writer, late = self._client, self._writer, self._lateness
        recent = list(self._recent)
        ttfts = sorted(ttft for ttft, _ in recent if ttft is not None)
        ends = sorted(end for _, end in recent)
        problems = list(self._problems) + (list(writer.problems) if writer is not None else [])
        if self._bodies is not None and self._bodies.waited:
            problems.append(f"{self._bodies.waited} requests waited for their body to be rendered")
        return Progress(
            planned=self._planned,
            sent=self._sent,
            in_flight=client.in_flight if client is not None else 0,
            outcomes=dict(self._outcomes),
            lateness_p50_ns=late.quantile(0.5),
            lateness_p99_ns=late.quantile(0.99),
            lateness_max_ns=late.max_ns,
            ttft_p50_ns=ttfts[(len(ttfts) - 1) // 2] if ttfts else None,
            e2e_p50_ns=ends[(len(ends) - 1) // 2] if ends else None,
            finished=self._finished,
            problems=tuple(problems),
        )

    # --- on the loop ------------------------------------------------------------------------------

    def _make_sender(self, loop: uvloop.Loop, client: Client, t0_ns: int) -> OpenSender | ClosedSender:
        slice = self._slice
        self._plan = plan = dispatch.Rows(slice.schedule, t0_ns, slice.load_end_ns)
        launch = dispatch.Launch(self._prepare, self._write)
        if slice.load_kind is LoadKind.CLOSED:
            return ClosedSender(loop, client, launch, plan, slice.concurrency or 1)
        if slice.load_kind is LoadKind.CAPPED:
            return CappedSender(loop, client, launch, plan, slice.max_in_flight or 1)
        return OpenSender(loop, client, launch, plan)

    def _begin(self) -> None:
        assert self._loop is not None and self._client is not None
        self._cpu_ns, self._wall_ns = thread_time_ns(), monotonic_ns()
        self._ticking = self._loop.call_later(self._slice.sample_period_s, self._tick)
        if self._stopping:
            self._halt("the run was interrupted")
        elif not self._left:
            self._loop.stop()
        else:
            for row in self._plan.orphans.tolist():
                self._taken[row] = 1
            self._not_sent(self._plan.orphans, "the turn before it is not this generator's")
            if self._slice.load_kind is not LoadKind.CLOSED:
                self._client.warm()
            self._sender.start()
            if self._slice.load_kind is not LoadKind.OPEN and self._slice.load_end_ns is not None:
                left_ns = self._t0_ns + self._slice.load_end_ns - monotonic_ns()
                self._loop.call_later(max(left_ns, 0) / 1e9 + 0.001, self._load_ended)

    def _prepare(self, row: int, anchor_ns: int | None) -> Prepared | None:
        """Of the dispatch path what can be done before the instant; None if there is no body to send."""
        assert self._client is not None and self._bodies is not None
        try:
            body = self._bodies.take(row)
        except Exception as error:
            self._taken[row] = 1
            self._unrendered(row, error)
            return None
        return self._client.prepare(self._ids[row], body, self._ended, anchor_ns)

    def _write(self, row: int, prepared: Prepared) -> None:
        """The rest of the dispatch path: a write and a note."""
        assert self._client is not None
        self._taken[row] = 1
        self._client.write(prepared)
        self._sent += 1
        exchange = prepared.exchange
        if exchange.anchor_ns is not None:
            self._lateness.add(exchange.sent_ns - exchange.anchor_ns)

    def _ended(self, exchange: Exchange) -> None:
        """One exchange is over: note it, give its place away, see whether it was the last."""
        self._rows.add(exchange)
        outcomes = self._outcomes
        outcomes[exchange.outcome] = outcomes.get(exchange.outcome, 0) + 1
        done_ns = exchange.done_ns
        assert done_ns is not None
        if exchange.outcome is Outcome.OK:
            begun_ns = exchange.anchor_ns or exchange.sent_ns
            first_ns = exchange.first_token_ns
            self._recent.append((None if first_ns is None else first_ns - begun_ns, done_ns - begun_ns))
        self._left -= 1
        # Which row it was matters only to a conversation, and only then is looked for.
        row = bisect_left(self._ids, exchange.request_id) if self._plan.has_turns else -1
        self._sender.ended(row, done_ns)
        if not self._left and self._loop is not None:
            self._loop.stop()

    def _unrendered(self, row: int, error: Exception) -> None:
        reason = f"the request body could not be made: {type(error).__name__}: {error}"[:300]
        if not self._problems:
            self._problems.append(reason)
        self._not_sent(np.array([row]), reason)
        if self._loop is not None:
            # Not from within: a sender may be in the middle of its rows.
            self._loop.call_soon(self._sender.ended, row, monotonic_ns())

    def _not_sent(self, rows: np.ndarray, reason: str) -> None:
        assert self._writer is not None
        if not len(rows):
            return
        self._writer.not_sent(rows, reason)
        self._outcomes[Outcome.NOT_SENT] = self._outcomes.get(Outcome.NOT_SENT, 0) + len(rows)
        self._left -= len(rows)
        if not self._left and self._loop is not None:
            self._loop.stop()

    def _load_ended(self) -> None:
        """The end of a capped client's or closed loop's load: what has no place now gets none."""
        self._give_up_rest("still waiting when the load ended")

    def _halt(self, reason: str) -> None:
        assert self._client is not None
        self._give_up_rest(reason)
        self._client.cancel()

    def _give_up_rest(self, reason: str) -> None:
        if self._gave_up:
            return
        self._gave_up = True
        self._sender.stop()
        self._not_sent(np.flatnonzero(np.frombuffer(self._taken, np.int8) == 0), reason)

    def _tick(self) -> None:
        """Once a period: hand the rows over, sample this generator, collect garbage if there is room."""
        assert self._loop is not None
        self._ticking = self._loop.call_later(self._slice.sample_period_s, self._tick)
        self._hand_over()
        self._slice.passed(self._sender.passed)
        if self._sender.idle_ns > GC_ROOM_NS:
            gc.collect(1)

    def _hand_over(self) -> None:
        assert self._writer is not None and self._client is not None
        rows, self._rows = self._rows, Rows()
        self._writer.rows(rows)
        cpu_ns, wall_ns = thread_time_ns(), monotonic_ns()
        ratio = (cpu_ns - self._cpu_ns) / max(wall_ns - self._wall_ns, 1)
        self._cpu_ns, self._wall_ns = cpu_ns, wall_ns
        self._writer.sample(
            wall_ns, ratio, rss_bytes(), self._client.in_flight, self._lateness.take_interval()
        )

    def _close(self, loop: uvloop.Loop) -> None:
        """Writes the last rows and gives sockets, timers and threads back."""
        assert self._client is not None and self._bodies is not None
        self._hand_over()
        self._bodies.close()
        if not self._gave_up:
            self._gave_up = True
            self._sender.stop()
        self._client.close()
        self._ticking.cancel()
        loop.call_later(0.0, loop.stop)  # a turn for the sockets to close in
        loop.run_forever()
        loop.close()


def make_room_for_sockets() -> None:
    """Grows this process's table of files once, before the load, if the limit allows. Linux doubles it as
    it fills and, with several threads, waits for all processors each time: 5 ms and more, inside a `socket`
    or an `accept`, were seen of a server."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError), Path(os.devnull).open() as any_file:
        os.close(fcntl.fcntl(any_file, fcntl.F_DUPFD_CLOEXEC, min(limit, SOCKETS) - 1))


_PAGE = os.sysconf("SC_PAGE_SIZE")


def rss_bytes() -> int:
    """Resident memory of this process; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0

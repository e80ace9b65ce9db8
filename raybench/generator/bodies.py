"""Request bodies, ready before their instant. None is ever built on the dispatch path if it can be helped.

Few distinct bodies (the usual benchmark: one prompt) are rendered before the run. A data set is
rendered by a thread that keeps a bounded number of bodies and bytes ahead of the sender.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from raybench.generator.slice import Bodies, values_of
from raybench.schema import Schedule

FEW = 1024  # distinct bodies rendered before the run
AHEAD = 2048  # rows rendered ahead of the sender
AHEAD_BYTES = 64 * 2**20


_LOOK = 2**16  # rows looked at together


class Keys:
    """What each row's body depends on: its prompt and the limit on its answer, -1 for none. No copy."""

    def __init__(self, schedule: pa.Table) -> None:
        self.prompts = schedule.column(Schedule.prompt_id).to_numpy()
        self.limits = values_of(schedule, Schedule.max_tokens, -1)

    def few(self) -> list[tuple[int, int]] | None:
        """The distinct ones; None if they are more than `FEW`."""
        found: set[tuple[int, int]] = set()
        for begin in range(0, len(self.prompts), _LOOK):
            prompts, limits = self.prompts[begin : begin + _LOOK], self.limits[begin : begin + _LOOK]
            both = np.unique((prompts.astype(np.int64) << 32) + limits + 1)
            if len(both) > FEW:
                return None
            found.update(zip((both >> 32).tolist(), ((both & 0xFFFFFFFF) - 1).tolist(), strict=True))
            if len(found) > FEW:
                return None
        return list(found)

    def render(self, render: Bodies, row: int) -> bytes:
        return _render(render, int(self.prompts[row]), int(self.limits[row]))


def _render(render: Bodies, prompt: int, limit: int) -> bytes:
    return render(prompt, limit if limit >= 0 else None)


class Rendered:
    """Every distinct body in memory; `take` is an index and a lookup."""

    waited = 0

    def __init__(self, render: Bodies, keys: Keys, distinct: list[tuple[int, int]]) -> None:
        self._bodies = {key: _render(render, *key) for key in distinct}
        self._prompts, self._limits = keys.prompts.data, keys.limits.data

    def take(self, row: int) -> bytes:
        return self._bodies[self._prompts[row], self._limits[row]]

    def close(self) -> None:
        """Nothing to end."""


class LookAhead:
    """Bodies of `rows` rendered in order by a thread, a bounded stretch ahead, and taken in that order.

    A row taken before it is rendered waits for it (`waited` counts them): the request is then late,
    and its lateness says so.
    """

    def __init__(self, render: Bodies, keys: Keys, rows: Sequence[int]) -> None:
        self._keys = keys
        self._rows = rows
        self._render = render
        self._ready: deque[bytes | Exception] = deque()
        self._made_bytes = 0  # written by the thread only
        self._taken_bytes = 0  # written by the sender only
        self._changed = threading.Condition()
        self._closed = False
        self.waited = 0
        self._thread = threading.Thread(target=self._run, name="raybench-bodies", daemon=True)
        self._thread.start()
        with self._changed:  # the first rows are due soon after the start
            self._changed.wait_for(lambda: len(self._ready) >= min(64, len(rows)))

    def take(self, row: int) -> bytes:
        if not self._ready:
            self.waited += 1
            with self._changed:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._ready)
        body = self._ready.popleft()
        if isinstance(body, Exception):
            raise body
        self._taken_bytes += len(body)
        if len(self._ready) == AHEAD // 2:  # seldom: waking the thread costs more than a body
            with self._changed:
                self._changed.notify_all()
        return body

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _full(self) -> bool:
        ahead = len(self._ready)
        return ahead >= AHEAD or (ahead >= 64 and self._made_bytes - self._taken_bytes >= AHEAD_BYTES)

    def _run(self) -> None:
        for row in self._rows:
            with self._changed:
                while self._full() and not self._closed:
                    self._changed.wait(0.05)
            if self._closed:
                return
            body: bytes | Exception
            try:
                body = self._keys.render(self._render, row)
                self._made_bytes += len(body)
            except Exception as error:
                body = error
            self._ready.append(body)
            if len(self._ready) <= 64:
                with self._changed:
                    self._changed.notify_all()


class Conversing:
    """Bodies of conversations: first turns ahead and in order, a later turn's as soon as the one before it
    was taken, so while that is being answered."""

    def __init__(self, render: Bodies, keys: Keys, later: np.ndarray) -> None:
        self._render, self._keys = render, keys
        self._later = np.append(later, False).data
        self._firsts = LookAhead(render, keys, np.flatnonzero(~later).data)
        self._thread = ThreadPoolExecutor(1, "raybench-bodies-later")
        self._coming: dict[int, Future[bytes]] = {}

    @property
    def waited(self) -> int:
        return self._firsts.waited

    def take(self, row: int) -> bytes:
        if self._later[row + 1]:
            self._coming[row + 1] = self._thread.submit(self._keys.render, self._render, row + 1)
        if self._later[row]:
            return self._coming.pop(row).result()
        return self._firsts.take(row)

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._firsts.close()


Ready = Rendered | LookAhead | Conversing


def prepared(render: Bodies, schedule: pa.Table) -> Ready:
    """Bodies for a slice: all of them now if they are few, else a stretch ahead."""
    keys = Keys(schedule)
    distinct = keys.few()
    if distinct is not None:
        return Rendered(render, keys, distinct)
    later = values_of(schedule, Schedule.turn, 0) > 0
    if later.any():
        return Conversing(render, keys, later)
    return LookAhead(render, keys, range(schedule.num_rows))

"""One engine in virtual time: `engine_model.Batch` without the steps at which nothing happens.

As long as nobody enters or leaves, each step has the same b sequences and b more tokens in the cache than
the one before. So k steps that begin with K tokens in the cache and p seconds of prefill take

    T(k) = p + k c + g k (k - 1) / 2        c = step_s(b, 0, K),  g = step_per_kv_token_s x b

and the next step at which something happens of itself is known: the sequence with the fewest tokens left
ends, or the cache is full. Whoever arrives or leaves in between does so at the end of the step under way,
the least k with T(k) not before that instant:

    k = ceil(2 (t - p) / (h + sqrt(h^2 + 2 g (t - p))))        h = c - g / 2

There a new stretch of equal steps begins. It is worked out at once, before it begins: until then, others may
join it. Instants are integer nanoseconds since t0. A test holds every token's instant against `Batch`.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from math import sqrt

import numpy as np
import numpy.typing as npt

from raybench.engine_model import EngineModel

Ints = npt.NDArray[np.int64]

NEVER = 2**62
NS = 1_000_000_000


class History:
    """The stretches of steps that one engine went through: enough to say when each token came."""

    __slots__ = ("constant_ns", "growth_ns", "prefill_ns", "step", "stints", "t_ns")

    def __init__(self) -> None:
        self.stints: dict[int, list[tuple[int, int]]] = {}
        """Of what was preempted: after which steps, and with how many tokens by then."""
        self.step, self.t_ns = array("q"), array("q")
        self.prefill_ns, self.constant_ns, self.growth_ns = array("d"), array("d"), array("d")

    def add(self, step: int, t_ns: int, prefill_ns: float, constant_ns: float, growth_ns: float) -> None:
        """A stretch that begins after `step` steps; in place of the last one, where that never had a step."""
        if self.step and self.step[-1] == step:
            for column in (self.step, self.t_ns, self.prefill_ns, self.constant_ns, self.growth_ns):
                column.pop()
        self.step.append(step)
        self.t_ns.append(t_ns)
        self.prefill_ns.append(prefill_ns)
        self.constant_ns.append(constant_ns)
        self.growth_ns.append(growth_ns)

    def steps(self, sequence: int, output_tokens: int, last_step: int) -> Ints:
        """The steps that gave this sequence its tokens, in order. `last_step` is that of its last token, as
        planned when it was admitted last; -1 where it waits.
        """
        parts, before = [], 0
        for step, emitted in self.stints.get(sequence, ()):
            parts.append(np.arange(step - emitted + before, step) + 1)
            before = emitted
        if last_step >= 0:
            parts.append(np.arange(last_step - output_tokens + before, last_step) + 1)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def ends_ns(self, steps: Ints) -> Ints:
        """When each of these steps ended."""
        where = np.searchsorted(np.frombuffer(self.step, np.int64), steps, side="left") - 1
        begun = np.frombuffer(self.step, np.int64)[where]
        prefill, constant, growth = (
            np.frombuffer(column, np.float64)[where]
            for column in (self.prefill_ns, self.constant_ns, self.growth_ns)
        )
        k = steps - begun
        passed = prefill + k * (constant + growth * (k - 1) * 0.5)
        return np.asarray(np.frombuffer(self.t_ns, np.int64)[where] + passed.astype(np.int64))


class Engine:
    """Sequences are numbers into `prompt` and `output` (tokens); `first_ns` is told when each first token
    comes, or would. `due_ns` is when `boundary` is to be called next, `NEVER` while there is nothing to do;
    any other call may change it.
    """

    __slots__ = (
        "_cache", "_constant_ns", "_emitted", "_finishing", "_first_ns", "_fresh", "_gone_kv",
        "_growth_ns", "_history", "_kv", "_order", "_output", "_per_kv_ns", "_per_prefill_ns",
        "_prefill", "_prefill_ns", "_prompt", "_running", "_size", "_sized_ns", "_slots", "_steps",
        "_t_ns", "_waiting", "due_ns", "model", "preemptions", "step",
    )  # fmt: skip

    def __init__(
        self,
        model: EngineModel,
        prompt: Sequence[int],
        output: Sequence[int],
        first_ns: array[int],
        history: History | None = None,
    ) -> None:
        self.model = model
        self._prompt, self._output, self._first_ns = prompt, output, first_ns
        self._history = history
        base_ns, per_sequence_ns = model.step_base_s * NS, model.step_per_sequence_s * NS
        # A step of b sequences and an empty cache.
        self._sized_ns = [base_ns + per_sequence_ns * (b - 1) for b in range(model.slots + 1)]
        self._per_kv_ns = model.step_per_kv_token_s * NS
        self._per_prefill_ns = NS / model.prefill_tokens_per_s
        self._slots, self._cache = model.slots, model.kv_cache_tokens
        self._waiting: deque[int] = deque()
        self._running: dict[int, int] = {}  # sequence -> the step of its last token; oldest first
        self._finishing: list[tuple[int, int, int]] = []  # heap: that step, order of admission, sequence
        self._emitted: dict[int, int] = {}  # tokens so far of what was preempted
        self._order = self.preemptions = 0
        # the stretch of equal steps that was worked out last
        self._t_ns = 0  # when it begins
        self.step = 0  # steps done by then
        self._steps = 0  # its steps until `due_ns`
        self._size = 0  # sequences in each of them
        self._kv = 0  # tokens in the cache at its beginning
        self._gone_kv = 0  # what leaves the cache at `due_ns` because it was aborted
        self._prefill = 0  # tokens to prefill in its first step
        self._fresh: list[int] = []  # whose first token comes with that step
        self._prefill_ns = self._constant_ns = self._growth_ns = 0.0
        self.due_ns = NEVER

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def submit(self, sequence: int, t_ns: int) -> None:
        """Puts it at the end of the engine's queue: it is admitted at the end of the step under way."""
        if self._waiting:
            self._waiting.append(sequence)  # for room in the cache
            return
        if self._size:
            if not self._stop_after_step(t_ns):
                self._waiting.append(sequence)
                return
        elif t_ns > self._t_ns:
            self._t_ns = t_ns
            self._prefill = 0
            self._fresh = []
        size, tokens = self._size, self._prompt[sequence]
        if size >= self._slots or self._kv + tokens + size + 1 > self._cache:
            self._waiting.append(sequence)
        else:
            self._running[sequence] = last_step = self.step + self._output[sequence]
            self._order += 1
            heappush(self._finishing, (last_step, self._order, sequence))
            self._kv += tokens
            self._prefill += tokens
            self._size = size + 1
            self._fresh.append(sequence)
        self._set_out()

    def abort(self, sequence: int, t_ns: int) -> None:
        """Takes it out: at once from the engine's queue, from the next step on out of the batch."""
        last_step = self._running.get(sequence)
        if last_step is None:
            self._waiting.remove(sequence)
            self._emitted.pop(sequence, None)
            if self._waiting and self._stop_after_step(t_ns):  # those behind it may fit
                self._admit()
                self._set_out()
            return
        early = self._stop_after_step(t_ns)
        del self._running[sequence]
        kept = self._prompt[sequence] + self._output[sequence] - last_step
        if not early:
            self._gone_kv += kept + self.step + self._steps
            return
        if sequence in self._fresh:  # it never began
            self._fresh.remove(sequence)
            self._prefill -= self._prompt[sequence]
        self._kv -= kept + self.step
        self._size -= 1
        self._admit()
        self._set_out()

    def tokens(self, sequence: int, t_ns: int) -> int:
        """How many it has been given by `t_ns`."""
        last_step = self._running.get(sequence)
        if last_step is None:
            return self._emitted.get(sequence, 0)
        done = self.step + self._done_steps(t_ns) if t_ns >= self._t_ns else self.step - 1
        return max(0, self._output[sequence] - last_step + done)

    def kv_usage(self, t_ns: int) -> float:
        """The share of the cache in use, from 0 to 1; that of the next step in the one before a change."""
        return (self._kv + self._size * self._done_steps(t_ns)) / self._cache

    def last_step(self, sequence: int) -> int:
        """The step of its last token, or -1 where it waits."""
        return self._running.get(sequence, -1)

    def boundary(self) -> list[int]:
        """What happens at `due_ns`: sequences end, whose numbers are returned, others enter."""
        prompt, output, running = self._prompt, self._output, self._running
        self.step = step = self.step + self._steps
        kv = self._kv + self._steps * self._size
        if self._gone_kv:
            kv -= self._gone_kv
            self._gone_kv = 0
        ended: list[int] = []
        finishing = self._finishing
        while finishing and finishing[0][0] <= step:
            last_step, _, sequence = heappop(finishing)
            if running.get(sequence) == last_step:  # else it was aborted or preempted
                del running[sequence]
                kv -= prompt[sequence] + output[sequence]
                ended.append(sequence)
        self._t_ns = self.due_ns
        self._kv, self._size = kv, len(running)
        self._prefill = 0
        self._fresh = []
        if kv + self._size > self._cache:
            self._make_room()
        if self._waiting:
            self._admit()
        self._set_out()
        return ended

    def _make_room(self) -> None:
        """The youngest go back to the front of the queue while the cache cannot take a token of each."""
        running = self._running
        while len(running) > 1 and self._kv + len(running) > self._cache:
            sequence, last_step = running.popitem()
            emitted = self._output[sequence] - last_step + self.step
            self._kv -= self._prompt[sequence] + emitted
            self._emitted[sequence] = emitted
            self._waiting.appendleft(sequence)
            self.preemptions += 1
            if self._history is not None:
                self._history.stints.setdefault(sequence, []).append((self.step, emitted))
        self._size = len(running)

    def _admit(self) -> None:
        """Lets sequences in, strictly in their order, while a slot is free and the prompt fits the cache."""
        waiting = self._waiting
        while waiting and self._size < self._slots:
            sequence = waiting[0]
            emitted = self._emitted.get(sequence, 0)
            tokens = self._prompt[sequence] + emitted
            if self._kv + tokens + self._size + 1 > self._cache:
                return
            waiting.popleft()
            if emitted:
                del self._emitted[sequence]
            else:
                self._fresh.append(sequence)
            self._running[sequence] = last_step = self.step + self._output[sequence] - emitted
            self._order += 1
            heappush(self._finishing, (last_step, self._order, sequence))
            self._kv += tokens
            self._prefill += tokens
            self._size += 1

    def _set_out(self) -> None:
        """Works out the stretch that begins at `_t_ns`, and when it ends of itself."""
        size, t_ns = self._size, self._t_ns
        if not size:
            self.due_ns = NEVER
            return
        kv = self._kv
        self._growth_ns = growth_ns = self._per_kv_ns * size
        self._constant_ns = constant_ns = self._sized_ns[size] + self._per_kv_ns * kv
        prefill_ns = 0.0
        if self._prefill:
            prefill_ns = self._prefill * self._per_prefill_ns
            first_ns, at_ns = self._first_ns, t_ns + int(prefill_ns + constant_ns)
            for sequence in self._fresh:
                first_ns[sequence] = at_ns
        self._prefill_ns = prefill_ns
        finishing, running = self._finishing, self._running
        last_step, _, sequence = finishing[0]
        while running.get(sequence) != last_step:
            heappop(finishing)
            last_step, _, sequence = finishing[0]
        steps = last_step - self.step
        if size > 1:
            until_full = (self._cache - kv) // size
            if until_full < steps:
                steps = until_full
        self._steps = steps
        self.due_ns = t_ns + int(prefill_ns + steps * (constant_ns + growth_ns * (steps - 1) * 0.5))
        if self._history is not None:
            self._history.add(self.step, t_ns, prefill_ns, constant_ns, growth_ns)

    def _stop_after_step(self, t_ns: int) -> bool:
        """Lets the present stretch end with the step under way at `t_ns`, and a new one begin there. False
        where it ends there anyway: `boundary` will see to it. A stretch that has not begun goes on as it is.
        """
        begun_ns = t_ns - self._t_ns
        if begun_ns <= 0:
            return True
        constant_ns, growth_ns = self._constant_ns, self._growth_ns
        steps = 1
        gone_ns = begun_ns - self._prefill_ns
        if gone_ns > constant_ns:
            half = constant_ns - growth_ns * 0.5
            # One more than have ended before; a billionth of a step is no time.
            steps += int(2.0 * gone_ns / (half + sqrt(half * half + 2.0 * growth_ns * gone_ns)) - 1e-9)
        if steps >= self._steps:
            return False
        end_ns = self._t_ns + int(self._prefill_ns + steps * (constant_ns + growth_ns * (steps - 1) * 0.5))
        self.step += steps
        self._kv += steps * self._size
        self._t_ns = end_ns
        self._prefill = 0
        self._fresh = []
        return True

    def _end_ns(self, steps: int) -> int:
        """When that many steps of the present stretch are done."""
        each_ns = self._constant_ns + self._growth_ns * (steps - 1) * 0.5
        return self._t_ns + int(self._prefill_ns + steps * each_ns)

    def _done_steps(self, t_ns: int) -> int:
        """Steps of the present stretch that have ended by `t_ns`."""
        gone_ns = t_ns - self._t_ns - self._prefill_ns
        if not self._size or gone_ns < self._constant_ns - 1:
            return 0
        half = self._constant_ns - self._growth_ns * 0.5
        steps = int(2 * gone_ns / (half + sqrt(half * half + 2 * self._growth_ns * gone_ns)))
        while steps < self._steps and self._end_ns(steps + 1) <= t_ns:
            steps += 1
        while steps and (steps > self._steps or self._end_ns(steps) > t_ns):
            steps -= 1
        return steps

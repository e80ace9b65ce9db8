"""One engine in virtual time: `engine_model.Batch` without the steps at which nothing happens.

As long as nobody enters or leaves, each step has the same b sequences and b more tokens in the cache than
the one before. So k steps that begin with K tokens in the cache and p seconds of prefill take

    T(k) = p + k c + g k (k - 1) / 2        c = step_s(b, 0, K),  g = step_per_kv_token_s x b

and the next step at which something happens is known: the sequence with the fewest tokens left ends, or the
cache is full. An arrival or an abort in between moves it to the end of the step that is under way, the least
k with T(k) not before that instant:

    k = ceil(2 (t - p) / (h + sqrt(h^2 + 2 g (t - p))))        h = c - g / 2

Instants are integer nanoseconds since t0. A test holds every token's instant against `Batch`, step by step.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from math import sqrt

from raybench.engine_model import EngineModel

NEVER = 2**62
NS = 1_000_000_000


class History:
    """The stretches of steps that one engine went through: enough to say when each token came."""

    __slots__ = ("constant_ns", "growth_ns", "prefill_ns", "step", "t_ns")

    def __init__(self) -> None:
        self.step, self.t_ns = array("q"), array("q")
        self.prefill_ns, self.constant_ns, self.growth_ns = array("d"), array("d"), array("d")


class Engine:
    """Sequences are numbers into `prompt` and `output` (tokens); `first_ns` is told when each first token
    comes. `due_ns` is when `boundary` is to be called next, `NEVER` while there is nothing to do.
    """

    __slots__ = (
        "_base_ns", "_cache", "_constant_ns", "_emitted", "_finishing", "_first_ns", "_gone_kv", "_growth_ns",
        "_history", "_in_step", "_kv", "_order", "_output", "_per_kv_ns", "_per_prefill_ns",
        "_per_sequence_ns", "_prefill_ns", "_prompt", "_running", "_slots", "_soon", "_steps",
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
        """`first_ns[i]` must be negative where no token came yet."""
        self.model = model
        self._prompt, self._output, self._first_ns = prompt, output, first_ns
        self._history = history
        self._base_ns = model.step_base_s * NS
        self._per_sequence_ns = model.step_per_sequence_s * NS
        self._per_kv_ns = model.step_per_kv_token_s * NS
        self._per_prefill_ns = NS / model.prefill_tokens_per_s
        self._slots, self._cache = model.slots, model.kv_cache_tokens
        self._waiting: deque[int] = deque()
        self._running: dict[int, int] = {}  # sequence -> the step of its last token; oldest first
        self._finishing: list[tuple[int, int, int]] = []  # heap: that step, order of admission, sequence
        self._emitted: dict[int, int] = {}  # tokens so far of what was preempted
        self._order = self.preemptions = 0
        self.step = 0  # steps done when the present stretch began
        self._t_ns = 0  # when that was
        self._steps = 0  # of this stretch, until `due_ns`
        self._in_step = 0  # sequences in each of its steps
        self._kv = 0  # tokens in the cache at its beginning
        self._gone_kv = 0  # of those, what aborted sequences will have taken by its end
        self._prefill_ns = self._constant_ns = self._growth_ns = 0.0
        self._soon = False  # whether `due_ns` is the end of the step under way
        self.due_ns = NEVER

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def submit(self, sequence: int, t_ns: int) -> None:
        """Puts it at the end of the engine's queue; it is admitted at the end of the step under way."""
        self._waiting.append(sequence)
        if not self._in_step:
            self._t_ns = self.due_ns = t_ns
            self._steps = 0
        elif not self._soon:
            self._hurry(t_ns)

    def abort(self, sequence: int, t_ns: int) -> None:
        """Takes it out: at once from the engine's queue, from the next step on out of the batch."""
        last_step = self._running.pop(sequence, None)
        if last_step is None:
            self._waiting.remove(sequence)
            self._emitted.pop(sequence, None)
            return
        if not self._soon:
            self._hurry(t_ns)
        left = last_step - self.step - self._steps
        self._gone_kv += self._prompt[sequence] + self._output[sequence] - left

    def tokens(self, sequence: int, t_ns: int) -> int:
        """How many it has been given by `t_ns`."""
        last_step = self._running.get(sequence)
        if last_step is None:
            return self._emitted.get(sequence, 0)
        return self._output[sequence] - last_step + self.step + self._done_steps(t_ns)

    def kv_usage(self, t_ns: int) -> float:
        """The share of the cache in use, from 0 to 1."""
        return (self._kv + self._in_step * self._done_steps(t_ns)) / self._cache

    def last_step(self, sequence: int) -> int:
        """The step of its last token, or -1 where it waits."""
        return self._running.get(sequence, -1)

    def boundary(self) -> list[int]:
        """What happens at `due_ns`: sequences end, whose numbers are returned, others enter."""
        t_ns, prompt, output, running = self.due_ns, self._prompt, self._output, self._running
        step = self.step + self._steps
        kv = self._kv + self._steps * self._in_step
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
        size, cache = len(running), self._cache
        while size > 1 and kv + size > cache:
            sequence, last_step = running.popitem()
            emitted = output[sequence] - last_step + step
            kv -= prompt[sequence] + emitted
            self._emitted[sequence] = emitted
            self._waiting.appendleft(sequence)
            self.preemptions += 1
            size -= 1
        prefill, fresh = 0, []
        waiting = self._waiting
        while waiting and size < self._slots:
            sequence = waiting[0]
            emitted = self._emitted.get(sequence, 0) if self._emitted else 0
            tokens = prompt[sequence] + emitted
            if kv + tokens + size + 1 > cache:
                break
            waiting.popleft()
            if emitted:
                del self._emitted[sequence]
            else:
                fresh.append(sequence)
            running[sequence] = last_step = step + output[sequence] - emitted
            self._order += 1
            heappush(finishing, (last_step, self._order, sequence))
            kv += tokens
            prefill += tokens
            size += 1
        self.step, self._t_ns, self._kv, self._in_step, self._soon = step, t_ns, kv, size, False
        if not size:
            self.due_ns = NEVER
            return ended
        growth_ns = self._per_kv_ns * size
        constant_ns = self._base_ns + self._per_sequence_ns * (size - 1) + self._per_kv_ns * kv
        prefill_ns = prefill * self._per_prefill_ns
        self._prefill_ns, self._constant_ns, self._growth_ns = prefill_ns, constant_ns, growth_ns
        if fresh:
            first_ns, at_ns = self._first_ns, t_ns + int(prefill_ns + constant_ns)
            for sequence in fresh:
                first_ns[sequence] = at_ns
        while running.get(finishing[0][2]) != finishing[0][0]:
            heappop(finishing)
        steps = finishing[0][0] - step
        if size > 1:
            until_full = (cache - kv) // size
            if until_full < steps:
                steps = until_full
        self._steps = steps
        self.due_ns = t_ns + int(prefill_ns + steps * (constant_ns + growth_ns * (steps - 1) * 0.5))
        history = self._history
        if history is not None:
            history.step.append(step)
            history.t_ns.append(t_ns)
            history.prefill_ns.append(prefill_ns)
            history.constant_ns.append(constant_ns)
            history.growth_ns.append(growth_ns)
        return ended

    def _hurry(self, t_ns: int) -> None:
        """Moves `due_ns` to the end of the step that is under way at `t_ns`."""
        self._soon = True
        if self._steps == 1:
            return
        gone_ns = t_ns - self._t_ns - self._prefill_ns
        steps = 1
        if gone_ns > self._constant_ns:
            half = self._constant_ns - self._growth_ns * 0.5
            steps = int(2 * gone_ns / (half + sqrt(half * half + 2 * self._growth_ns * gone_ns)))
            steps = max(steps, 1)
            while self._end_ns(steps) < t_ns:
                steps += 1
        if steps < self._steps:
            self._steps = steps
            self.due_ns = self._end_ns(steps)

    def _end_ns(self, steps: int) -> int:
        """When that many steps of the present stretch are done."""
        each_ns = self._constant_ns + self._growth_ns * (steps - 1) * 0.5
        return self._t_ns + int(self._prefill_ns + steps * each_ns)

    def _done_steps(self, t_ns: int) -> int:
        """Steps of the present stretch that have ended by `t_ns`."""
        gone_ns = t_ns - self._t_ns - self._prefill_ns
        if not self._in_step or gone_ns < self._constant_ns - 1:
            return 0
        half = self._constant_ns - self._growth_ns * 0.5
        steps = int(2 * gone_ns / (half + sqrt(half * half + 2 * self._growth_ns * gone_ns)))
        while steps < self._steps and self._end_ns(steps + 1) <= t_ns:
            steps += 1
        while steps and (steps > self._steps or self._end_ns(steps) > t_ns):
            steps -= 1
        return steps

"""The emulated engine: a batch of the engine model, moved on in real time.

Steps end at absolute deadlines, each a step's duration after the one before, so that a late wake-up does not
make the next step late as well: over a whole answer the pace is the model's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from raybench.engine_model import Batch, EngineModel


class EmulatedEngine:
    """Belongs to one event loop: that of `start`."""

    def __init__(self, model: EngineModel) -> None:
        self.model = model
        self._batch: Batch[int] = Batch(model)
        self._tokens: dict[int, asyncio.Queue[None]] = {}
        self._submitted = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Takes the start-up time, then begins to step."""
        await asyncio.sleep(self.model.startup_s)
        self._work = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        if self._task:
            self._task.cancel()

    @property
    def alive(self) -> bool:
        return self._task is not None and not self._task.done()

    async def generate(self, prompt_tokens: int, output_tokens: int) -> AsyncGenerator[int]:
        """Yields 1, 2, … `output_tokens`, each at the instant of its token. Closing frees the slot at once.

        Raises ValueError if the sequence exceeds the context.
        """
        self._submitted += 1
        sequence = self._submitted
        self._batch.submit(sequence, prompt_tokens, output_tokens)
        tokens = self._tokens[sequence] = asyncio.Queue()
        self._work.set()
        try:
            for number in range(1, output_tokens + 1):
                await tokens.get()
                yield number
        finally:
            self._batch.abort(sequence)
            del self._tokens[sequence]

    def stats(self) -> dict[str, float]:
        """What the engine says of itself, under the names of the `replicas` table's columns."""
        return {
            "engine_waiting": float(self._batch.waiting),
            "engine_running": float(self._batch.running),
            "kv_cache_usage": self._batch.kv_usage,
        }

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time()
        while True:
            duration = self._batch.begin()
            if duration is None:
                self._work.clear()
                await self._work.wait()
                deadline = loop.time()
                continue
            deadline += duration
            await asyncio.sleep(max(0.0, deadline - loop.time()))
            for sequence in self._batch.finish().emitted:
                if (tokens := self._tokens.get(sequence)) is not None:
                    tokens.put_nowait(None)

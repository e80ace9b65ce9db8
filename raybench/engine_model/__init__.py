"""The engine model: how long one engine step takes, given the batch and the cache.

`EngineModel` is the arithmetic and its presets, `Batch` continuous batching on top of it. The emulated
engine waits for the times that come out, the simulator adds them up. Pure: no clock, no randomness.
"""

from raybench.engine_model.batch import Batch, Step
from raybench.engine_model.lengths import draw_output_tokens, draw_share
from raybench.engine_model.model import PRESETS, EngineModel, from_scenario

__all__ = ["PRESETS", "Batch", "EngineModel", "Step", "draw_output_tokens", "draw_share", "from_scenario"]

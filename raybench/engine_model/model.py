"""The figures of one engine on one device, and where they come from.

    step_s(b, p, k) = p / prefill_tokens_per_s                    prompts that enter with this step
                    + step_base_s + step_per_sequence_s (b - 1)   one token for each of b sequences
                    + step_per_kv_token_s k                       reading k tokens of cache

A lone request of n tokens so takes its prefill and n steps. Prompts are prefilled whole: a long one delays
the tokens of everybody in the batch, as in an engine without chunked prefill.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raybench.scenario.models import Emulated


@dataclass(frozen=True)
class EngineModel:
    """Times in seconds, sizes in tokens. `source` says where the figures are from."""

    startup_s: float
    prefill_tokens_per_s: float
    step_base_s: float  # a decode step with one sequence
    step_per_sequence_s: float  # added per further sequence in the batch
    slots: int  # sequences in one batch, at most
    kv_cache_tokens: int  # prompt and output tokens of all running sequences, at most
    context_tokens: int  # prompt and output tokens of one sequence, at most
    step_per_kv_token_s: float = 0.0  # added per token in the cache
    source: str = ""

    def __post_init__(self) -> None:
        positive = ("prefill_tokens_per_s", "step_base_s", "slots", "kv_cache_tokens", "context_tokens")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)}; it must be positive")
        for name in ("startup_s", "step_per_sequence_s", "step_per_kv_token_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: {getattr(self, name)}; it cannot be negative")
        if self.context_tokens > self.kv_cache_tokens:
            raise ValueError(
                f"context_tokens {self.context_tokens} is more than kv_cache_tokens {self.kv_cache_tokens}: "
                "one sequence alone could outgrow the cache"
            )

    def step_s(self, sequences: int, prefill_tokens: int, kv_tokens: int) -> float:
        """Duration of one step that prefills `prefill_tokens` and decodes one token for each sequence."""
        return (
            prefill_tokens / self.prefill_tokens_per_s
            + self.step_base_s
            + self.step_per_sequence_s * (sequences - 1)
            + self.step_per_kv_token_s * kv_tokens
        )


PRESETS: dict[str, EngineModel] = {
    "llama3-8b-a100": EngineModel(
        startup_s=60.0,
        prefill_tokens_per_s=9_700.0,
        step_base_s=1 / 65,
        step_per_sequence_s=103e-6,
        step_per_kv_token_s=126e-9,
        slots=256,
        kv_cache_tokens=140_000,
        context_tokens=8_192,
        source="65 tokens/s for a single stream: published autoscaling benchmark of Llama 3 8B on vLLM and "
        "A100 40GB (63-66 reported; scenarios/published/reference.yaml). The rest is arithmetic on the data "
        "sheets: 8.03e9 parameters of 2 bytes, 128 KiB of KV cache a token (32 layers, 8 heads of 128), "
        "312 TFLOP/s at an assumed half (prefill, and 2 FLOP a parameter and further sequence), 1.555 TB/s "
        "at the two thirds that 65 tokens/s amount to (cache reads), 18.4 GB left for the cache of 90% of "
        "40 GB. Start-up: an assumption, weights from a local disk and engine warm-up.",
    ),
    "tiny-llama-cpu": EngineModel(
        startup_s=16.0,
        prefill_tokens_per_s=4_500.0,
        step_base_s=3.7e-3,
        step_per_sequence_s=126e-6,
        slots=128,
        kv_cache_tokens=32_768,
        context_tokens=2_048,
        source="a Llama of 3.8 million random weights on vLLM 0.32, two CPU cores with AVX-512, bfloat16, "
        "eager: 270 tokens/s at one stream, 5,200 at 64, 6,500 at 128, first token of a 64-token prompt "
        "in 17 ms, 16 s from start to ready; measured on a busy machine, best of several.",
    ),
    "demo": EngineModel(
        startup_s=1.5,
        prefill_tokens_per_s=10_000.0,
        step_base_s=0.025,
        step_per_sequence_s=0.5e-3,
        slots=32,
        kv_cache_tokens=65_536,
        context_tokens=4_096,
        source="invented: 40 tokens/s and a quick start, so that a demonstration fits into a minute",
    ),
}
"""Engines by name. Slots are what the engine could take; a scenario's `slots_per_replica` replaces them."""


def from_scenario(emulated: Emulated, slots: int) -> EngineModel:
    """The preset that a scenario names, with its own figures in place of the preset's.

    A cache smaller than the preset's context shortens the context. Raises ValueError for an unknown preset.
    """
    if emulated.preset not in PRESETS:
        raise ValueError(
            f"emulated.preset: no preset {emulated.preset!r}; there is {', '.join(sorted(PRESETS))}"
        )
    preset = PRESETS[emulated.preset]
    own: dict[str, Any] = {
        "startup_s": emulated.startup,
        "prefill_tokens_per_s": emulated.prefill_tokens_per_s,
        "step_base_s": emulated.step_base,
        "step_per_sequence_s": emulated.step_per_sequence,
        "kv_cache_tokens": emulated.kv_cache_tokens,
    }
    changed = {key: value for key, value in own.items() if value is not None}
    cache = emulated.kv_cache_tokens or preset.kv_cache_tokens
    source = f"{preset.source} Set by the scenario: {', '.join(changed)}." if changed else preset.source
    return replace(
        preset, slots=slots, context_tokens=min(preset.context_tokens, cache), source=source, **changed
    )

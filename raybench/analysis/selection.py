"""Which rows a question is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raybench.analysis.question import PhaseFilter, Question
from raybench.schema import Phase

_FAR_S = 9e9
"""Nearly three centuries, which still fits int64 nanoseconds: where a window is open."""


@dataclass(frozen=True)
class Selection:
    """Which rows count, resolved from the question and the run."""

    window_ns: tuple[int, int] | None
    phase: Phase | None
    phase_is_default: bool
    warmup_ns: int
    cooldown_from_ns: int | None

    @property
    def is_everything(self) -> bool:
        return self.window_ns is None and self.phase is None

    @classmethod
    def of(cls, question: Question, scenario: Mapping[str, Any]) -> Selection:
        load = scenario.get("load") or {}
        warmup_s, cooldown_s = float(load.get("warmup") or 0), float(load.get("cooldown") or 0)
        planned_s = sum(float(stage.get("duration") or 0) for stage in load.get("stages") or [])
        window = None
        if question.window is not None:
            start, end = question.window
            window = (round(max(start, -_FAR_S) * 1e9), round(min(end, _FAR_S) * 1e9))
        phase = None
        is_default = question.phase is PhaseFilter.AUTO
        if not is_default and question.phase is not PhaseFilter.ALL:
            phase = Phase(question.phase.value)
        elif is_default and question.window is None and (warmup_s > 0 or cooldown_s > 0):
            phase = Phase.STEADY
        return cls(
            window_ns=window,
            phase=phase,
            phase_is_default=is_default and phase is not None,
            warmup_ns=round(warmup_s * 1e9),
            cooldown_from_ns=round((planned_s - cooldown_s) * 1e9)
            if cooldown_s > 0 and planned_s > 0
            else None,
        )

    def phase_at(self, scheduled_ns: int) -> Phase:
        if scheduled_ns < self.warmup_ns:
            return Phase.WARMUP
        if self.cooldown_from_ns is not None and scheduled_ns >= self.cooldown_from_ns:
            return Phase.COOLDOWN
        return Phase.STEADY

    def holds(self, scheduled_ns: int | None) -> bool:
        """Whether a row that was never written belongs here; one without an instant always does."""
        if scheduled_ns is None:
            return True
        if self.phase is not None and self.phase_at(scheduled_ns) is not self.phase:
            return False
        return self.window_ns is None or self.window_ns[0] <= scheduled_ns < self.window_ns[1]

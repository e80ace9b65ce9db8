"""What is good enough for users, and when a run may be believed."""

from __future__ import annotations

import difflib
import re
from typing import Any, NamedTuple

from pydantic import ConfigDict, Field, NonNegativeInt, model_validator
from pydantic_core import PydanticCustomError

from raybench.scenario.base import Mistake, Model
from raybench.scenario.units import PositiveSeconds, Ratio, Seconds


class Limit(NamedTuple):
    """One latency objective: `metric` (ttft, tpot, e2e) at `percentile` (0-100) at most `seconds`."""

    key: str
    metric: str
    percentile: float
    seconds: float


_LIMIT_KEY = re.compile(r"(ttft|tpot|e2e)_p(\d+(?:\.\d+)?)")


class Objectives(Model):
    """Service objectives: `<ttft|tpot|e2e>_p<percentile>: duration`, and `success_rate: 99.9%`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, PositiveSeconds] = Field(init=False)
    success_rate: Ratio | None = None

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The latency objectives, in the order they were written."""
        found = ((key, _LIMIT_KEY.fullmatch(key), value) for key, value in (self.model_extra or {}).items())
        return tuple(Limit(k, m.group(1), float(m.group(2)), v) for k, m, v in found if m)

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        bad = [k for k in data if k not in cls.model_fields and not _is_limit(k)]
        if bad:
            found = [Mistake((key,), _unknown(key)) for key in bad]
            text = "; ".join(f"{m.key[0]}: {m.right}" for m in found)
            raise PydanticCustomError("mistakes", "{text}", {"text": text, "mistakes": found})
        return data


def _is_limit(key: object) -> bool:
    found = _LIMIT_KEY.fullmatch(key) if isinstance(key, str) else None
    return found is not None and 0 < float(found.group(2)) < 100


def _unknown(key: object) -> str:
    near = difflib.get_close_matches(
        str(key), ["success_rate", "ttft_p99", "tpot_p99", "e2e_p99"], n=1, cutoff=0.7
    )
    hint = f"did you mean {near[0]}? " if near else ""
    return f"not an objective; {hint}There are success_rate and ttft_p99, tpot_p50, e2e_p95 and the like"


class Bounds(Model):
    """When a run is VALID."""

    lateness_p99: Seconds | None = None  # default: max(10 ms, 1% of the TTFT objective)
    sent_ratio: Ratio = 0.99
    lost: NonNegativeInt = 0
    clock_uncertainty: Seconds = 0.005
    generator_cpu_ratio: Ratio = 0.9
    generator_capacity: Ratio = 0.8  # of a core, by calibration, in a generator's busiest second
    ttft_error: Ratio = 0.05  # of the strictest TTFT objective: the calibrated error of TTFT, p99

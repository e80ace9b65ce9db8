"""What every model of the scenario shares: unknown keys are errors, and checks that span several keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

BASE_DIR = "base_dir"
"""Key of the validation context: the directory that data files are named relative to."""


class Mistake(NamedTuple):
    """One thing wrong with a combination of keys: where (relative to the model) and what would be right."""

    key: tuple[str | int, ...]
    right: str
    secret: bool = False  # the value must not be shown


class Model(BaseModel):
    """Strict, so that `cpus: "4"` or `stream: 1` is said to be wrong rather than guessed at."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def mistakes(self) -> Iterator[Mistake]:
        """What no single key can know. Yields every mistake, so that all are reported at once."""
        yield from ()

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if found := list(self.mistakes()):
            text = "; ".join(f"{'.'.join(map(str, m.key))}: {m.right}" for m in found)
            raise PydanticCustomError("mistakes", "{text}", {"text": text, "mistakes": found})
        return self


def _resolve(name: str, info: ValidationInfo) -> str:
    context: dict[str, Any] = info.context or {}
    return str((Path(context[BASE_DIR]) / name).resolve()) if BASE_DIR in context else name


DataFile = Annotated[str, AfterValidator(_resolve)]
"""Path of a data file: in YAML relative to the scenario, in a loaded scenario absolute."""

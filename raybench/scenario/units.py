"""Values with units, as people write them: `60s`, `15Gi`, `10/s`, `99.9%`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

Seconds = Annotated[float, BeforeValidator(lambda v: v)]
Bytes = Annotated[int, BeforeValidator(lambda v: v)]
Rate = Annotated[float, BeforeValidator(lambda v: v)]
Ratio = Annotated[float, BeforeValidator(lambda v: v)]

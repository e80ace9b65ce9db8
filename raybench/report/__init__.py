"""From figures to text, Markdown or JSON. Nothing is computed here and nothing is read."""

from __future__ import annotations

from collections.abc import Callable

from raybench.analysis.figures import Summary
from raybench.report import json, markdown, text

FORMATS: dict[str, Callable[[Summary], str]] = {
    "text": text.render,
    "markdown": markdown.render,
    "json": json.render,
}


def render(summary: Summary, format: str = "text") -> str:
    """The report of one run. Raises ValueError for a format there is not."""
    if format not in FORMATS:
        raise ValueError(f"format {format!r}: one of {', '.join(FORMATS)} is right")
    return FORMATS[format](summary)

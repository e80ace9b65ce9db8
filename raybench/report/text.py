"""Plain text, for a terminal and for a pipe: aligned, no colour codes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from raybench.analysis.figures import Summary
from raybench.report.blocks import Block, Grid, Lines, Pairs, Section, Verbatim
from raybench.report.sections import sections

WIDTH = 110
INDENT = "  "


def render(summary: Summary) -> str:
    """The whole report."""
    return document(sections(summary))


def document(parts: Sequence[Section]) -> str:
    return "\n\n".join(_section(s) for s in parts)


def _section(s: Section) -> str:
    blocks = "\n\n".join(_block(b) for b in s.blocks if b != Lines(()))
    return f"{s.title}\n{'-' * len(s.title)}\n{blocks}"


def _block(block: Block) -> str:
    match block:
        case Pairs(rows):
            width = max((len(name) for name, _ in rows), default=0)
            return "\n".join(_hanging(f"{INDENT}{name:<{width}}  ", text) for name, text in rows)
        case Grid():
            return grid(block)
        case Lines(lines):
            return "\n".join(_hanging(INDENT, line) for line in lines)
        case Verbatim(text):
            return text


def grid(g: Grid) -> str:
    """Columns as wide as their widest cell."""
    rows = [g.head, *g.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(g.head))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i in g.left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((INDENT + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def _hanging(start: str, text: str) -> str:
    """Wrapped, with further lines under the first one's text. Leading spaces of the text are kept."""
    start += text[: len(text) - len(text.lstrip())]
    room = max(40, WIDTH - len(start))
    lines = textwrap.wrap(text.lstrip(), room, break_long_words=False, break_on_hyphens=False)
    return (start + ("\n" + " " * len(start)).join(lines)).rstrip()

"""The report as Markdown, from the same sections."""

from __future__ import annotations

from collections.abc import Sequence

from raybench.analysis.figures import Summary
from raybench.report.blocks import Block, Grid, Lines, Pairs, Section, Verbatim
from raybench.report.sections import sections


def render(summary: Summary) -> str:
    """The whole report."""
    return document(sections(summary))


def document(parts: Sequence[Section]) -> str:
    made = []
    for i, s in enumerate(parts):
        made.append(f"{'#' if i == 0 else '##'} {s.title}")
        made += [_block(b) for b in s.blocks if b != Lines(())]
    return "\n\n".join(made)


def _block(block: Block) -> str:
    match block:
        case Pairs(rows):
            return _table(("", ""), rows, left=(0, 1))
        case Grid(head, rows, left):
            return _table(head, rows, left)
        case Lines(lines):
            return "\n".join(f"- {_escaped(line.strip().removeprefix('- '))}" for line in lines)
        case Verbatim(text):
            return f"```\n{text}\n```"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    rule = [":---" if i in left else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(map(_escaped, row)) + " |" for row in (head, rule, *rows))


def _escaped(text: str) -> str:
    """`*` marks a percentile and `|` a drawing; neither is markup here."""
    return (
        text.replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("*", "\\*")
        .replace("<", "&lt;")
        .replace("\n", " ")
    )

"""What a report is made of, before it is text or Markdown: sections of pairs, grids and lines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pairs:
    """Names with values, one a line."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Grid:
    """A table; the first column is text, the others stand flush right unless named in `left`."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Lines:
    """Sentences, one a line; wrapped where they are long."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Verbatim:
    """Text whose every space counts."""

    text: str


Block = Pairs | Grid | Lines | Verbatim


@dataclass(frozen=True)
class Section:
    title: str
    blocks: tuple[Block, ...]

"""A YAML document as plain data, with the line of every key and value: what error messages need."""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

Path = tuple[str | int, ...]

_MOST_NODES = 200_000  # far beyond any scenario; stops aliases that multiply


class Document(NamedTuple):
    """Parsed data, the line (from 1) of each path in it, and what is wrong with the YAML itself."""

    data: Any
    lines: dict[Path, int]
    mistakes: list[tuple[int, Path, str, str]]  # line, path, value as text, what would be right


class Broken(Exception):
    """Not YAML at all. Carries the line, from 1, and the parser's words."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line, self.problem = line, problem


def read(text: str) -> Document:
    """Parse one YAML document. Raises Broken."""
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        found = _Walk()
        if root is not None:
            found.duplicates(root, (), set())
        data = loader.construct_document(root) if root is not None else None
        if root is not None:
            found.positions(root, (), set())
        return Document(data, found.lines, found.mistakes)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Broken(mark.line + 1 if mark else 1, error.problem or str(error)) from None
    except yaml.YAMLError as error:
        raise Broken(1, str(error).replace("\n", " ")) from None
    except (ValueError, RecursionError) as error:  # such as the date 2024-99-99
        raise Broken(1, str(error)) from None
    finally:
        loader.dispose()


class _Walk:
    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.mistakes: list[tuple[int, Path, str, str]] = []

    def duplicates(self, node: yaml.Node, at: Path, above: set[int]) -> None:
        """Before construction, which keeps the last of two equal keys and says nothing."""
        if id(node) in above:
            raise Broken(node.start_mark.line + 1, "an anchor that contains itself")
        above = above | {id(node)}
        if isinstance(node, yaml.MappingNode):
            first: dict[str, int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in first and key.tag != "tag:yaml.org,2002:merge":
                    self.mistakes.append(
                        (line, (*at, name), _text(value), f"given twice; the first is on line {first[name]}")
                    )
                first.setdefault(name, line)
                self.duplicates(value, (*at, name), above)
        elif isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                self.duplicates(item, (*at, i), above)

    def positions(self, node: yaml.Node, at: Path, above: set[int]) -> None:
        """After construction, which has put merged keys (`<<`) in their place."""
        if len(self.lines) > _MOST_NODES:
            raise Broken(node.start_mark.line + 1, "too many values")
        self.lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                path = (*at, str(key.value))
                # The key's line: a block value starts one below, and people look for the key.
                self.lines[path] = key.start_mark.line + 1
                self.positions(value, path, above)
        elif isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                self.positions(item, (*at, i), above)


def _text(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else "…"

"""The summary as JSON, with a version, and its JSON Schema, both from the dataclasses themselves.

Seconds, bytes and counts as everywhere; null is what could not be said. The schema is published as
`docs/report.schema.json`. A field that is added keeps the version; one that changes or goes raises it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Sequence
from enum import Enum, IntEnum
from typing import Any

from raybench.analysis.figures import Accounting, Summary

VERSION = 1
SCHEMA_ID = f"raybench-report-{VERSION}"


def render(summary: Summary) -> str:
    return json.dumps(to_object(summary), indent=1, ensure_ascii=False, allow_nan=False)


def render_many(named: Sequence[tuple[str, Summary]]) -> str:
    """Several runs: a list of {run, report}, each report as `render` makes it."""
    made = [{"run": name, "report": to_object(summary)} for name, summary in named]
    return json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False)


def to_object(summary: Summary) -> dict[str, Any]:
    """Plain dicts, lists and numbers that follow `schema()`."""
    body = _plain(summary)
    return {"report_version": VERSION, "exit_code": int(summary.exit_code), **body}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        made = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return made | {"balances": value.balances} if isinstance(value, Accounting) else made
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the report."""
    definitions: dict[str, Any] = {}
    _schema_of(Summary, definitions)
    top = definitions.pop(Summary.__name__)
    top["properties"] = {
        "report_version": {"const": VERSION},
        "exit_code": {"type": "integer"},
        **top["properties"],
    }
    top["required"] = ["report_version", "exit_code", *top["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "raybench report",
        **top,
        "$defs": definitions,
    }


_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def _schema_of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind is Any:
        return {}
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind]}
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return {"enum": [int(m) for m in kind]}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [m.value for m in kind]}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _schema_of_dataclass(kind, definitions)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_schema_of(a, definitions) for a in args]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(args[1], definitions)}
    if origin is tuple and args[-1] is Ellipsis:
        return {"type": "array", "items": _schema_of(args[0], definitions)}
    if origin is tuple:
        items = [_schema_of(a, definitions) for a in args]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    raise TypeError(f"{kind}: a report holds numbers, text, dicts, tuples and dataclasses of them")


def _schema_of_dataclass(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}  # stands in while its own fields are described
        hints = typing.get_type_hints(kind)
        properties = {f.name: _schema_of(hints[f.name], definitions) for f in dataclasses.fields(kind)}
        if kind is Accounting:
            properties["balances"] = {"type": "boolean"}
        described = " ".join((kind.__doc__ or "").split())
        definitions[kind.__name__] = {
            "type": "object",
            **(
                {"description": described}
                if described and not described.startswith(kind.__name__ + "(")
                else {}
            ),
            "properties": properties,
            "required": list(properties),
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}

"""What would be right, in words, for each kind of mistake that validation finds."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

_PLAIN = {
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
    "string_type": "should be text; put it in quotes if it looks like something else",
    "dict_type": "should be a mapping of keys to values",
    "list_type": "should be a list",
    "too_short": "should have at least one entry",
    "finite_number": "should be a finite number",
}

_PATTERNS: dict[str | int, str] = {
    "name": "should begin with a letter or digit and have only those and . _ - (it names directories)",
    "route": "should begin with / and have only letters, digits and _ . - /",
}


def right_for(error: Mapping[str, Any], place: tuple[str | int, ...], root: type[BaseModel]) -> str:
    """What would be right for one of pydantic's errors at `place` in the `root` model."""
    kind, context = error["type"], error.get("ctx") or {}
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind == "missing":
        return "required"
    if kind == "extra_forbidden":
        return _unknown_key(error, root)
    if kind == "literal_error":
        return _one_of(error["input"], context["expected"])
    if kind == "union_tag_invalid":
        return _one_of(context["tag"], context["expected_tags"])
    if kind == "union_tag_not_found":
        return "required"
    if kind in ("model_type", "model_attributes_type"):
        return "should be a mapping of keys to values"
    for bound, words in (("gt", "more than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most")):
        if bound in context:
            return f"should be {words} {context[bound]:g}"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(place[-1], f"should match {context['pattern']}")
    if kind == "string_too_long":
        return f"should have at most {context['max_length']} characters"
    message = str(error["msg"])
    return message[0].lower() + message[1:]


def nearest(word: object, known: list[str]) -> str:
    """`did you mean …?` with the nearest known word, or all of them."""
    near = difflib.get_close_matches(str(word).lower(), known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"


def shown(value: Any) -> str:
    """A value as it may stand in a message: short, on one line."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        text = "{" + ", ".join(map(str, value)) + "}"
    else:
        text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _one_of(given: Any, expected: str) -> str:
    choices = [part.strip("' ") for part in expected.replace(" or ", ", ").split(",")]
    near = difflib.get_close_matches(str(given).lower(), choices, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"should be {' or '.join(choices)}{hint}"


def _unknown_key(error: Mapping[str, Any], root: type[BaseModel]) -> str:
    *path, key = error["loc"]
    known = _keys_at(root, path)
    text = f"unknown key; {nearest(key, known)}" if known else "unknown key"
    homes = [home for home in _homes(root) if home[-1] == key]
    if len(homes) == 1 and "did you mean" not in text:
        text = f"unknown key here; it belongs to {'.'.join(homes[0][:-1]) or 'the top level'}"
    return text


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation can hold, through unions, lists and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, list) or hasattr(annotation, "__metadata__"):
        parts = get_args(annotation)
        parts = parts[:1] if hasattr(annotation, "__metadata__") else parts
        return [model for part in parts for model in _models(part)]
    return []


def _keys_at(root: type[BaseModel], path: list[str | int]) -> list[str]:
    """Keys of the model at pydantic's location, whose tags choose among the models of a union."""
    models = [root]
    for part in path:
        fields = [m.model_fields[part] for m in models if isinstance(part, str) and part in m.model_fields]
        if fields:
            models = [model for field in fields for model in _models(field.annotation)]
        elif isinstance(part, str) and len(models) > 1:
            models = [m for m in models if part in _tags(m)] or models
    return sorted({name for model in models for name in model.model_fields})


def _tags(model: type[BaseModel]) -> set[str]:
    return {str(tag) for field in model.model_fields.values() for tag in get_args(field.annotation)}


def _homes(model: type[BaseModel], at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every key that a scenario can have."""
    found: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        found.append((*at, name))
        for inner in _models(field.annotation):
            found += _homes(inner, (*at, name))
    return found

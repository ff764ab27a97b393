"""Suggestions for an unknown field, and the allowed values of a field."""

from __future__ import annotations

import re
from difflib import get_close_matches

from msgspec import inspect

_STEP = re.compile(r"\[[^\[\]]*\]|[^.\[\]]+")


def suggest_field(kind: object, path: str, name: str) -> str | None:
    """Returns the field most similar to `name` at `path` in a body of `kind`, None if none is similar."""
    body = _type_at(kind, path)
    known = [field.encode_name for field in body.fields] if isinstance(body, inspect.StructType) else []
    return next(iter(get_close_matches(name, known, n=1)), None)


def allowed_values(kind: object, path: str) -> list[str]:
    """Returns the values of the enum or literal at `path` in a body of `kind`, none for any other type."""
    found = _type_at(kind, path)
    if isinstance(found, inspect.EnumType):
        return [str(member.value) for member in found.cls]
    return [str(value) for value in found.values] if isinstance(found, inspect.LiteralType) else []


def _type_at(kind: object, path: str) -> inspect.Type:
    """Returns the type of the value at `path`."""
    found = inspect.type_info(kind)
    for step in _STEP.findall(path):
        found = _child_type(_without_null(found), step)
    return _without_null(found)


def _without_null(kind: inspect.Type) -> inspect.Type:
    """Returns the first alternative of a type that is not null."""
    alternatives = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return next((choice for choice in alternatives if not isinstance(choice, inspect.NoneType)), kind)


def _child_type(parent: inspect.Type, step: str) -> inspect.Type:
    """Returns the type of the field, item or value that a step of a path leads to."""
    if isinstance(parent, inspect.StructType):
        return next((field.type for field in parent.fields if field.encode_name == step), inspect.AnyType())
    if isinstance(parent, inspect.ListType):
        return parent.item_type
    if isinstance(parent, inspect.DictType):
        return parent.value_type
    return inspect.AnyType()

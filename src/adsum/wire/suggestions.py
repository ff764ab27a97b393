"""Suggestions for an unknown field, and the allowed values of a field."""

from __future__ import annotations

import re
from difflib import get_close_matches

from msgspec import inspect

_STEP = re.compile(r"\[[^\[\]]*\]|[^.\[\]]+")


def suggest_field(kind: object, path: str, name: str) -> str | None:
    """Returns the field most similar to `name` at `path` in a body of `kind`, None if none is similar."""
    at = _at(kind, path)
    known = [field.encode_name for field in at.fields] if isinstance(at, inspect.StructType) else []
    return next(iter(get_close_matches(name, known, n=1)), None)


def allowed_values(kind: object, path: str) -> list[str]:
    """Returns the values that are allowed at `path` in a body of `kind`; none if there are too many to list."""
    at = _at(kind, path)
    if isinstance(at, inspect.EnumType):
        return [str(member.value) for member in at.cls]
    return [str(value) for value in at.values] if isinstance(at, inspect.LiteralType) else []


def _at(kind: object, path: str) -> inspect.Type:
    """Returns the type of the value at `path`."""
    at = inspect.type_info(kind)
    for step in _STEP.findall(path):
        at = _inside(_present(at), step)
    return _present(at)


def _present(at: inspect.Type) -> inspect.Type:
    """Returns the first alternative of a type that is not null."""
    kinds = at.types if isinstance(at, inspect.UnionType) else (at,)
    return next((kind for kind in kinds if not isinstance(kind, inspect.NoneType)), at)


def _inside(at: inspect.Type, step: str) -> inspect.Type:
    """Returns the type of a field, item or value of the type."""
    if isinstance(at, inspect.StructType):
        return next((field.type for field in at.fields if field.encode_name == step), inspect.AnyType())
    if isinstance(at, inspect.ListType):
        return at.item_type
    if isinstance(at, inspect.DictType):
        return at.value_type
    return inspect.AnyType()

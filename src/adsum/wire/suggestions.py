"""What was probably meant by a field that nothing knows, and what may stand in one that takes a few words only."""

from __future__ import annotations

import re
from difflib import get_close_matches

from msgspec import inspect

_STEP = re.compile(r"\[[^\[\]]*\]|[^.\[\]]+")


def suggest_field(kind: object, path: str, name: str) -> str | None:
    """The field most like `name` of what stands at `path` in a body of `kind`; None if none is like it."""
    at = _at(kind, path)
    known = [field.encode_name for field in at.fields] if isinstance(at, inspect.StructType) else []
    return next(iter(get_close_matches(name, known, n=1)), None)


def allowed_values(kind: object, path: str) -> list[str]:
    """The words that may stand at `path` in a body of `kind`; none if others may, too."""
    at = _at(kind, path)
    if isinstance(at, inspect.EnumType):
        return [str(each.value) for each in at.cls]
    return [str(each) for each in at.values] if isinstance(at, inspect.LiteralType) else []


def _at(kind: object, path: str) -> inspect.Type:
    """The type of what stands at `path`."""
    at = inspect.type_info(kind)
    for step in _STEP.findall(path):
        at = _inside(_present(at), step)
    return _present(at)


def _present(at: inspect.Type) -> inspect.Type:
    """What a value may be beside null."""
    kinds = at.types if isinstance(at, inspect.UnionType) else (at,)
    return next((each for each in kinds if not isinstance(each, inspect.NoneType)), at)


def _inside(at: inspect.Type, step: str) -> inspect.Type:
    """The type one step further in."""
    if isinstance(at, inspect.StructType):
        return next((field.type for field in at.fields if field.encode_name == step), inspect.AnyType())
    if isinstance(at, inspect.ListType):
        return at.item_type
    if isinstance(at, inspect.DictType):
        return at.value_type
    return inspect.AnyType()

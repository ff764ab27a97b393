"""Parses the values of settings by their type. The functions raise `Invalid` naming the setting."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from adsum.core import sizes
from adsum.core.durations import parse_duration
from adsum.core.errors import Invalid
from adsum.core.validation import quoted

Field = dataclasses.Field[Any]

MULTI_VALUE_TYPES: Final = (tuple[str, ...], Mapping[str, str])
"""Types of the settings that may be given several times."""
_YES: Final = ("1", "true", "yes", "on")
_NO: Final = ("0", "false", "no", "off")
_NONE: Final = "none"


@cache
def setting_fields(table: type) -> Mapping[str, tuple[Field, Any]]:
    """Returns the settings of a table: name → field and type."""
    types = typing.get_type_hints(table)
    return MappingProxyType({field.name: (field, types[field.name]) for field in dataclasses.fields(table)})


def parse_text(field: Field, kind: Any, text: str) -> Any:
    """Parses a value from the environment, or from a flag that is given once."""
    if kind in MULTI_VALUE_TYPES:
        return parse_texts(field, kind, (part.strip() for part in text.split(",") if part.strip()))
    if kind == float | None and text.strip().lower() == _NONE:
        return None
    return _PARSERS[kind](field, text.strip())


def parse_texts(field: Field, kind: Any, texts: Iterable[str]) -> Any:
    """Parses the values of a flag that may be given several times."""
    if kind == tuple[str, ...]:
        return tuple(texts)
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise Invalid(field.name, f"must be KEY=VALUE, not {quoted(text)}")
        pairs[key] = value
    return MappingProxyType(pairs)


def parse_toml(field: Field, kind: Any, value: object) -> Any:
    """Converts a value of the TOML file, which has a type already; durations and sizes may be strings."""
    if kind == tuple[str, ...] and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if kind == Mapping[str, str] and isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return MappingProxyType(dict(value))
    if kind in (float, float | None):
        if isinstance(value, str) and (field.metadata["duration"] or value == _NONE):
            return parse_text(field, kind, value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif kind is int and field.metadata["size"] and isinstance(value, str):
        return parse_text(field, kind, value)
    elif kind in (str, int, bool) and type(value) is kind:
        return value
    raise Invalid(field.name, f"must be {_EXPECTED[kind]}, not {quoted(str(value))}")


def _parse_string(_: Field, text: str) -> str:
    return text


def _parse_integer(field: Field, text: str) -> int:
    if field.metadata["size"]:
        return sizes.parse_size(field.name, text)
    if not (text.removeprefix("-").isdecimal() and text.isascii() and len(text) <= 18):
        raise Invalid(field.name, f"must be a whole number, not {quoted(text)}")
    return int(text)


def _parse_number(field: Field, text: str) -> float:
    if field.metadata["duration"]:
        return parse_duration(text, field.name)
    try:
        return float(text)
    except ValueError:
        raise Invalid(field.name, f"must be a number, not {quoted(text)}") from None


def _parse_boolean(field: Field, text: str) -> bool:
    if text.lower() not in _YES + _NO:
        raise Invalid(field.name, f"must be true or false, not {quoted(text)}")
    return text.lower() in _YES


_PARSERS: Final[Mapping[Any, Callable[[Field, str], Any]]] = MappingProxyType(
    {str: _parse_string, int: _parse_integer, float: _parse_number, float | None: _parse_number, bool: _parse_boolean}
)

_EXPECTED: Final[Mapping[Any, str]] = MappingProxyType(
    {
        str: "a string",
        int: "a whole number",
        float: "a number",
        float | None: 'a number or "none"',
        bool: "true or false",
        tuple[str, ...]: "a list of strings",
        Mapping[str, str]: "a table of strings",
    }
)

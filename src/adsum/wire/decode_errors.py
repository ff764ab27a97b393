"""Explanations of the errors of the JSON decoder: they say what the value must be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from adsum.wire import protocol, suggestions

_GOT: Final = re.compile(r"Expected `(?P<kinds>[^`]+)`, got `(?P<got>[^`]+)`")
_BOUND: Final = re.compile(r"Expected `(?:int|float)` (?P<sign>[<>]=) (?P<bound>\S+)")
_LENGTH: Final = re.compile(r"Expected `(?P<kind>\w+)` of length (?P<sign>[<>]=)? ?(?P<length>\d+)")
_PATTERN: Final = re.compile(r"Expected `str` matching regex (?P<quote>['\"])(?P<pattern>.*)(?P=quote)")
_CHOICE: Final = re.compile(r"Invalid enum value (?P<value>.*)", re.DOTALL)

_KINDS: Final[Mapping[str, str]] = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_SIGNS: Final[Mapping[str | None, str]] = {"<=": "at most ", ">=": "at least ", None: ""}
_PARTS: Final[Mapping[str, str]] = {"str": "characters", "array": "values", "object": "fields"}


def explain_decode_error(problem: str, kind: object, path: str) -> str:
    """Returns what the value at `path` of a body of `kind` must be. A problem of another form is returned as it is."""
    if found := _GOT.fullmatch(problem):
        wanted = [_KINDS.get(name, name) for name in found["kinds"].split(" | ") if name != "null"]
        return f"must be {join_alternatives(wanted)}, not {_KINDS.get(found['got'], found['got'])}"
    if found := _BOUND.fullmatch(problem):
        return f"must be {_SIGNS[found['sign']]}{float(found['bound']):.12g}"
    if found := _LENGTH.fullmatch(problem):
        verb = "be" if found["kind"] == "str" else "have"
        return f"must {verb} {_SIGNS[found['sign']]}{found['length']} {_PARTS.get(found['kind'], 'parts')}"
    if found := _PATTERN.fullmatch(problem):
        description = protocol.PATTERN_DESCRIPTIONS.get(found["pattern"].replace("\\\\", "\\"))
        return f"must be {description}" if description else problem
    if found := _CHOICE.fullmatch(problem):
        allowed = suggestions.allowed_values(kind, path)
        return f"must be {join_alternatives(allowed)}, not {found['value']}" if allowed else problem
    return problem


def join_alternatives(values: list[str]) -> str:
    """Returns the values in a list that ends with "or"."""
    return " or ".join(filter(None, (", ".join(values[:-1]), values[-1])))

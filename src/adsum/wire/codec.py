"""JSON in and out; what can't be decoded is told with the field's name."""

from __future__ import annotations

import json
import re
from typing import Final, TypeVar

import msgspec

from adsum.core.errors import Invalid
from adsum.wire import suggestions
from adsum.wire.decode_errors import explain_decode_error

T = TypeVar("T")

MAX_PROBLEM_LENGTH: Final = 200
"""How many characters of a problem, or of the path to it, an error tells: what was sent may stand in it."""

_AT: Final = " - at `$"
"""Stands before the path, at the end of the library's message. What was sent may stand before that, with more of it."""
_MENTIONED = re.compile(r"(?P<how>unknown|required) field `(?P<name>[^`]*)`")


def encode(value: object) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)


def decode(body: bytes | str, kind: type[T]) -> T:
    """Decode and validate in one step. Raises `Invalid`; its field is "" when the body as a whole is no JSON."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), kind) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Invalid("", f"the body must be JSON: {error}") from None
    except RecursionError:
        raise Invalid("", "the body must be JSON of less depth") from None


def find_repeated_key(body: bytes) -> str | None:
    """A key that an object in the JSON `body`, which can be decoded, has twice: decoding takes the last one in silence.

    Takes twice as long as decoding does.
    """
    try:
        _UNIQUE.decode(body.decode())
    except _RepeatedError as repeated:
        return _told(repeated.key)
    return None


class _RepeatedError(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _unique(pairs: list[tuple[str, object]]) -> None:
    if len(dict(pairs)) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedError(key)
            seen.add(key)


_UNIQUE: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_int=str, parse_float=str)


def _invalid(message: str, kind: object) -> Invalid:
    """What must be, with the path as a field, from the library's "Expected `int` <= 65535 - at `$.port`"."""
    problem, at, path = message.rpartition(_AT)
    problem, path = (problem, path.removesuffix("`").removeprefix(".")) if at else (message, "")
    mentioned = _MENTIONED.search(problem)
    if mentioned:
        name = mentioned["name"]
        likely = (
            suggestions.suggest_field(kind, path, name[:MAX_PROBLEM_LENGTH]) if mentioned["how"] == "unknown" else None
        )
        problem += f"; did you mean `{likely}`?" if likely else ""
        path = f"{path}.{name}" if path else name
    else:
        problem = explain_decode_error(problem, kind, path)
    return Invalid(_told(path), _told(problem[:1].lower() + problem[1:]))


def _told(text: str) -> str:
    return text if len(text) <= MAX_PROBLEM_LENGTH else text[:MAX_PROBLEM_LENGTH] + "…"

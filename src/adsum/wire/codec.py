"""The encoder and the decoder of JSON. Errors of the decoder name the field."""

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
"""Characters of a problem, or of the path of its field, in an error. Both may contain text of the sender."""

_PATH_MARK: Final = " - at `$"
"""Precedes the path, at the end of msgspec's message. Text of the sender before it may contain the same characters."""
_FIELD_PROBLEM = re.compile(r"(?P<kind>unknown|required) field `(?P<name>[^`]*)`")


def encode(value: object) -> bytes:
    """Returns compact JSON."""
    return msgspec.json.encode(value)


def decode(body: bytes | str, kind: type[T]) -> T:
    """Decodes and validates a body. Raises `Invalid`, with the field "" if the body is not JSON."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), kind) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Invalid("", f"the body must be JSON: {error}") from None
    except RecursionError:
        raise Invalid("", "the body must be JSON that is nested less deeply") from None


def find_repeated_key(body: bytes) -> str | None:
    """Returns a key that an object in a valid JSON body has twice, None if there is none.

    `decode` silently takes the last value of such a key. If no text of the body occurs twice, no key does, and the
    answer takes less time than `decode`; otherwise it takes twice as long.
    """
    if b"\\" not in body:  # Without escapes, every quote begins or ends a text.
        texts = body.split(b'"')[1::2]
        if len(set(texts)) == len(texts):
            return None
    try:
        _UNIQUE.decode(body.decode())
    except _RepeatedError as repeated:
        return _truncated(repeated.key)
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
    """Returns the error for a message of msgspec, such as "Expected `int` <= 65535 - at `$.port`"."""
    problem, mark, path = message.rpartition(_PATH_MARK)
    problem, path = (problem, path.removesuffix("`").removeprefix(".")) if mark else (message, "")
    if found := _FIELD_PROBLEM.search(problem):
        name, is_unknown = found["name"], found["kind"] == "unknown"
        suggestion = suggestions.suggest_field(kind, path, name[:MAX_PROBLEM_LENGTH]) if is_unknown else None
        problem += f"; did you mean `{suggestion}`?" if suggestion else ""
        path = f"{path}.{name}" if path else name
    else:
        problem = explain_decode_error(problem, kind, path)
    return Invalid(_truncated(path), _truncated(problem[:1].lower() + problem[1:]))


def _truncated(text: str) -> str:
    return text if len(text) <= MAX_PROBLEM_LENGTH else text[:MAX_PROBLEM_LENGTH] + "…"

"""Bodies in which an object has a key twice."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum import wire

TEXTS = st.sampled_from(["a", "b", "", ":", ",", "a:", '"', "\\", "\\u0061", 'a":', "é", "\n"]) | st.text(max_size=3)
SPACES = st.sampled_from(["", "", " ", "\n\t"])


class Pairs(list[tuple[str, Any]]):
    """An object of JSON as its pairs, so that a key may occur twice."""


values = st.recursive(
    TEXTS | st.integers(-5, 5) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(TEXTS, inner), max_size=4).map(Pairs),
    max_leaves=12,
)


def written(data: st.DataObject, value: object) -> str:
    """The value as JSON, with escapes and white space in any form."""
    space = data.draw(SPACES)
    if isinstance(value, str):
        escaped = data.draw(st.booleans())
        characters = (f"\\u{ord(c):04x}" if escaped and c <= "\uffff" else json.dumps(c)[1:-1] for c in value)
        return f'"{"".join(characters)}"'
    if isinstance(value, Pairs):
        pairs = (f"{written(data, key)}{space}:{space}{written(data, inner)}" for key, inner in value)
        return f"{{{space}{f'{space},'.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{space}{f',{space}'.join(written(data, inner) for inner in value)}]"
    return json.dumps(value)


def repeated_keys(value: object) -> set[str]:
    """Every key that an object within the value has twice."""
    inner = [pair[1] for pair in value] if isinstance(value, Pairs) else value if isinstance(value, list) else []
    keys = [pair[0] for pair in value] if isinstance(value, Pairs) else []
    return {key for key in keys if keys.count(key) > 1}.union(*map(repeated_keys, inner))


@given(st.data(), values)
def test_a_key_that_an_object_has_twice_is_found_however_it_is_written(data: st.DataObject, value: object) -> None:
    body = written(data, value).encode()
    msgspec.json.decode(body)
    expected = repeated_keys(value)
    found = wire.find_repeated_key(body)
    assert found in expected if expected else found is None


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"a": 1, "a": 2}', "a"),
        (b'{"a": "a"}', None),
        (b'{"a": ["b", "b"], "c": "a"}', None),
        (b'{"a": 1, "\\u0061": 2}', "a"),
        (b'{"x":",",":a":1,"y":",",":a":2}', ":a"),
        (b'[{"a": {"a": 1}}, {"a": 1}]', None),
        (b'{"": 1, "": 2}', ""),
        (b"7", None),
    ],
)
def test_texts_that_look_like_keys_are_none(body: bytes, key: str | None) -> None:
    assert wire.find_repeated_key(body) == key

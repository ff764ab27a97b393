"""Shared values: equal values are kept once. Most values of a catalog repeat, so this saves most of their memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from sys import intern
from typing import Final, TypeVar

from adsum.core import model

N = TypeVar("N", int, float)

MAX_INTERNED_VALUES: Final = 1_024
"""Different values of each kind that are remembered. Past it the value that was used longest ago is forgotten."""

MAX_INTERNED_LENGTH: Final = 4 * 1024
"""Characters of a value that is remembered. A longer one is not shared. That bounds each kind to some 16 MB."""


def intern_texts(values: Sequence[str]) -> tuple[str, ...]:
    """Returns the texts, such as tags, as a shared tuple."""
    return _texts(tuple(values)) if values and sum(map(len, values)) <= MAX_INTERNED_LENGTH else tuple(values)


def intern_pairs(values: Mapping[str, str]) -> Mapping[str, str]:
    """Returns the pairs, such as metadata, as a shared frozen mapping. Another order makes another mapping."""
    if sum(map(len, values.values())) > MAX_INTERNED_LENGTH:
        return model.freeze(values)
    return _pairs(tuple(values.items())) if values else model.EMPTY_MAPPING


@lru_cache(MAX_INTERNED_VALUES, typed=True)
def intern_number(number: N) -> N:
    """Returns a shared number, such as a port or a ttl."""
    return number


@lru_cache(MAX_INTERNED_VALUES)
def intern_address(address: str) -> str:
    """Returns a shared address. Instances of one host share it, while the addresses of most hosts are forgotten."""
    return address


@lru_cache(MAX_INTERNED_VALUES)
def _texts(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(intern, values))


@lru_cache(MAX_INTERNED_VALUES)
def _pairs(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return model.freeze({intern(key): intern(value) for key, value in items})

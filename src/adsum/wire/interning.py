"""Equal values kept once: a catalog is mostly repetition, and what many instances have in common costs little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from sys import intern
from typing import Final

from adsum.core import model

MAX_INTERNED_VALUES: Final = 1_024
"""How many different values of each kind are remembered; past it those met longest ago are kept apart from then on."""

MAX_INTERNED_LENGTH: Final = 4 * 1024
"""Characters of a value that is remembered; a longer one is kept apart: some 16 MB are remembered of each kind."""


def intern_texts(values: Sequence[str]) -> tuple[str, ...]:
    """Such as tags."""
    return _texts(tuple(values)) if values and sum(map(len, values)) <= MAX_INTERNED_LENGTH else tuple(values)


def intern_pairs(values: Mapping[str, str]) -> Mapping[str, str]:
    """Such as metadata, frozen. As many in another order are others."""
    if sum(map(len, values.values())) > MAX_INTERNED_LENGTH:
        return model.freeze(values)
    return _pairs(tuple(values.items())) if values else model.EMPTY_MAPPING


@lru_cache(MAX_INTERNED_VALUES)
def intern_seconds(seconds: float) -> float:
    """Such as a ttl."""
    return seconds


@lru_cache(MAX_INTERNED_VALUES)
def _texts(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(intern, values))


@lru_cache(MAX_INTERNED_VALUES)
def _pairs(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return model.freeze({intern(key): intern(value) for key, value in items})

"""Equal values kept once: a catalog is mostly repetition, and what many instances have in common costs little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from sys import intern
from typing import Final

from adsum.core import model

MOST: Final = 1_024
"""How many different values of each kind are remembered; past it those met longest ago are kept apart from then on."""

LARGEST: Final = 4 * 1024
"""Characters of a value that is remembered; a longer one is kept apart: some 16 MB are remembered of each kind."""


def texts(values: Sequence[str]) -> tuple[str, ...]:
    """Such as tags."""
    return _texts(tuple(values)) if values and sum(map(len, values)) <= LARGEST else tuple(values)


def pairs(values: Mapping[str, str]) -> Mapping[str, str]:
    """Such as metadata, frozen. As many in another order are others."""
    if sum(map(len, values.values())) > LARGEST:
        return model.frozen(values)
    return _pairs(tuple(values.items())) if values else model.NOTHING


@lru_cache(MOST)
def length(seconds: float) -> float:
    """Such as a ttl."""
    return seconds


@lru_cache(MOST)
def _texts(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(intern, values))


@lru_cache(MOST)
def _pairs(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return model.frozen({intern(key): intern(value) for key, value in items})

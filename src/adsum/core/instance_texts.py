"""Tags and metadata of instances: what is valid, and how much memory they take.

Most instances of a catalog share theirs, so small sets are checked and measured once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from adsum.core import validation
from adsum.core.memory_sizes import page_text_size

MAX_TAGS: Final = 64
MAX_METADATA: Final = 64
MAX_CACHED_SETS: Final = 1_024
"""Valid sets of tags, and of metadata, whose sizes are cached. Past it those used longest ago are checked again."""
MAX_CACHED_TEXTS: Final = 8
"""Tags, or pairs of metadata, in a set that is cached. A larger set is checked each time. That bounds the caches to
some 40 MB, if no listing shares the texts."""


def require_tags(tags: Sequence[str]) -> int:
    """Requires valid tags. Returns their bytes of memory in a registry, estimated."""
    is_small = type(tags) is tuple and len(tags) <= MAX_CACHED_TEXTS
    return _cached_tags_size(tags) if is_small else _tags_size(tags)


def require_metadata(metadata: Mapping[str, str]) -> int:
    """Requires valid metadata. Returns its bytes of memory in a registry, estimated."""
    pairs = tuple(metadata.items())
    return _cached_metadata_size(pairs) if len(pairs) <= MAX_CACHED_TEXTS else _metadata_size(pairs)


def _tags_size(tags: Sequence[str]) -> int:
    validation.texts("tags", tags, MAX_TAGS)
    return sum(map(page_text_size, tags))


def _metadata_size(pairs: tuple[tuple[str, str], ...]) -> int:
    validation.mapping("metadata", dict(pairs), MAX_METADATA)
    return sum(page_text_size(key) + page_text_size(value) for key, value in pairs)


_cached_tags_size = lru_cache(MAX_CACHED_SETS)(_tags_size)
_cached_metadata_size = lru_cache(MAX_CACHED_SETS)(_metadata_size)

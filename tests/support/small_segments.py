"""Segments of few items, so that small catalogs have many of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adsum.core.catalog import segmented_mapping


@contextmanager
def small_segments() -> Iterator[None]:
    """Segments of four items, so that few items make many segments."""
    names = ("MAX_UNSEGMENTED", "SEGMENT_ITEMS", "MIN_SEGMENT_ITEMS", "INDEX_SHARD_ITEMS")
    before = {name: getattr(segmented_mapping, name) for name in names}
    try:
        for name, value in zip(names, (8, 4, 2, 2), strict=True):
            setattr(segmented_mapping, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(segmented_mapping, name, value)

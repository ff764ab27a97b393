"""The memory that pages take."""

from __future__ import annotations

import gc

from adsum.core.model import Listing
from adsum.dialects.native.pages.pages import EMPTY_PAGE_BYTES, Pages
from tests.dialects.native.native_api import NativeApi

LARGE = {f"k{n}": "x" * 1_000 for n in range(10)}
"""Larger than metadata that is interned."""


async def test_past_the_limit_the_page_read_longest_ago_is_dropped(api: NativeApi) -> None:
    pages = Pages(api.registry)
    for name in "abc":
        await api.register(name, "i1")
        pages.page(name, None)
    size = api.registry.snapshot.service("a").size + EMPTY_PAGE_BYTES
    assert pages.size == 3 * size
    pages.page("a", None)
    api.registry.max_catalog_bytes = 3 * size - 1
    await api.register("b", "i1", metadata={"m": "x"})
    before = pages.page("a", None).body
    await api.register("d", "i1")
    pages.page("d", None)
    assert pages.size <= 3 * size - 1
    assert pages.page("a", None).body is before, "it was read last"


async def test_instances_that_left_the_catalog_are_freed_when_other_pages_need_memory(api: NativeApi) -> None:
    """A page that is not read any more is not updated."""
    pages = Pages(api.registry)
    await api.register("emptied", "i1", metadata=LARGE)
    pages.page("emptied", None)
    await pages.services()
    limit = pages.size + 1_000
    await api.request("DELETE", "/api/v1/services/emptied/instances/i1")
    api.registry.max_catalog_bytes = limit
    await api.register("other", "i1", metadata=LARGE | {"a": "y"})
    pages.page("other", None)
    api.store.commits.clear()
    api.observer.batches.clear()
    gc.collect()
    assert pages.size <= limit
    listings = [value for value in gc.get_objects() if isinstance(value, Listing)]
    assert "emptied" not in {listing.key.service for listing in listings}


async def test_a_page_larger_than_the_limit_is_kept_while_it_is_the_only_one(api: NativeApi) -> None:
    pages = Pages(api.registry)
    await api.register("large", "i1")
    api.registry.max_catalog_bytes = 1
    assert pages.page("large", None).body is pages.page("large", None).body

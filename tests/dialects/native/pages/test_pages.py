"""How many pages are kept, and for how long."""

from __future__ import annotations

import gc

from adsum.core.model import Listing
from adsum.dialects.native.pages.pages import EMPTY_PAGE_BYTES, Pages
from tests.dialects.native.native_api import NativeApi

LARGE = {f"k{n}": "x" * 1_000 for n in range(10)}
"""More than is remembered for the sake of equal ones."""


async def test_pages_beyond_the_bound_are_dropped_the_one_read_longest_ago_first(spoken: NativeApi) -> None:
    pages = Pages(spoken.registry)
    for name in "abc":
        await spoken.register(name, "i1")
        pages.page(name, None)
    each = spoken.registry.snapshot.service("a").size + EMPTY_PAGE_BYTES
    assert pages.size == 3 * each
    pages.page("a", None)
    spoken.registry.max_catalog_bytes = 3 * each - 1
    await spoken.register("b", "i1", metadata={"m": "x"})
    before = pages.page("a", None).body
    await spoken.register("d", "i1")
    pages.page("d", None)
    assert pages.size <= 3 * each - 1
    assert pages.page("a", None).body is before, "it was read of late"


async def test_what_left_the_catalog_is_let_go_of_when_other_pages_need_the_room(spoken: NativeApi) -> None:
    """Nobody reads the page any more, and so it never follows its service."""
    pages = Pages(spoken.registry)
    await spoken.register("emptied", "i1", metadata=LARGE)
    pages.page("emptied", None)
    await pages.services()
    held = pages.size + 1_000
    await spoken.request("DELETE", "/api/v1/services/emptied/instances/i1")
    spoken.registry.max_catalog_bytes = held
    await spoken.register("other", "i1", metadata=LARGE | {"a": "y"})
    pages.page("other", None)
    spoken.store.commits.clear()
    spoken.observer.batches.clear()
    gc.collect()
    assert pages.size <= held
    known = [each for each in gc.get_objects() if isinstance(each, Listing)]
    assert "emptied" not in {each.key.service for each in known}


async def test_a_page_larger_than_the_bound_is_kept_while_it_is_the_only_one(spoken: NativeApi) -> None:
    pages = Pages(spoken.registry)
    await spoken.register("large", "i1")
    spoken.registry.max_catalog_bytes = 1
    assert pages.page("large", None).body is pages.page("large", None).body

"""Estimates of the memory that values take in a registry, in bytes.

They are computed from the lengths of texts, without looking at the memory, and hold for large registrations. They were
measured in CPython 3.11. They cover the value itself, the pages made from it once, and the spare room of dictionaries.
"""

from __future__ import annotations

from typing import Final

LISTING_BYTES: Final = 2_000
"""Bytes of a listing without tags, metadata and checks: its values, its index entries and its part of a page."""
CHECK_BYTES: Final = 600
"""Bytes of a check without its texts."""
TEXT_OVERHEAD_BYTES: Final = 100
"""Bytes of a text besides its characters: the Python object and its slot in a tuple or dictionary."""
MAX_CHARACTER_BYTES: Final = 4
"""The most bytes of a character in a text that is not ASCII."""
PAGE_COPIES: Final = 1
"""Copies of a text in the pages: the page of its service has one."""


def text_size(value: str) -> int:
    """Returns the bytes of a text in memory."""
    return TEXT_OVERHEAD_BYTES + len(value) * (1 if value.isascii() else MAX_CHARACTER_BYTES)


def page_text_size(value: str) -> int:
    """Returns the bytes of a text that the pages contain, too, in memory."""
    encoded = len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))
    return text_size(value) + PAGE_COPIES * encoded

"""How many bytes of memory things take, counted without looking at the memory: estimates that hold for large ones.

They were measured in CPython 3.11 and cover the value, what is derived from it once (the pages that are served), and
the room that dictionaries keep free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from adsum.core.errors import Invalid
from adsum.core.validation import quoted

if TYPE_CHECKING:
    from adsum.core.model import Check, Instance

LISTING_BYTES: Final = 2_000
"""Bytes of a listing without tags, metadata and checks: its values, its place in indices and its piece of a page."""
CHECK_BYTES: Final = 600
"""Bytes of a check without its texts."""
TEXT_OVERHEAD_BYTES: Final = 100
"""Bytes of a text beyond its characters: Python's object, and its place in a tuple or dictionary."""
MAX_CHARACTER_BYTES: Final = 4
"""Bytes of a character in a text that is not ASCII, at most."""
PAGE_COPIES: Final = 2
"""How often a page holds what it shows: the piece of each instance, and all of them together."""

BYTES_PER_UNIT: Final = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE: Final = re.compile(r"(?P<number>[0-9]{1,15})\s*(?P<unit>KiB|MiB|GiB|)")


def registration_size(instance: Instance, checks: Iterable[Check]) -> int:
    """Bytes that one registration takes in a registry. One that shares texts with others takes less."""
    size = LISTING_BYTES
    for tag in instance.tags:
        size += _on_pages(tag)
    for key, value in instance.metadata.items():
        size += _on_pages(key) + _on_pages(value)
    for check in checks:
        size += CHECK_BYTES + text_size(check.path)
        for name, value in check.headers.items():
            size += text_size(name) + text_size(value)
    return size


def text_size(value: str) -> int:
    """Bytes of a text."""
    return TEXT_OVERHEAD_BYTES + len(value) * (1 if value.isascii() else MAX_CHARACTER_BYTES)


def _on_pages(value: str) -> int:
    encoded = len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))
    return text_size(value) + PAGE_COPIES * encoded


def parse_size(field: str, written: str) -> int:
    """Bytes, as people write them: `512MiB`, `4GiB`, or a whole number. Raises `Invalid` naming the field."""
    match = _SIZE.fullmatch(written)
    if match is None:
        raise Invalid(field, f"must be a number of bytes, such as 512MiB or 4GiB, not {quoted(written)}")
    return int(match["number"]) * BYTES_PER_UNIT[match["unit"]]


def format_size(size: int) -> str:
    """Bytes for people, in three digits: `87 bytes`, `1.5 MiB`, `4 GiB`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size >= BYTES_PER_UNIT[unit]:
            return f"{size / BYTES_PER_UNIT[unit]:.3g} {unit}"
    return f"{size} bytes"

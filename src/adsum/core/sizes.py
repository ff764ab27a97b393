"""Sizes in bytes, as people write and read them: 512MiB, 4 GiB."""

from __future__ import annotations

import re
from typing import Final

from adsum.core.errors import Invalid
from adsum.core.validation import quoted

BYTES_PER_UNIT: Final = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE: Final = re.compile(r"(?P<number>[0-9]{1,15})\s*(?P<unit>KiB|MiB|GiB|)")


def parse_size(field: str, written: str) -> int:
    """Parses `512MiB`, `4GiB` or a whole number into bytes. Raises `Invalid` naming the field."""
    match = _SIZE.fullmatch(written)
    if match is None:
        raise Invalid(field, f"must be a number of bytes, such as 512MiB or 4GiB, not {quoted(written)}")
    return int(match["number"]) * BYTES_PER_UNIT[match["unit"]]


def format_size(size: int) -> str:
    """Formats bytes in three digits: `87 bytes`, `1.5 MiB`, `4 GiB`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size >= BYTES_PER_UNIT[unit]:
            return f"{size / BYTES_PER_UNIT[unit]:.3g} {unit}"
    return f"{size} bytes"
